// When to wait, when to rejoin, when to give up: the guest's session as a pure core. The shell feeds it what happened and does
// what it answers.

import { failure, isFinal, type Failure, type Reason } from "./failure.js";

export type Phase = "asking" | "ready" | "connecting" | "live" | "rejoining" | "failed" | "left";

export interface Session {
  phase: Phase;
  /** Rejoins since the last time it was live. */
  rejoins: number;
  /** Was it live since the guest pressed Join? Only then a loss is answered by a rejoin without asking. */
  wasLive: boolean;
  failure: Failure | null;
}

export type Happening =
  | { what: "asked" }
  | { what: "media-ready" }
  | { what: "join" }
  | { what: "connected" }
  | { what: "lost" }
  | { what: "failed"; failure: Failure }
  | { what: "left" };

export type Effect = { do: "connect"; after: number } | { do: "hang-up" } | null;

/** Rejoins in a row before the guest is asked. With the pauses below they cover about half a minute. */
export const MAX_REJOINS = 6;

/** A connection that says "disconnected" has been silent for some seconds; within this time it often comes back (milliseconds). */
export const DISCONNECT_GRACE = 3_000;

/** From the answer to connected, in milliseconds. */
export const ICE_LIMIT = 15_000;

export const start: Session = { phase: "asking", rejoins: 0, wasLive: false, failure: null };

/** Reasons that no second attempt cures. */
const isHopeless = (reason: Reason): boolean => isFinal(reason) || reason === "not-accepted" || reason === "insecure";

const pause = (rejoins: number) => Math.min(8_000, 500 * 2 ** rejoins);

export function handle(session: Session, happening: Happening): [Session, Effect] {
  switch (happening.what) {
    case "asked":
      return [{ ...start }, null];
    case "media-ready":
      return session.phase === "asking" || session.phase === "failed" || session.phase === "left"
        ? [{ ...start, phase: "ready" }, null]
        : [session, null];
    case "join":
      if (session.phase === "connecting" || session.phase === "live") return [session, null];
      return [{ phase: "connecting", rejoins: 0, wasLive: false, failure: null }, { do: "connect", after: 0 }];
    case "connected":
      if (session.phase !== "connecting" && session.phase !== "rejoining") return [session, { do: "hang-up" }];
      return [{ phase: "live", rejoins: 0, wasLive: true, failure: null }, null];
    case "lost":
      if (session.phase !== "live") return [session, null];
      return [{ ...session, phase: "rejoining", rejoins: 1 }, { do: "connect", after: pause(0) }];
    case "failed": {
      if (session.phase === "left" || session.phase === "failed") return [session, null];
      const { reason, retryAfter } = happening.failure;
      const again = session.phase === "rejoining" && !isHopeless(reason) && session.rejoins < MAX_REJOINS;
      if (again) {
        // Our own earlier session may still hold the seat for a moment: wait as long as the box asks, within reason.
        const after = retryAfter === null ? pause(session.rejoins) : Math.min(10_000, retryAfter * 1_000);
        return [{ ...session, rejoins: session.rejoins + 1 }, { do: "connect", after }];
      }
      const shown = session.phase === "rejoining" && reason === "unreachable" ? failure("lost") : happening.failure;
      return [{ ...session, phase: "failed", failure: shown }, { do: "hang-up" }];
    }
    case "left":
      return [{ ...start, phase: "left" }, { do: "hang-up" }];
  }
}
