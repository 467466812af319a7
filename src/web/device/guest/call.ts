// A call by the SFU, as its guest follows it: the browser is connected to the SFU long before the box has fetched anything, and
// would not notice when the box lets go.

import { json, Problem } from "../../common/problem.js";
import type { GuestLink } from "./link.js";
import { standOf, type Call } from "./road.js";

export const callOf = (link: GuestLink): string => `/api/calls/whip/${encodeURIComponent(link.name)}`;
const stateOf = (link: GuestLink): string => `/api/calls/session/${encodeURIComponent(link.name)}`;

/** While the box fetches, and while it has the guest, in milliseconds. */
const FETCHING_EVERY = 400;
const IN_EVERY = 3_000;

/** Asks how the call stands until it is out, or the returned function is called. `location` is the address of the call. */
export function followCall(link: GuestLink, location: string, on: { in(): void; out(reason: string): void }): () => void {
  const session = location.split("/").pop() ?? "";
  let over = false;
  let inside = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function round(): Promise<void> {
    let call: Call | null = null;
    let known = true;
    try {
      call = await json<Call>(stateOf(link), undefined, {
        headers: { authorization: `Bearer ${link.token}` },
        credentials: "omit",
      });
    } catch (error) {
      // A box that does not answer just now says nothing about the call.
      known = error instanceof Problem && error.status === 404;
    }
    if (over) return;
    const stand = known ? standOf(call, session) : inside ? "in" : "on the way";
    if (stand === "out") {
      over = true;
      return on.out(call?.session === session ? (call.reason ?? "") : "");
    }
    if (stand === "in" && !inside) {
      inside = true;
      on.in();
    }
    timer = setTimeout(() => void round(), inside ? IN_EVERY : FETCHING_EVERY);
  }
  void round();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
