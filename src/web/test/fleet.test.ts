import assert from "node:assert/strict";
import { test } from "node:test";
import { commandMood, elapsed, isTerminal, parseChanges, summary, timeline, withCommand } from "../fleet/commands.js";
import type { Card, Command } from "../fleet/contract.js";
import { byName, inTrouble, matches, totals } from "../fleet/filter.js";

const card = (name: string, rest: Partial<Card> = {}): Card => ({ id: name.toLowerCase(), name, online: true, ...rest });
const command = (id: string, state: string): Command => ({ id, device_id: "d", type: "take", state });

test("every terminal state of device and server is known as terminal", () => {
  for (const state of ["succeeded", "failed", "rejected", "timed_out", "cancelled", "interrupted", "expired", "superseded"]) {
    assert.ok(isTerminal(state), state);
    assert.notEqual(commandMood(state), "busy", state);
  }
  for (const state of ["draft", "published", "received", "accepted", "queued", "executing", "rebooting", "verifying"]) {
    assert.ok(!isTerminal(state), state);
  }
});

test("a new command goes on top and a known one stays in its place", () => {
  const list = [command("a", "executing"), command("b", "published")];
  assert.deepEqual(withCommand(list, command("c", "published")).map((one) => one.id), ["c", "a", "b"]);
  const moved = withCommand(list, command("b", "received"));
  assert.deepEqual(moved.map((one) => one.id), ["a", "b"]);
  assert.equal(moved[1]?.state, "received");
});

test("a push that was overtaken does not reopen a command", () => {
  const list = withCommand([command("a", "succeeded")], command("a", "executing"));
  assert.equal(list[0]?.state, "succeeded");
});

test("a timeline counts from its first step and never backwards", () => {
  const steps = timeline([
    { state: "published", ts: "2026-01-01T12:00:00.000Z" },
    { state: "received", ts: "2026-01-01T11:59:59.500Z" },
    { state: "succeeded", ts: "2026-01-01T12:00:00.420Z" },
  ]);
  assert.deepEqual(steps.map((step) => step.after), [0, 0, 420]);
  assert.equal(elapsed(420), "+0.42 s");
  assert.equal(elapsed(0), "");
  assert.equal(elapsed(180_000), "+3 min");
  assert.deepEqual(timeline(undefined), []);
});

test("arguments are told in one line", () => {
  assert.equal(summary({ scene: "quad", kind: "mix", duration_ms: 500 }), "quad, mix, 500");
  assert.equal(summary(null), "");
});

test("changes must be an object that changes something", () => {
  assert.deepEqual(parseChanges('{"a":{"b":1}}'), { changes: { a: { b: 1 } } });
  for (const text of ["", "{", "[]", "3", "{}"]) assert.ok("error" in parseChanges(text), text);
});

test("a search needs all of its words, in any field", () => {
  const one = card("Town hall", { location: "Bergen", tags: ["demo"], version: "0.2.0" });
  assert.ok(matches(one, "all", "bergen demo"));
  assert.ok(matches(one, "all", "0.2"));
  assert.ok(!matches(one, "all", "bergen oslo"));
  assert.ok(!matches(one, "offline", ""));
});

test("a box needs a look when it is degraded, full, hot or without a picture", () => {
  assert.ok(!inTrouble(card("a", { inputs: [{ id: "cam1", kind: "camera", signal: "live" }] })));
  assert.ok(inTrouble(card("a", { inputs: [{ id: "cam1", kind: "camera", signal: "no_cable" }] })));
  assert.ok(!inTrouble(card("a", { inputs: [{ id: "cam1", kind: "camera", signal: "frozen" }] })));
  assert.ok(inTrouble(card("a", { errors: ["disk is slow"] })));
  assert.ok(!inTrouble(card("a", { inputs: [{ id: "guest1", kind: "guest", signal: "no_signal" }] })));
  assert.ok(inTrouble(card("a", { degradation_level: 1 })));
  assert.ok(inTrouble(card("a", { disk_free_gb: 4 })));
  assert.ok(inTrouble(card("a", { temperature_c: 90 })));
  assert.ok(!inTrouble(card("a", { online: false, degradation_level: 3 })));
});

test("totals count each side once", () => {
  const sum = totals([card("a"), card("b", { online: false }), card("c", { degradation_level: 2 })]);
  assert.deepEqual(sum, { all: 3, online: 2, offline: 1, trouble: 1 });
});

test("box two stands before box ten", () => {
  assert.deepEqual([card("Box 10"), card("box 2")].sort(byName).map((one) => one.name), ["box 2", "Box 10"]);
});
