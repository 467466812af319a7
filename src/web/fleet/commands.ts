// States of commands in words and moods, and their history as a line of steps. Pure.

import type { Mood } from "../common/words.js";
import type { Command, Step } from "./contract.js";

const terminal = new Set([
  "succeeded",
  "completed",
  "failed",
  "rejected",
  "timed_out",
  "cancelled",
  "interrupted",
  "expired",
  "superseded",
  "closed",
]);

/** Nothing can happen to a command in this state any more. */
export const isTerminal = (state: string): boolean => terminal.has(state);

export function commandMood(state: string): Mood {
  if (state === "succeeded" || state === "completed" || state === "closed") return "good";
  if (state === "cancelled" || state === "superseded" || state === "expired" || state === "draft") return "idle";
  if (state === "interrupted" || state === "timed_out") return "warn";
  if (terminal.has(state)) return "bad";
  return "busy";
}

export interface TimedStep extends Step {
  /** Time since the first step in milliseconds; null when a stamp is missing. */
  after: number | null;
}

/** The history with times since its beginning. A clock difference between box and server cannot make a step negative. */
export function timeline(history: readonly Step[] | undefined): TimedStep[] {
  const steps = history ?? [];
  const begin = Date.parse(steps[0]?.ts ?? "");
  let latest = 0;
  return steps.map((step) => {
    const at = Date.parse(step.ts ?? "");
    if (Number.isNaN(begin) || Number.isNaN(at)) return { ...step, after: null };
    latest = Math.max(latest, at - begin);
    return { ...step, after: latest };
  });
}

/** From the click to the end, in milliseconds; null while it is under way or when a stamp is missing. */
export function took(command: Command): number | null {
  if (!isTerminal(command.state)) return null;
  const [begin, end] = [Date.parse(command.created_at ?? ""), Date.parse(command.finished_at ?? command.history?.at(-1)?.ts ?? "")];
  return Number.isNaN(begin) || Number.isNaN(end) ? null : Math.max(0, end - begin);
}

/** "+0.42 s", "+3 min". */
export function elapsed(milliseconds: number | null): string {
  if (milliseconds === null || milliseconds <= 0) return "";
  if (milliseconds < 10_000) return `+${(milliseconds / 1000).toFixed(2)} s`;
  if (milliseconds < 120_000) return `+${Math.round(milliseconds / 1000)} s`;
  return `+${Math.round(milliseconds / 60_000)} min`;
}

/** The arguments in one short line: "quad, mix, 500". */
export function summary(payload: unknown): string {
  if (!payload || typeof payload !== "object") return payload === undefined || payload === null ? "" : String(payload);
  return Object.values(payload)
    .map((value) => (value && typeof value === "object" ? JSON.stringify(value) : String(value)))
    .join(", ");
}

/** Puts a command into a list, newest first; a known one is replaced in place. */
export function withCommand(list: readonly Command[], command: Command): Command[] {
  const index = list.findIndex((one) => one.id === command.id);
  if (index < 0) return [command, ...list];
  const known = list[index];
  // Pushes may overtake each other: what is over stays over.
  if (known && isTerminal(known.state) && !isTerminal(command.state)) return [...list];
  return list.map((one, at) => (at === index ? command : one));
}

/** Parses the editor's text: `changes` is an object, and the sentence says where JSON breaks. */
export function parseChanges(text: string): { changes: Record<string, unknown> } | { error: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { error: `not valid JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  if (!value || typeof value !== "object" || Array.isArray(value)) return { error: "write an object: { \"section\": { \"key\": value } }" };
  if (Object.keys(value).length === 0) return { error: "nothing to change" };
  return { changes: value as Record<string, unknown> };
}
