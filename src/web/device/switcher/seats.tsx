// Guest seats with the links to send. The list is asked for again when a guest's signal changes, since its state rides on that.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Seat, State } from "../../common/contract.js";
import { copyText } from "../../common/copy.js";
import { json, wordsFor } from "../../common/problem.js";
import { toast } from "../../common/toasts.js";

const seats = signal<Seat[]>([]);
const failed = signal<string | null>(null);

async function load(): Promise<void> {
  try {
    seats.value = (await json<{ items: Seat[] }>("/api/seats")).items ?? [];
    failed.value = null;
  } catch (error) {
    failed.value = wordsFor(error);
  }
}

const words: Record<string, [string, string]> = {
  free: ["Free", ""],
  joining: ["Joining…", "busy"],
  live: ["Live", "good"],
  silent: ["No picture arriving", "warn"],
};

const paths: Record<string, string> = { host: "same network", srflx: "direct", prflx: "direct", relay: "through a TURN relay" };

const linkOf = (seat: Seat): string =>
  seat.join_url ?? (seat.token ? new URL(`/guest_join?seat=${encodeURIComponent(seat.id)}&token=${encodeURIComponent(seat.token)}`, location.href).href : "");

/** Phones give camera and microphone to secure pages only; this machine itself is the exception. */
export function isSecureLink(link: string): boolean {
  try {
    const url = new URL(link);
    return url.protocol === "https:" || ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  } catch {
    return false;
  }
}

export function Seats({ box }: { box: State }) {
  const guests = box.inputs.filter((input) => input.kind === "guest");
  const key = guests.map((input) => `${input.id}:${input.signal}`).join(" ");
  useEffect(() => {
    void load();
  }, [key]);
  if (guests.length === 0 && seats.value.length === 0) return null;

  const copy = async (seat: Seat) => {
    const link = linkOf(seat);
    const copied = link !== "" && (await copyText(link));
    toast(copied ? `Link for ${seat.label} copied` : `Copy this link: ${link}`, copied ? "good" : "");
  };
  return (
    <section class="seats panel" aria-label="Guest seats">
      <h2>Guests</h2>
      {failed.value ? <p class="muted">The list of seats is not available: {failed.value}</p> : null}
      <ul>
        {seats.value.map((seat) => {
          const [text, mood] = words[seat.state] ?? [seat.state, ""];
          const link = linkOf(seat);
          return (
            <li key={seat.id} data-testid={`seat-${seat.id}`} data-state={seat.state}>
              <b>{seat.label}</b>
              <span class={`badge ${mood}`}>{text}</span>
              {seat.path && seat.state === "live" ? <span class="muted">{paths[seat.path] ?? seat.path}</span> : null}
              {link ? (
                <>
                  <button class="small" onClick={() => void copy(seat)} data-testid={`copy-${seat.id}`}>
                    Copy link
                  </button>
                  <a href={link} target="_blank" rel="noopener" data-testid={`join-link-${seat.id}`}>
                    Open
                  </a>
                  {isSecureLink(link) ? null : <span class="warn-text">works on this network only with https: phones refuse their camera to plain http</span>}
                </>
              ) : null}
            </li>
          );
        })}
      </ul>
    </section>
  );
}
