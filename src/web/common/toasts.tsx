// Short notes in the corner: what a call answered when it failed, what was copied.

import { signal } from "@preact/signals";
import { wordsFor } from "./problem.js";

interface Toast {
  id: number;
  words: string;
  mood: "good" | "bad" | "";
}

const toasts = signal<Toast[]>([]);
let next = 1;

export function toast(words: string, mood: Toast["mood"] = ""): void {
  const id = next++;
  toasts.value = [...toasts.value.filter((other) => other.words !== words), { id, words, mood }].slice(-4);
  setTimeout(() => dismiss(id), mood === "bad" ? 8_000 : 3_500);
}

/** Runs a call; what it throws is said in a toast. Answers whether it went well. */
export async function attempt(what: string, run: () => Promise<unknown>): Promise<boolean> {
  try {
    await run();
    return true;
  } catch (error) {
    toast(`${what}: ${wordsFor(error)}`, "bad");
    return false;
  }
}

const dismiss = (id: number) => {
  toasts.value = toasts.value.filter((other) => other.id !== id);
};

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((one) => (
        <div key={one.id} class={`toast ${one.mood}`} onClick={() => dismiss(one.id)}>
          {one.words}
        </div>
      ))}
    </div>
  );
}
