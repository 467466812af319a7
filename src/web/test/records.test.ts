import assert from "node:assert/strict";
import { test } from "node:test";
import { bundleMood, bytes, fieldWords, isAtLeast, isUnderway, levelMood, type LogLevel, type LogRecord, MOST_RECORDS, withRecords } from "../fleet/records.js";

const record = (seq: number, level: LogLevel = "info"): LogRecord => ({ seq, ts: "2026-11-22T01:02:03.456Z", level, message: `m${seq}` });
const seqs = (list: LogRecord[]) => list.map((one) => one.seq);

test("what came live and is in the page too is kept once, in order", () => {
  assert.deepEqual(seqs(withRecords([record(1), record(2)], [record(3)])), [1, 2, 3]);
  assert.deepEqual(seqs(withRecords([record(5), record(6)], [record(3), record(4), record(5)])), [3, 4, 5, 6]);
  assert.deepEqual(seqs(withRecords([], [])), []);
});

test("a page keeps the newest of many", () => {
  const many = Array.from({ length: MOST_RECORDS + 50 }, (_, index) => record(index + 1));
  const kept = withRecords([], many);
  assert.equal(kept.length, MOST_RECORDS);
  assert.equal(kept[0]?.seq, 51);
});

test("a level shows what is at least as bad", () => {
  assert.ok(isAtLeast(record(1, "error"), "warn"));
  assert.ok(isAtLeast(record(1, "warn"), "warn"));
  assert.ok(!isAtLeast(record(1, "debug"), "info"));
  assert.equal(levelMood("error"), "bad");
  assert.equal(levelMood("info"), "idle");
});

test("values and sizes are told in short", () => {
  assert.equal(fieldWords({ input: "cam1", tries: 3, on: true }), "input=cam1 tries=3 on=true");
  assert.equal(fieldWords(undefined), "");
  assert.deepEqual([bytes(1), bytes(41_200), bytes(5_250_000), bytes(null)], ["1 kB", "41 kB", "5.3 MB", ""]);
});

test("a bundle is on its way until it is there or has failed", () => {
  for (const state of ["requested", "making", "uploading"]) assert.ok(isUnderway({ id: "a", device_id: "d", state }), state);
  for (const state of ["ready", "failed"]) assert.ok(!isUnderway({ id: "a", device_id: "d", state }), state);
  assert.equal(bundleMood("ready"), "good");
});
