// Invitations: whom, for how long, and the link, which is told once; then the list, and taking back. Used by the box's page and
// by the fleet's, which differ in whom they ask.

import { DialogButtons } from "./dialog_buttons.js";
import "./invite.css";
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Invitation, MadeInvitation } from "./contract.js";
import { copyText } from "./copy.js";
import { expiry } from "./format.js";
import { wordsFor } from "./problem.js";
import { attempt, toast } from "./toasts.js";

export interface Inviting {
  seats: { id: string; label: string }[];
  list(): Promise<{ items: Invitation[] }>;
  create(order: unknown): Promise<MadeInvitation>;
  revoke(id: string): Promise<unknown>;
  /** Now, in milliseconds; it moves on by itself. */
  now: number;
  /** The list is asked for again when this changes. */
  fresh: string;
}

const items = signal<Invitation[]>([]);
const made = signal<MadeInvitation | null>(null);
const failed = signal<string | null>(null);

const moods: Record<string, [string, string]> = {
  open: ["Not used yet", ""],
  in: ["Here", "good"],
  expired: ["Expired", "warn"],
  used: ["Used", ""],
  revoked: ["Taken back", "warn"],
  refused: ["Not let in", "warn"],
  removed: ["Removed", "warn"],
};

const lives: [number, string][] = [
  [3_600, "one hour"],
  [86_400, "one day"],
  [604_800, "one week"],
  [2_592_000, "30 days"],
];

const roads: [string, string][] = [
  ["auto", "automatic"],
  ["direct", "direct"],
  ["turn", "TURN relay"],
  ["sfu", "SFU"],
];

/** The button that opens the dialog, and the list below it. */
export function Invite(inviting: Inviting) {
  const dialog = useRef<HTMLDialogElement>(null);
  const load = async () => {
    try {
      items.value = (await inviting.list()).items ?? [];
    } catch {
      // Whoever shows the seats says what is wrong with the box.
      items.value = [];
    }
  };
  useEffect(() => void load(), [inviting.fresh]);
  const open = () => {
    made.value = null;
    failed.value = null;
    dialog.current?.showModal();
  };
  const create = async (event: Event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    try {
      made.value = await inviting.create({
        seat: form.get("seat"),
        name: String(form.get("name") ?? "").trim(),
        expires_in_seconds: Number(form.get("life")),
        uses: form.get("single") ? "single" : "repeated",
        admit: form.get("admit") !== null,
        road: form.get("road"),
      });
      failed.value = null;
      void load();
    } catch (error) {
      failed.value = wordsFor(error);
    }
  };
  const revoke = async (one: Invitation) => {
    if (await attempt("Taking back", () => inviting.revoke(one.id))) void load();
  };
  const shown = items.value;
  return (
    <div class="invitations">
      <button class="small primary" onClick={open} data-testid="invite" disabled={inviting.seats.length === 0}>
        Invite a guest
      </button>
      {shown.length > 0 ? (
        <ul aria-label="Invitations">
          {shown.map((one) => {
            const [words, mood] = moods[one.state] ?? [one.state, ""];
            const stands = one.state === "open" || one.state === "in";
            return (
              <li key={one.id} class={stands ? "" : "over"} data-testid={`invitation-${one.id}`} data-state={one.state}>
                <b class="cut-off">{one.name}</b>
                <span class="muted">{one.seat}</span>
                <span class={`badge ${mood}`}>{words}</span>
                <span class="muted">{stands ? expiry(one.expires_at, inviting.now) : ""}</span>
                {stands ? (
                  <button class="small" onClick={() => void revoke(one)} data-testid={`revoke-${one.id}`}>
                    Take back
                  </button>
                ) : null}
              </li>
            );
          })}
        </ul>
      ) : null}
      <dialog ref={dialog} aria-label="Invite a guest" class="invite">
        {made.value ? (
          <Told made={made.value} close={() => dialog.current?.close()} now={inviting.now} />
        ) : (
          <form class="stack" onSubmit={(event) => void create(event)}>
            <h1>Invite a guest</h1>
            <label class="field">
              Name on the programme
              <input name="name" required maxLength={60} autocomplete="off" data-testid="invite-name" />
            </label>
            <div class="pair">
              <label class="field">
                Seat
                <select name="seat" data-testid="invite-seat">
                  {inviting.seats.map((seat) => (
                    <option key={seat.id} value={seat.id}>
                      {seat.label}
                    </option>
                  ))}
                </select>
              </label>
              <label class="field">
                Good for
                <select name="life">
                  {lives.map(([seconds, words]) => (
                    <option key={seconds} value={seconds} selected={seconds === 86_400}>
                      {words}
                    </option>
                  ))}
                </select>
              </label>
              <label class="field">
                Road
                <select name="road">
                  {roads.map(([road, words]) => (
                    <option key={road} value={road}>
                      {words}
                    </option>
                  ))}
                </select>
              </label>
            </div>
            <label class="tick">
              <input type="checkbox" name="single" checked /> For one guest only, who may come back within two minutes
            </label>
            <label class="tick">
              <input type="checkbox" name="admit" checked /> Waits until somebody of the crew lets it in
            </label>
            {failed.value ? (
              <p class="error" role="alert">
                {failed.value}
              </p>
            ) : null}
            <DialogButtons dialog={dialog} testId="make-link">
              Make the link
            </DialogButtons>
          </form>
        )}
      </dialog>
    </div>
  );
}

function Told({ made, close, now }: { made: MadeInvitation; close(): void; now: number }) {
  const links: [string, string][] = made.fleet_join_url
    ? [
        ["From anywhere", made.fleet_join_url],
        ["In the box's own network", made.join_url],
      ]
    : [["", made.join_url]];
  const copy = async (link: string) => {
    const copied = await copyText(link);
    toast(copied ? `Link for ${made.name} copied` : "Copy it by hand", copied ? "good" : "");
  };
  return (
    <div class="stack">
      <h1>Link for {made.name}</h1>
      {links.map(([where, link], index) => (
        <div key={link} class="told">
          {where ? <span class="muted">{where}</span> : null}
          <code data-testid={index === 0 ? "invite-link" : "invite-link-near"}>{link}</code>
          <button class={index === 0 ? "primary" : ""} onClick={() => void copy(link)}>
            Copy link
          </button>
        </div>
      ))}
      <p class="muted">It is shown only now; {expiry(made.expires_at, now)}.</p>
      <button onClick={close}>Done</button>
    </div>
  );
}
