// Log records and bundles as the device page keeps them: bounded, in order, each once.

export type LogLevel = "error" | "warn" | "info" | "debug" | "trace";

export const LEVELS: LogLevel[] = ["error", "warn", "info", "debug", "trace"];

export interface LogRecord {
  /** Its number on the box. */
  seq: number;
  ts: string;
  level: LogLevel;
  target?: string;
  actor?: string;
  message: string;
  fields?: Record<string, unknown>;
}

export interface LogPage {
  items: LogRecord[];
  cursor: number;
  has_more: boolean;
}

export interface Bundle {
  id: string;
  device_id: string;
  state: string;
  progress?: number | null;
  size_bytes?: number | null;
  error?: string | null;
  created_by?: string;
  created_at?: string;
  expires_at?: string;
}

/** What a page can show without becoming slow. */
export const MOST_RECORDS = 1_000;

/** Old and new records in the order of their numbers, each once, the oldest let go. */
export function withRecords(list: LogRecord[], more: LogRecord[]): LogRecord[] {
  const last = list.at(-1)?.seq ?? 0;
  // The usual case: they follow.
  const all = more.every((record, index) => record.seq > (more[index - 1]?.seq ?? last))
    ? [...list, ...more]
    : [...new Map([...list, ...more].map((record) => [record.seq, record])).values()].sort((a, b) => a.seq - b.seq);
  return all.slice(-MOST_RECORDS);
}

/** At least as bad as `level`. */
export const isAtLeast = (record: LogRecord, level: LogLevel): boolean => LEVELS.indexOf(record.level) <= LEVELS.indexOf(level);

export function levelMood(level: string): "bad" | "warn" | "idle" {
  return level === "error" ? "bad" : level === "warn" ? "warn" : "idle";
}

/** The values beside a sentence, in one line. */
export function fieldWords(fields: Record<string, unknown> | undefined): string {
  return Object.entries(fields ?? {})
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}

/** Whether a bundle is still on its way. */
export const isUnderway = (bundle: Bundle): boolean => bundle.state !== "ready" && bundle.state !== "failed";

export function bundleMood(state: string): "good" | "bad" | "busy" {
  return state === "ready" ? "good" : state === "failed" ? "bad" : "busy";
}

export function bytes(size: number | null | undefined): string {
  if (typeof size !== "number") return "";
  return size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(size / 1e3))} kB`;
}
