// Figures of a box over time as lines to draw: gaps stay gaps, and what lies between two points of a line is shown by its band of
// smallest and largest. Pure.

export interface Metric {
  min: number;
  max: number;
  avg: number;
  latest: number;
}

export interface Point {
  /** Beginning of its bucket. */
  ts: string;
  metrics: Record<string, Metric>;
}

export interface Series {
  bucket_seconds: number;
  points: Point[];
}

export interface Span {
  words: string;
  hours: number;
  /** As the server names it; each span has 60 to 360 of them. */
  bucket: string;
  seconds: number;
}

export const SPANS: readonly Span[] = [
  { words: "1 h", hours: 1, bucket: "minute", seconds: 60 },
  { words: "6 h", hours: 6, bucket: "minute", seconds: 60 },
  { words: "24 h", hours: 24, bucket: "five_minutes", seconds: 300 },
  { words: "7 d", hours: 168, bucket: "hour", seconds: 3_600 },
  { words: "30 d", hours: 720, bucket: "six_hours", seconds: 21_600 },
];

/** Ends at the end of the bucket that `now` is in (milliseconds), so that the newest value is in it. */
export function rangeOf(span: Span, now: number): { from: number; to: number } {
  const bucket = span.seconds * 1000;
  const to = Math.ceil((now + 1) / bucket) * bucket;
  return { from: to - span.hours * 3_600_000, to };
}

/** One metric at one time. */
export interface Value extends Metric {
  at: number;
}

export function valuesOf(series: Series, name: string): Value[] {
  return series.points.flatMap((point) => {
    const metric = point.metrics[name];
    const at = Date.parse(point.ts);
    return metric && Number.isFinite(at) ? [{ ...metric, at }] : [];
  });
}

/** Values that follow each other without a bucket missing between them. */
export function runs(values: readonly Value[], seconds: number): Value[][] {
  const all: Value[][] = [];
  for (const value of values) {
    const run = all.at(-1);
    const last = run?.at(-1);
    if (run && last && value.at - last.at <= seconds * 1_500) run.push(value);
    else all.push([value]);
  }
  return all;
}

/** Lower and upper end of the scale: the given one, widened by what lies outside it; else round the values with some room. */
export function scaleOf(values: readonly Value[], fixed: readonly [number, number] | null): [number, number] {
  const low = Math.min(...values.map((value) => value.min));
  const high = Math.max(...values.map((value) => value.max));
  if (values.length === 0) return fixed ? [...fixed] : [0, 1];
  if (fixed) return [Math.min(fixed[0], low), Math.max(fixed[1], high)];
  const room = Math.max((high - low) * 0.15, Math.abs(high) * 0.02, 0.5);
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

export interface Drawing {
  /** Path of the means. */
  line: string;
  /** Path round smallest and largest. */
  band: string;
}

/** Paths in a field of 1000 to 100, the upper left corner being 0,0. A run of one point is a short stroke. */
export function draw(values: readonly Value[], range: { from: number; to: number }, scale: readonly [number, number], seconds: number): Drawing {
  const [low, high] = scale;
  const x = (at: number) => (((at - range.from) / (range.to - range.from)) * 1000).toFixed(1);
  const y = (value: number) => (100 - ((value - low) / (high - low || 1)) * 100).toFixed(1);
  const half = seconds * 500;
  const parts = runs(values, seconds).map((run) => {
    const only = run.length === 1 ? run[0] : undefined;
    const at = only ? [{ ...only, at: only.at }, { ...only, at: only.at + 2 * half }] : run.map((value) => ({ ...value, at: value.at + half }));
    const upper = at.map((value) => `${x(value.at)},${y(value.max)}`);
    const lower = at.map((value) => `${x(value.at)},${y(value.min)}`).reverse();
    return { line: `M${at.map((value) => `${x(value.at)},${y(value.avg)}`).join("L")}`, band: `M${[...upper, ...lower].join("L")}Z` };
  });
  return { line: parts.map((part) => part.line).join(""), band: parts.map((part) => part.band).join("") };
}

/** The value in whose bucket a time lies. */
export const valueAt = (values: readonly Value[], at: number, seconds: number): Value | null =>
  values.find((value) => at >= value.at && at < value.at + seconds * 1000) ?? null;

/** Smallest, largest, mean and latest of all. */
export function summaryOf(values: readonly Value[]): Metric | null {
  const last = values.at(-1);
  if (!last) return null;
  return {
    min: Math.min(...values.map((value) => value.min)),
    max: Math.max(...values.map((value) => value.max)),
    avg: values.reduce((sum, value) => sum + value.avg, 0) / values.length,
    latest: last.latest,
  };
}

/** Times to write below a chart: whole hours or midnights of here, three to seven of them, each as its share of the width. */
export function ticks(range: { from: number; to: number }, hours: number): { share: number; words: string }[] {
  const step = [[1, 0.25], [6, 1], [24, 4], [168, 24], [Infinity, 120]].find(([most]) => hours <= (most ?? 0))?.[1] ?? 24;
  const first = new Date(range.from);
  first.setMinutes(0, 0, 0);
  if (step >= 1) first.setHours(step >= 24 ? 0 : first.getHours() - (first.getHours() % step));
  const found = [];
  const two = (value: number) => String(value).padStart(2, "0");
  for (let at = first.getTime(); at < range.to; at += step * 3_600_000) {
    if (at <= range.from) continue;
    const day = new Date(at);
    const words = step >= 24 ? `${day.getDate()}.${day.getMonth() + 1}.` : `${two(day.getHours())}:${two(day.getMinutes())}`;
    found.push({ share: (at - range.from) / (range.to - range.from), words });
  }
  return found;
}
