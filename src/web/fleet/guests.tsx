// Guests of a box from afar: who waits is let in, and invitations lead through this server to a box without an open port.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Invitation, MadeInvitation, Seat } from "../common/contract.js";
import { Invite } from "../common/invite.js";
import { roadOf } from "../common/line.js";
import { wordsFor } from "../common/problem.js";
import { attempt } from "../common/toasts.js";
import { signalWords } from "../common/words.js";
import type { Detail } from "./contract.js";
import { api, apiRaw } from "./session.js";
import { now } from "./store.js";

const seats = signal<Seat[]>([]);
const failed = signal<string | null>(null);

export function Guests({ box, id }: { box: Detail; id: string }) {
  const path = `/devices/${encodeURIComponent(id)}`;
  const key = (box.inputs ?? []).filter((input) => input.kind === "guest").map((input) => `${input.id}:${input.signal}`).join(" ");
  const load = async () => {
    try {
      seats.value = (await api<{ items: Seat[] }>(`${path}/guests`)).items ?? [];
      failed.value = null;
    } catch (error) {
      seats.value = [];
      failed.value = wordsFor(error);
    }
  };
  useEffect(() => void load(), [id, key]);
  const order = async (seat: Seat, what: string) => {
    await attempt(seat.label, () => api(`${path}/guests/${encodeURIComponent(seat.id)}/${what}`, {}));
    await load();
  };
  if (seats.value.length === 0 && !failed.value) return null;
  return (
    <section class="panel stack" aria-label="Guests">
      <h2>Guests</h2>
      {failed.value ? <p class="muted">{failed.value}</p> : null}
      {seats.value
        .filter((seat) => seat.state !== "free")
        .map((seat) => {
          const { words, mood } = signalWords(seat.waiting ? "waiting" : seat.state);
          return (
            <div key={seat.id} class="row" data-testid={`seat-${seat.id}`} data-state={seat.state}>
              <b class="cut-off">{seat.label}</b>
              <span class={`badge ${mood}`}>{words}</span>
              <span class="muted">{roadOf(seat)}</span>
              {seat.waiting ? (
                <>
                  <button class="small primary" onClick={() => void order(seat, "admit")} data-testid={`admit-${seat.id}`}>
                    Let in
                  </button>
                  <button class="small" onClick={() => void order(seat, "refuse")}>
                    Refuse
                  </button>
                </>
              ) : (
                <button class="small danger" onClick={() => void order(seat, "remove")}>
                  Remove
                </button>
              )}
            </div>
          );
        })}
      <Invite
        seats={seats.value}
        now={now.value}
        fresh={`${id} ${key}`}
        list={() => api<{ items: Invitation[] }>(`${path}/invitations`)}
        create={(body) => api<MadeInvitation>(`${path}/invitations`, body)}
        revoke={(one) => apiRaw(`${path}/invitations/${encodeURIComponent(one)}`, { method: "DELETE" })}
      />
    </section>
  );
}
