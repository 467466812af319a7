// How it stands with the guest, asked of the box now and then: whether it waits, is in, is on air, is muted.

import type { Tally } from "../../common/contract.js";
import { json, Problem } from "../../common/problem.js";
import type { TurnAnswer } from "../../common/ice.js";
import { answerFailure, type Failure } from "./failure.js";
import { stateOf, type GuestLink } from "./link.js";

export interface Standing extends TurnAnswer {
  state: "outside" | "waiting" | "in";
  name?: string | null;
  tally?: Tally;
  muted?: boolean;
  road?: string;
  /** Whether the box takes guests by an SFU. */
  sfu?: boolean;
}

/** Asks once. Throws a `Problem`. */
export const ask = (link: GuestLink): Promise<Standing> =>
  // Without credentials: a box with a crew password must not make a guest's browser ask for it.
  json<Standing>(stateOf(link), undefined, { headers: { authorization: `Bearer ${link.token}` }, credentials: "omit" });

/** Whoever waits wants to know soon; whoever is in has the picture. In milliseconds. */
const WAITING_EVERY = 1_500;
const IN_EVERY = 3_000;

/** Asks again and again until the returned function is called, or the link is refused. */
export function follow(link: GuestLink, on: { standing(now: Standing): void; refused(why: Failure): void }): () => void {
  let over = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function round(): Promise<void> {
    let pause = IN_EVERY;
    try {
      const now = await ask(link);
      if (over) return;
      on.standing(now);
      if (now.state !== "in") pause = WAITING_EVERY;
    } catch (error) {
      if (over) return;
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
        on.refused(answerFailure(error.status, error.detail, error.retryAfter));
        return;
      }
      if (error instanceof Problem && error.retryAfter !== null) pause = Math.max(pause, error.retryAfter * 1_000);
    }
    timer = setTimeout(() => void round(), pause);
  }
  void round();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
