import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff } from "../common/backoff.js";
import { ago, diskPercent, duration, expiry, figure, meterRatio, percent, rmsDb, sentence } from "../common/format.js";
import { degradationWords, fleetWords, isLive, signalReason, signalWords, turnRoadWords } from "../common/words.js";

test("a duration names its two largest units", () => {
  assert.equal(duration(48), "48 s");
  assert.equal(duration(185), "3 min 5 s");
  assert.equal(duration(4_320), "1 h 12 min");
  assert.equal(duration(273_600), "3 d 4 h");
  assert.equal(duration(undefined), "–");
  assert.equal(duration(-3), "0 s");
});

test("last seen is relative and never in the future", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  assert.equal(ago("2026-01-01T12:00:03Z", now), "just now");
  assert.equal(ago("2026-01-01T11:59:18Z", now), "42 s ago");
  assert.equal(ago("2026-01-01T09:00:00Z", now), "3 h ago");
  assert.equal(ago("2025-12-30T12:00:00Z", now), "2 d ago");
  assert.equal(ago(null, now), "never");
  assert.equal(ago("nonsense", now), "never");
});

test("an expiry says in how long, or that it is over", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  assert.equal(expiry("2026-01-01T16:12:00Z", now), "expires in 4 h 12 min");
  assert.equal(expiry("2026-01-01T11:00:00Z", now), "expired");
  assert.equal(expiry(null, now), "does not expire");
});

test("figures that are not there show as a dash", () => {
  assert.equal(percent(41.6), "42 %");
  assert.equal(percent(null), "–");
  assert.equal(figure(29.97, 1, "fps"), "30.0 fps");
  assert.equal(figure(Number.NaN), "–");
  assert.equal(diskPercent(30, 120), 75);
  assert.equal(diskPercent(30, 0), null);
  assert.equal(diskPercent(undefined, 120), null);
});

test("a meter runs from minus sixty to zero", () => {
  assert.equal(meterRatio(0), 1);
  assert.equal(meterRatio(-30), 0.5);
  assert.equal(meterRatio(-90), 0);
  assert.equal(meterRatio(null), 0);
  assert.equal(meterRatio(-Infinity), 0);
});

test("a full scale square wave is at zero and silence is without level", () => {
  assert.equal(rmsDb([1, -1, 1, -1]), 0);
  assert.equal(rmsDb([0, 0]), -Infinity);
  assert.ok(Math.abs(rmsDb([0.5, -0.5]) + 6.02) < 0.01);
});

test("machine words become sentences", () => {
  assert.equal(sentence("no_cable"), "No cable");
  assert.equal(sentence("OutOfRange"), "Out of range");
  assert.equal(sentence(null), "");
});

test("a signal state is understood however it is spelled", () => {
  for (const spelling of ["NoCable", "no_cable", "no-cable", "nocable"]) {
    assert.deepEqual(signalWords(spelling), { words: "No cable", mood: "bad" });
  }
  assert.ok(isLive("Live"));
  assert.ok(!isLive("frozen"));
  assert.equal(signalWords("something_new").words, "Something new");
});

test("a reason that only repeats the state is not shown twice", () => {
  assert.equal(signalReason("no_cable", "no cable"), "");
  assert.equal(signalReason("failed", "device busy"), "Device busy");
  assert.equal(signalReason("failed", null), "");
});

test("every degradation level and link state has words", () => {
  for (const level of [0, 1, 2, 3, 9]) assert.ok(degradationWords(level).words);
  for (const state of ["off", "connecting", "online", "backoff", "other"]) assert.ok(fleetWords(state).words);
});

test("backoff grows to its cap, is spread over the whole range, and is never zero", () => {
  assert.equal(backoff(0, 0), 50);
  assert.equal(backoff(0, 0.999), 500);
  assert.ok(backoff(3, 0.999) <= 4_000 && backoff(3, 0.999) > 3_900);
  assert.ok(backoff(40, 0.999) <= 15_000);
});

test("a road to a TURN server says why it is not UDP", () => {
  const road = (road: string, udp: string, udp_rtt_ms?: number) => turnRoadWords({ server: "t.example", road, udp, udp_rtt_ms });
  assert.equal(road("udp", "answers", 12), "by UDP, 12 ms");
  assert.equal(road("tls", "silent"), "by TLS, because UDP does not answer");
  assert.equal(road("tcp", "not_offered"), "by TCP, because UDP is not offered");
  assert.equal(road("both", "doubtful"), "by UDP and TCP or TLS, because UDP did not answer the last time");
  assert.equal(road("none", "silent"), "no way");
});
