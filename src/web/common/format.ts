// Figures and times as people read them. Pure.

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

/** "3 d 4 h", "4 h 12 min", "12 min", "48 s"; an en dash when unknown. */
export function duration(seconds: number | null | undefined): string {
  if (!isNumber(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86_400);
  const hours = Math.floor((whole % 86_400) / 3_600);
  const minutes = Math.floor((whole % 3_600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${whole} s`;
}

/** "just now", "42 s ago", "3 min ago", "5 h ago", "2 d ago"; a small clock difference does not say "in the future". */
export function ago(then: string | number | null | undefined, now: number): string {
  if (then === null || then === undefined || then === "") return "never";
  const at = typeof then === "number" ? then : Date.parse(then);
  if (Number.isNaN(at)) return "never";
  const seconds = Math.floor((now - at) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** "expires in 4 h 12 min", "expired", "does not expire". */
export function expiry(then: string | number | null | undefined, now: number): string {
  if (then === null || then === undefined || then === "") return "does not expire";
  const at = typeof then === "number" ? then : Date.parse(then);
  if (Number.isNaN(at)) return "does not expire";
  return at <= now ? "expired" : `expires in ${duration((at - now) / 1000)}`;
}

/** "14:03:22" in local time; the date too when it is another day. */
export function clock(then: string | null | undefined, now: number): string {
  const at = then ? new Date(then) : null;
  if (!at || Number.isNaN(at.getTime())) return "–";
  const two = (value: number) => String(value).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const sameDay = at.toDateString() === new Date(now).toDateString();
  return sameDay ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** "42 %". */
export function percent(value: number | null | undefined): string {
  return isNumber(value) ? `${Math.round(value)} %` : "–";
}

/** A figure with so many decimals, or an en dash. */
export function figure(value: number | null | undefined, decimals = 0, unit = ""): string {
  if (!isNumber(value)) return "–";
  return `${value.toFixed(decimals)}${unit ? ` ${unit}` : ""}`;
}

/** Share of the disk in use, 0 to 100; null when unknown. */
export function diskPercent(free: number | null | undefined, total: number | null | undefined): number | null {
  if (!isNumber(free) || !isNumber(total) || total <= 0) return null;
  return Math.min(100, Math.max(0, (1 - free / total) * 100));
}

/** Position of a level on a meter that begins at -60 dBFS: 0 to 1. Silence and unknown are 0. */
export function meterRatio(db: number | null | undefined): number {
  if (!isNumber(db)) return 0;
  return Math.min(1, Math.max(0, (db + 60) / 60));
}

/** Level in dBFS of samples in -1..1. */
export function rmsDb(samples: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < samples.length; i++) {
    const sample = samples[i] ?? 0;
    sum += sample * sample;
  }
  const rms = Math.sqrt(sum / Math.max(1, samples.length));
  return rms > 0 ? 20 * Math.log10(rms) : -Infinity;
}

/** "cam1 is frozen" style words from machine words: "no_cable" to "No cable". */
export function sentence(word: string | null | undefined): string {
  if (!word) return "";
  const spaced = word
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replace(/[_-]+/g, " ")
    .toLowerCase();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
