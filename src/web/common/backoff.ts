// Full-jitter backoff: a room full of pages must not come back in step after an outage.

/** Milliseconds to wait before attempt `attempt` (from 0); `random` is in [0, 1). Never under a tenth of `base`. */
export function backoff(attempt: number, random: number, base = 500, cap = 15_000): number {
  const ceiling = Math.min(cap, base * 2 ** Math.min(attempt, 16));
  return Math.round(Math.max(base / 10, random * ceiling));
}
