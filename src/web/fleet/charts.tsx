// Figures of the open box over hours to weeks: the mean as a line, smallest and largest as a band, one time under the pointer in all
// charts. They move with the heartbeats.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { clock, figure } from "../common/format.js";
import { wordsFor } from "../common/problem.js";
import type { Detail } from "./contract.js";
import { useStir } from "./read.js";
import { draw, rangeOf, scaleOf, SPANS, summaryOf, ticks, valueAt, valuesOf, type Series, type Span } from "./series.js";
import { api } from "./session.js";
import { now } from "./store.js";

interface Kind {
  name: string;
  words: string;
  unit: string;
  decimals: number;
  scale: readonly [number, number] | null;
}

const KINDS: readonly Kind[] = [
  { name: "cpu_percent", words: "CPU", unit: "%", decimals: 0, scale: [0, 100] },
  { name: "mem_percent", words: "Memory", unit: "%", decimals: 0, scale: [0, 100] },
  { name: "temperature_c", words: "Temperature", unit: "°C", decimals: 0, scale: [20, 90] },
  { name: "disk_free_gb", words: "Disk free", unit: "GB", decimals: 1, scale: null },
  { name: "load_avg", words: "Load", unit: "", decimals: 1, scale: null },
];

/** Milliseconds for which heartbeats are gathered before the figures are read again. */
const GATHER = 5_000;

const span = signal<Span>(SPANS[2]!);
const shown = signal<{ series: Series; range: { from: number; to: number }; span: Span } | null>(null);
const failed = signal<string | null>(null);
/** The time under the pointer, as a share of the width. */
const pointed = signal<number | null>(null);

export function Charts({ box, id }: { box: Detail; id: string }) {
  const chosen = span.value;
  const asked = useRef(0);
  const read = () => {
    const mine = ++asked.current;
    const range = rangeOf(chosen, Date.now());
    const [from, to] = [range.from, range.to].map((at) => new Date(at).toISOString());
    api<Series>(`/devices/${encodeURIComponent(id)}/metrics?from=${from}&to=${to}&bucket=${chosen.bucket}`).then(
      (series) => {
        if (mine !== asked.current) return;
        shown.value = { series, range, span: chosen };
        failed.value = null;
      },
      (error: unknown) => mine === asked.current && (failed.value = wordsFor(error)),
    );
  };
  useEffect(() => {
    read();
    return () => void (asked.current += 1);
  }, [id, chosen]);
  // The first heartbeat is shown at once, those that follow together.
  useStir({ seen: box.last_seen ?? "", gather: shown.value?.series.points.length ? GATHER : 0 }, read);
  useEffect(
    () => () => {
      shown.value = null;
      failed.value = null;
    },
    [id],
  );
  const drawn = shown.value;
  const found = drawn ? KINDS.map((kind) => ({ kind, values: valuesOf(drawn.series, kind.name) })).filter(({ values }) => values.length > 0) : [];
  return (
    <section class="panel" aria-label="Figures over time">
      <header class="row spread">
        <h2>Over time</h2>
        <div class="views" role="group" aria-label="Span">
          {SPANS.map((one) => (
            <button key={one.words} class="small" aria-pressed={one === chosen} onClick={() => (span.value = one)} data-testid={`span-${one.hours}`}>
              {one.words}
            </button>
          ))}
        </div>
      </header>
      {failed.value ? <p class="muted">The figures are not available: {failed.value}</p> : null}
      {drawn && found.length === 0 ? <p class="muted">Nothing was measured in the last {drawn.span.words}.</p> : null}
      <div class="charts" onPointerLeave={() => (pointed.value = null)}>
        {drawn ? found.map(({ kind, values }) => <Chart key={kind.name} kind={kind} values={values} drawn={drawn} />) : null}
      </div>
    </section>
  );
}

function Chart({ kind, values, drawn }: { kind: Kind; values: ReturnType<typeof valuesOf>; drawn: NonNullable<typeof shown.value> }) {
  const { range, series } = drawn;
  const seconds = series.bucket_seconds;
  const scale = scaleOf(values, kind.scale);
  const { line, band } = draw(values, range, scale, seconds);
  const sum = summaryOf(values);
  const text = (value: number) => figure(value, kind.decimals, kind.unit);
  const at = pointed.value === null ? null : range.from + pointed.value * (range.to - range.from);
  const value = at === null ? null : valueAt(values, at, seconds);
  const told = sum ? `${kind.words}, last ${drawn.span.words}: ${text(sum.min)} to ${text(sum.max)}, mean ${text(sum.avg)}, latest ${text(sum.latest)}` : kind.words;
  return (
    <figure class="chart" data-testid={`chart-${kind.name}`}>
      <figcaption>
        <b>{kind.words}</b>
        <span class="muted">
          {at === null
            ? sum
              ? `${text(sum.latest)} now, ${text(sum.min)} to ${text(sum.max)}`
              : ""
            : `${clock(new Date(at).toISOString(), now.peek())}: ${value ? `${text(value.avg)}${value.min === value.max ? "" : ` (${text(value.min)} to ${text(value.max)})`}` : "not measured"}`}
        </span>
      </figcaption>
      <div
        class="plot"
        role="img"
        aria-label={told}
        onPointerMove={(event) => {
          const field = event.currentTarget.getBoundingClientRect();
          pointed.value = Math.min(0.9999, Math.max(0, (event.clientX - field.left) / field.width));
        }}
      >
        <svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">
          <path class="grid" d="M0,0H1000M0,50H1000M0,100H1000" />
          <path class="band" d={band} />
          <path class="mean" d={line} />
          {pointed.value === null ? null : <path class="cursor" d={`M${(pointed.value * 1000).toFixed(1)},0V100`} />}
        </svg>
        <span class="high faint">{text(scale[1])}</span>
        <span class="low faint">{text(scale[0])}</span>
      </div>
      <div class="times faint" aria-hidden="true">
        {ticks(range, drawn.span.hours).map((tick) => (
          <span key={tick.share} style={{ left: `${tick.share * 100}%` }}>
            {tick.words}
          </span>
        ))}
      </div>
    </figure>
  );
}
