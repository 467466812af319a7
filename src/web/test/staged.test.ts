import assert from "node:assert/strict";
import { test } from "node:test";
import { tagsOf } from "../fleet/filter.js";
import { shares, type Rollout } from "../fleet/staged.js";

const rollout = (devices: number, counts: Partial<Rollout["counts"]>): Rollout => ({
  id: "r",
  version: "1.0.0",
  channel: "stable",
  percent: 100,
  abort_percent: 10,
  at_once: 50,
  state: "running",
  devices,
  counts: { sent: 0, succeeded: 0, failed: 0, unsupported: 0, open: 0, ...counts },
  created_by: "user:a",
  created_at: "2026-01-01T00:00:00Z",
});

test("the bar of a rollout is what came of the boxes that it is for, and never more than all of it", () => {
  assert.deepEqual(shares(rollout(10, { succeeded: 5, failed: 1, unsupported: 1, open: 3 })), { good: 50, bad: 20, open: 30 });
  assert.deepEqual(shares(rollout(0, {})), { good: 0, bad: 0, open: 0 });
  // Boxes that lost their tag meanwhile were sent it all the same.
  assert.equal(shares(rollout(1, { succeeded: 3 })).good, 100);
});

test("tags are what stands between commas, each once", () => {
  assert.deepEqual(tagsOf(" hall, tour ,,hall,two words "), ["hall", "tour", "two words"]);
  assert.deepEqual(tagsOf(""), []);
});
