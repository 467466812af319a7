// Guests: who sits where, who waits at the door, how loud they are, and the links to send. The list is asked for again when a
// guest's signal, name or fader changes, since all of that rides on the box's state.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { GuestReport, Invitation, MadeInvitation, Seat, State } from "../../common/contract.js";
import { copyText } from "../../common/copy.js";
import { Invite } from "../../common/invite.js";
import { lineOf, roadOf } from "../../common/line.js";
import { json, send, wordsFor } from "../../common/problem.js";
import { attempt, toast } from "../../common/toasts.js";
import { now } from "../box.js";

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
  waiting: ["Waits to be let in", "busy"],
  live: ["Live", "good"],
  silent: ["No picture arriving", "warn"],
};

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

/** What the crew wants of a seat; the answer shows in the box's state. */
async function order(seat: Seat, what: string, body: unknown = {}): Promise<void> {
  await attempt(seat.label, () => json(`/api/guests/${encodeURIComponent(seat.id)}/${what}`, body));
  await load();
}

const invitations = {
  list: () => json<{ items: Invitation[] }>("/api/invitations"),
  create: (body: unknown) => json<MadeInvitation>("/api/invitations", body),
  revoke: (id: string) => send(`/api/invitations/${encodeURIComponent(id)}`, { method: "DELETE" }),
};

export function Guests({ box }: { box: State }) {
  const guests = box.inputs.filter((input) => input.kind === "guest");
  const key = guests.map((input) => [input.id, input.signal, input.label, input.muted, input.gain_db].join(":")).join(" ");
  useEffect(() => {
    void load();
  }, [key]);
  if (guests.length === 0 && seats.value.length === 0) return null;
  return (
    <section class="guests panel" aria-label="Guests">
      <h2>Guests</h2>
      {failed.value ? <p class="muted">The list of seats is not available: {failed.value}</p> : null}
      <div class="columns">
        <ul>
          {seats.value.map((seat) => (
            <Row key={seat.id} seat={seat} report={guests.find((input) => input.id === seat.id)?.guest ?? null} />
          ))}
        </ul>
        <Invite seats={seats.value} {...invitations} now={now.value} fresh={key} />
      </div>
    </section>
  );
}

function Row({ seat, report }: { seat: Seat; report: GuestReport | null }) {
  const [text, mood] = seat.waiting ? words.waiting! : (words[seat.state] ?? [seat.state, ""]);
  const taken = seat.state !== "free";
  const rename = () => {
    const name = prompt(`What is ${seat.label} called on the programme?`, seat.label)?.trim();
    if (name && name !== seat.label) void order(seat, "rename", { name });
  };
  return (
    <li data-testid={`seat-${seat.id}`} data-state={seat.state} class={seat.waiting ? "waits" : ""}>
      <b class="cut-off">{seat.label}</b>
      <span class={`badge ${mood}`}>{text}</span>
      {report ? (
        <span class="muted line" data-testid={`line-${seat.id}`}>
          {lineOf(report)}
        </span>
      ) : null}
      <span class="muted">{roadOf(seat)}</span>
      {seat.waiting ? (
        <>
          <button class="small primary" onClick={() => void order(seat, "admit")} data-testid={`admit-${seat.id}`}>
            Let in
          </button>
          <button class="small" onClick={() => void order(seat, "refuse")} data-testid={`refuse-${seat.id}`}>
            Refuse
          </button>
        </>
      ) : null}
      <span class="fader">
        <button
          class="small"
          aria-pressed={seat.muted ?? false}
          title="Mute in the programme"
          onClick={() => void order(seat, "mute", { muted: !seat.muted })}
          data-testid={`mute-${seat.id}`}
        >
          {seat.muted ? "Muted" : "Mute"}
        </button>
        <input
          type="range"
          min={-30}
          max={12}
          step={1}
          value={Math.max(-30, seat.level_db ?? 0)}
          aria-label={`Level of ${seat.label} in the programme`}
          onChange={(event) => void order(seat, "level", { level_db: Number(event.currentTarget.value) })}
          onDblClick={() => void order(seat, "level", { level_db: 0 })}
          data-testid={`level-${seat.id}`}
        />
        <output class="mono">{`${(seat.level_db ?? 0) > 0 ? "+" : ""}${Math.round(seat.level_db ?? 0)} dB`}</output>
      </span>
      {taken ? (
        <>
          <button class="small" onClick={rename} data-testid={`rename-${seat.id}`}>
            Rename
          </button>
          {seat.waiting ? null : (
            <button class="small danger" onClick={() => void order(seat, "remove")} data-testid={`remove-${seat.id}`}>
              Remove
            </button>
          )}
        </>
      ) : (
        <SeatLink seat={seat} />
      )}
    </li>
  );
}

/** The seat's own link, which is always the same. */
function SeatLink({ seat }: { seat: Seat }) {
  const link = linkOf(seat);
  if (!link) return null;
  const copy = async () => {
    const copied = await copyText(link);
    toast(copied ? `Link for ${seat.label} copied` : `Copy this link: ${link}`, copied ? "good" : "");
  };
  return (
    <>
      <button class="small" onClick={() => void copy()} data-testid={`copy-${seat.id}`} title="The seat's own link: it never ends, and knows no waiting room">
        Copy seat link
      </button>
      <a href={link} target="_blank" rel="noopener" data-testid={`join-link-${seat.id}`}>
        Open
      </a>
      {isSecureLink(link) ? null : <span class="warn-text">works on this network only with https: phones refuse their camera to plain http</span>}
    </>
  );
}
