import assert from "node:assert/strict";
import { test } from "node:test";
import { commandMood, elapsed, isTerminal, parseChanges, summary, timeline, took, withCommand } from "../fleet/commands.js";
import type { Card, Command } from "../fleet/contract.js";
import { byName, byServer, expected, inTrouble, matches, serverMatches, totals, totalsOf, troubles } from "../fleet/filter.js";
import { fromQuery, type Wanted } from "../fleet/wanted.js";

const card = (name: string, rest: Partial<Card> = {}): Card => ({ id: name.toLowerCase(), name, online: true, ...rest });
const wanted = (rest: Partial<Wanted> = {}): Wanted => ({ ...fromQuery(""), ...rest });
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
  assert.ok(matches(one, wanted({ search: "bergen demo" })));
  assert.ok(matches(one, wanted({ search: "0.2" })));
  assert.ok(!matches(one, wanted({ search: "bergen oslo" })));
  assert.ok(!matches(one, wanted({ filter: "offline" })));
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

test("why a box needs a look is said in words, and nothing of a box that is away", () => {
  const one = card("a", { errors: ["disk is slow"], temperature_c: 91, disk_free_gb: 3.6, inputs: [{ id: "cam1", label: "CAM 1", signal: "no_cable" }] });
  assert.deepEqual(troubles(one), ["disk is slow", "91 °C", "3 GB free", "CAM 1: no cable"]);
  assert.deepEqual(troubles({ ...one, online: false }), []);
});

test("a tag is wanted as a whole, and a search of the server within one field", () => {
  const one = card("Town hall", { location: "Bergen", tags: ["demo", "west"] });
  assert.ok(matches(one, wanted({ tag: "demo" })) && !matches(one, wanted({ tag: "dem" })));
  assert.ok(serverMatches(one, wanted({ search: "WN HA" })) && !serverMatches(one, wanted({ search: "town bergen" })));
  assert.ok(!serverMatches(one, wanted({ filter: "offline" })));
  assert.ok(!serverMatches({ ...one, status: "decommissioned" }, wanted()));
});

test("a large fleet is counted by the server, and what it did not count is not made up", () => {
  const summary = { total: 100_000, states: { online: 99_000, offline: 900, unknown: 100 }, tags: [{ tag: "west", total: 40, online: 39 }] };
  assert.deepEqual(totalsOf(summary), { all: 100_000, online: 99_000, offline: 1_000, trouble: null });
  assert.equal(expected(wanted(), summary), 100_000);
  assert.equal(expected(wanted({ filter: "offline" }), summary), 1_000);
  assert.equal(expected(wanted({ filter: "offline", tag: "west" }), summary), 1);
  assert.equal(expected(wanted({ search: "hall" }), summary), null);
  assert.equal(expected(wanted({ tag: "east" }), summary), null);
});

test("the server's order is by letters, ours by numbers", () => {
  const boxes = [card("box 10"), card("box 2"), card("box 1")];
  assert.deepEqual([...boxes].sort(byServer).map((one) => one.name), ["box 1", "box 10", "box 2"]);
  assert.deepEqual([...boxes].sort(byName).map((one) => one.name), ["box 1", "box 2", "box 10"]);
});

test("how long a command took is counted from the click, and only when it is over", () => {
  const command = { id: "a", device_id: "d", type: "take", created_at: "2026-01-01T12:00:00Z" };
  assert.equal(took({ ...command, state: "executing" }), null);
  assert.equal(took({ ...command, state: "succeeded", finished_at: "2026-01-01T12:01:00Z" }), 60_000);
  assert.equal(took({ ...command, state: "failed", history: [{ state: "failed", ts: "2026-01-01T12:02:00Z" }] }), 120_000);
  assert.equal(took({ ...command, state: "failed" }), null);
});
