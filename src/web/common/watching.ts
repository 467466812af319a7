// Which way a stream is watched: WHEP first, HLS when that does not work, and back by and by. A pure core: the shell feeds it
// what happened and does what it answers.

/** A way to watch. */
export type Way = "whep" | "hls";

export interface Watching {
  /** The way whose pictures are shown. */
  on: Way | null;
  /** The way that is being tried; beside HLS that plays it may be WHEP. */
  trying: Way | null;
  /** Failures in a row since anything played. */
  failures: number;
  /** Attempts to come back to WHEP while HLS plays. */
  returns: number;
  /** Why it is not WHEP, or nothing at all. */
  why: string | null;
}

export type Happening =
  | { what: "start" }
  | { what: "up"; way: Way }
  /** It ended, or did not come about; `hopeless` when another way would fail for the same reason. */
  | { what: "down"; way: Way; why: string; hopeless?: boolean; retryAfter?: number | null }
  /** The pause is over. */
  | { what: "again" };

export type Effect = { do: "try"; way: Way } | { do: "stop"; way: Way } | { do: "pause"; after: number };

/** What this browser can do at all. */
export interface Abilities {
  whep: boolean;
  hls: boolean;
}

/** From the box's answer to a connection, in milliseconds; then it is HLS's turn. */
export const ICE_LIMIT = 5_000;

/** After so long HLS lets WHEP have another try beside it; twice as long after each one that failed (milliseconds). */
export const RETURN_AFTER = 60_000;
const RETURN_AFTER_MOST = 15 * 60_000;

export const start: Watching = { on: null, trying: null, failures: 0, returns: 0, why: null };

const pause = (failures: number) => Math.min(20_000, 1_000 * 2 ** Math.min(failures, 5));
const untilReturn = (returns: number) => Math.min(RETURN_AFTER_MOST, RETURN_AFTER * 2 ** Math.min(returns, 10));

export function handle(now: Watching, happening: Happening, can: Abilities): [Watching, Effect[]] {
  switch (happening.what) {
    case "start":
      return first(now, can);
    case "up":
      return up(now, happening.way);
    case "down":
      return down(now, happening, can);
    case "again":
      if (now.trying) return [now, []];
      if (now.on === null) return first(now, can);
      return now.on === "hls" && can.whep ? [{ ...now, trying: "whep" }, [{ do: "try", way: "whep" }]] : [now, []];
  }
}

function first(now: Watching, can: Abilities): [Watching, Effect[]] {
  const way: Way | null = can.whep ? "whep" : can.hls ? "hls" : null;
  if (!way) return [{ ...now, why: "This browser can play neither WebRTC nor HLS" }, []];
  return [{ ...now, trying: way }, [{ do: "try", way }]];
}

function up(now: Watching, way: Way): [Watching, Effect[]] {
  if (now.trying !== way) return [now, now.on === way ? [] : [{ do: "stop", way }]];
  const effects: Effect[] = now.on && now.on !== way ? [{ do: "stop", way: now.on }] : [];
  const why = way === "whep" ? null : now.why;
  if (way === "hls") effects.push({ do: "pause", after: untilReturn(now.returns) });
  return [{ ...now, on: way, trying: null, failures: 0, returns: way === "whep" ? 0 : now.returns, why }, effects];
}

function down(
  now: Watching,
  { way, why, hopeless, retryAfter }: Extract<Happening, { what: "down" }>,
  can: Abilities,
): [Watching, Effect[]] {
  const wait = (failures: number) => (typeof retryAfter === "number" ? retryAfter * 1_000 : pause(failures));
  if (now.on === "hls" && way === "whep") {
    if (now.trying !== "whep") return [now, []];
    const returns = now.returns + 1;
    return [{ ...now, trying: null, returns, why }, [{ do: "pause", after: untilReturn(returns) }]];
  }
  if (way !== now.on && way !== now.trying) return [now, []];
  const failures = now.failures + 1;
  // An attempt that is under way beside what just ended goes on alone.
  if (now.on === way && now.trying && now.trying !== way) return [{ ...now, on: null, failures, why }, []];
  if (way === "whep" && can.hls && !hopeless) {
    return [{ ...now, on: null, trying: "hls", failures, why }, [{ do: "try", way: "hls" }]];
  }
  return [{ ...now, on: null, trying: null, failures, why }, [{ do: "pause", after: wait(failures) }]];
}
