import assert from "node:assert/strict";
import { test } from "node:test";
import { draw, rangeOf, runs, scaleOf, SPANS, summaryOf, ticks, valueAt, valuesOf, type Series } from "../fleet/series.js";

const BEGIN = Date.parse("2026-01-01T12:00:00Z");
const at = (minute: number) => new Date(BEGIN + minute * 60_000).toISOString();
const metric = (avg: number, spread = 0) => ({ min: avg - spread, max: avg + spread, avg, latest: avg });
const series: Series = {
  bucket_seconds: 60,
  points: [
    { ts: at(0), metrics: { cpu: metric(10, 5) } },
    { ts: at(1), metrics: { cpu: metric(30) } },
    { ts: at(2), metrics: { temperature: metric(50) } },
    { ts: at(3), metrics: { cpu: metric(20) } },
  ],
};
const values = valuesOf(series, "cpu");
const range = { from: BEGIN, to: BEGIN + 10 * 60_000 };

test("a bucket without a value is a gap, not a line across it", () => {
  assert.deepEqual(runs(values, 60).map((run) => run.length), [2, 1]);
  const { line, band } = draw(values, range, [0, 100], 60);
  assert.equal(line, "M50.0,90.0L150.0,70.0M300.0,80.0L400.0,80.0", "means in the middle of their buckets, one alone as a stroke");
  assert.ok(band.startsWith("M50.0,85.0L150.0,70.0L150.0,70.0L50.0,95.0Z"), band);
  assert.deepEqual(draw([], range, [0, 1], 60), { line: "", band: "" });
});

test("a scale holds what was measured, even beyond its own ends", () => {
  assert.deepEqual(scaleOf(values, [0, 100]), [0, 100]);
  assert.deepEqual(scaleOf(values, [12, 25]), [5, 30]);
  const [low, high] = scaleOf(values, null);
  assert.ok(low >= 0 && low < 5 && high > 30);
  const [flat, above] = scaleOf([{ ...metric(7), at: 0 }], null);
  assert.ok(flat < 7 && above > 7, "a figure that never moves is in the middle");
  assert.deepEqual(scaleOf([], null), [0, 1]);
});

test("a time is found in its bucket, and nothing in a gap", () => {
  assert.equal(valueAt(values, BEGIN + 90_000, 60)?.avg, 30);
  assert.equal(valueAt(values, BEGIN + 130_000, 60), null);
  assert.deepEqual(summaryOf(values), { min: 5, max: 30, avg: 20, latest: 20 });
  assert.equal(summaryOf([]), null);
});

test("every span ends with the bucket of now and has as many points as a server gives and an eye sees", () => {
  for (const span of SPANS) {
    const { from, to } = rangeOf(span, BEGIN + 1);
    assert.ok(to > BEGIN + 1 && to - BEGIN <= span.seconds * 1000 && to % (span.seconds * 1000) === 0, span.words);
    const points = (to - from) / (span.seconds * 1000);
    assert.ok(points >= 60 && points <= 360, `${span.words}: ${points}`);
    const marks = ticks({ from, to }, span.hours);
    assert.ok(marks.length >= 3 && marks.length <= 8, `${span.words}: ${marks.map((mark) => mark.words).join()}`);
    assert.ok(marks.every(({ share }) => share > 0 && share < 1));
  }
});
