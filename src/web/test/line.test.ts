import assert from "node:assert/strict";
import { test } from "node:test";
import { lineOf, roadOf } from "../common/line.js";

const fine = { why: "Pictures arrive and are decoded.", decoded_fps: 29.9 };
const stream = { loss_percent: 0, recovered_percent: 1, jitter_ms: 3.4, bitrate_kbps: 1440 };

test("a guest that is seen is shown by its numbers", () => {
  const report = { ...fine, video: stream, audio: { ...stream, bitrate_kbps: 60 }, round_trip_ms: 41.2 };
  assert.equal(lineOf(report), "30 fps · 1.5 Mbit/s · jitter 3 ms · round trip 41 ms");
  assert.equal(lineOf({ ...fine, video: { ...stream, loss_percent: 2.5, bitrate_kbps: 300 } }), "30 fps · 300 kbit/s · 2.5 % lost · jitter 3 ms");
});

test("a guest that is not seen is shown by the reason", () => {
  assert.equal(lineOf({ why: "The guest is being connected.", decoded_fps: 0 }), "The guest is being connected.");
});

test("the road of a guest is said in words once it is in", () => {
  assert.equal(roadOf({ state: "live", path: "host", road: "direct" }), "same network");
  assert.equal(roadOf({ state: "live", path: "relay", road: "turn" }), "through a TURN relay");
  assert.equal(roadOf({ state: "live", path: "host", road: "sfu" }), "through the SFU");
  assert.equal(roadOf({ state: "live", path: null, road: null }), "");
  assert.equal(roadOf({ state: "joining", path: "host", road: "direct" }), "");
});
