// The roads a guest's media may take, and in which order they are tried. Pure.

import { ICE_LIMIT } from "./session.js";

/** How an invitation wants it; anything unknown is `auto`. */
export type Road = "auto" | "direct" | "turn" | "sfu";

/** One try. */
export interface Attempt {
  /** To the box itself, or to the SFU that the box fetches from. */
  by: "box" | "sfu";
  /** Through a TURN relay and by no other way. */
  relayOnly: boolean;
  /** From the answer to connected, in milliseconds. */
  limit: number;
}

/** So long a straight connection may take before the SFU is tried: healthy ones take a second or two, by a relay too (milliseconds). */
export const DIRECT_LIMIT = 5_000;
/** The box fetches what the SFU has, which takes a few round trips more; as long as it waits itself (milliseconds). */
export const SFU_LIMIT = 20_000;

const box = (limit: number, relayOnly = false): Attempt => ({ by: "box", relayOnly, limit });
const sfu: Attempt = { by: "sfu", relayOnly: false, limit: SFU_LIMIT };

/**
 * What to try, in this order; nothing when the wanted road does not exist. `worked` is the road of the last time that this guest
 * was in: whoever comes back begins there.
 */
export function attempts(road: string | null | undefined, hasSfu: boolean, worked: Attempt["by"] | null = null): Attempt[] {
  switch (road) {
    case "direct":
      return [box(ICE_LIMIT)];
    case "turn":
      return [box(ICE_LIMIT, true)];
    case "sfu":
      return hasSfu ? [sfu] : [];
    default:
      if (!hasSfu) return [box(ICE_LIMIT)];
      return worked === "sfu" ? [sfu, box(ICE_LIMIT)] : [box(DIRECT_LIMIT), sfu];
  }
}

/** A call by the SFU as the box tells of it. */
export interface Call {
  state: "publishing" | "connecting" | "pulling" | "joined" | "closing" | "ended" | string;
  session?: string;
  reason?: string | null;
}

/** What a call means for its guest: in, not in yet, or out. Another session under the same link is somebody else's. */
export function standOf(call: Call | null, session: string): "in" | "on the way" | "out" {
  if (!call || (call.session !== undefined && call.session !== session)) return "out";
  if (call.state === "closing" || call.state === "ended") return "out";
  return call.state === "joined" ? "in" : "on the way";
}
