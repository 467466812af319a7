// Machine words of the box in the words of a crew. Pure.

import type { TurnRoad } from "./contract.js";
import { sentence } from "./format.js";

export type Mood = "good" | "warn" | "bad" | "busy" | "idle";

const signals: Record<string, [string, Mood]> = {
  starting: ["Starting", "busy"],
  live: ["Live", "good"],
  nocable: ["No cable", "bad"],
  nosync: ["Cable in, no sync", "bad"],
  nosignal: ["No signal", "bad"],
  outofrange: ["Format not supported", "bad"],
  frozen: ["Picture does not move", "warn"],
  stalled: ["No frames arriving", "warn"],
  failed: ["Failed", "bad"],
  free: ["Seat free", "idle"],
  joining: ["Guest is joining", "busy"],
  waiting: ["In the waiting room", "busy"],
  silent: ["No picture from the guest", "warn"],
};

/** What a signal state means, whether it is written NoCable, no_cable or no-cable. */
export function signalWords(signal: string | null | undefined): { words: string; mood: Mood } {
  const known = signals[(signal ?? "").toLowerCase().replace(/[^a-z]/g, "")];
  if (known) return { words: known[0], mood: known[1] };
  return { words: sentence(signal) || "Unknown", mood: "warn" };
}

export const isLive = (signal: string | null | undefined): boolean => (signal ?? "").toLowerCase() === "live";

/** Is there a picture worth showing? A frozen one still is: a slide does not move either. A guest who waits is seen by the crew. */
export const hasPicture = (signal: string | null | undefined): boolean => isLive(signal) || ["frozen", "waiting"].includes((signal ?? "").toLowerCase());

/** What is shown over an input without a picture: the state, then why, unless the reason only repeats it. */
export function signalReason(signal: string, reason: string | null | undefined): string {
  const { words } = signalWords(signal);
  const why = (reason ?? "").trim();
  if (!why || why.toLowerCase() === words.toLowerCase() || why.toLowerCase() === sentence(signal).toLowerCase()) return "";
  return why.charAt(0).toUpperCase() + why.slice(1);
}

export function actorMood(state: string): Mood {
  switch (state) {
    case "running":
      return "good";
    case "starting":
      return "busy";
    case "backoff":
      return "warn";
    case "degraded":
      return "bad";
    case "stopped":
      return "idle";
    default:
      return "warn";
  }
}

export function fleetWords(state: string): { words: string; mood: Mood } {
  switch (state) {
    case "off":
      return { words: "not enrolled", mood: "idle" };
    case "connecting":
      return { words: "connecting", mood: "busy" };
    case "online":
      return { words: "online", mood: "good" };
    case "backoff":
      return { words: "unreachable, retrying", mood: "warn" };
    default:
      return { words: sentence(state), mood: "warn" };
  }
}

/** Who lets guests in through firewalls. Only STUN is not enough for the strict ones. */
export function turnWords(provider: string | null | undefined, stale = false): { words: string; mood: Mood } {
  switch ((provider ?? "").toLowerCase()) {
    case "":
    case "none":
      return { words: "none", mood: "warn" };
    case "stun":
      return { words: "STUN only", mood: "warn" };
    default:
      return { words: sentence(provider) + (stale ? " (stale)" : ""), mood: stale ? "warn" : "good" };
  }
}

/** By which road the box reaches a TURN server. */
export function turnRoadWords(road: TurnRoad): string {
  switch (road.road) {
    case "udp":
      return typeof road.udp_rtt_ms === "number" ? `by UDP, ${road.udp_rtt_ms} ms` : `by UDP, which ${udpWords(road.udp)}`;
    case "tcp":
    case "tls":
      return `by ${road.road.toUpperCase()}, because UDP ${udpWords(road.udp)}`;
    case "both":
      return `by UDP and TCP or TLS, because UDP ${udpWords(road.udp)}`;
    default:
      return "no way";
  }
}

function udpWords(udp: string): string {
  switch (udp) {
    case "silent":
      return "does not answer";
    case "doubtful":
      return "did not answer the last time";
    case "not_offered":
      return "is not offered";
    case "unknown":
      return "has not been tried yet";
    default:
      return "answers";
  }
}

const levels = ["normal", "previews slowed", "input previews off", "programme preset lowered"];

/** What the governor is doing at a degradation level (0 to 3). */
export function degradationWords(level: number): { words: string; mood: Mood } {
  const words = levels[level] ?? `level ${level}`;
  return { words, mood: level <= 0 ? "good" : level === 1 ? "warn" : "bad" };
}
