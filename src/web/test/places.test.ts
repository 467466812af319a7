import assert from "node:assert/strict";
import { test } from "node:test";
import { counted, layout, letterOf, sizeFor, step } from "../fleet/cells.js";
import { EVENTS, eventsPath } from "../fleet/wanted.js";
import type { Card } from "../fleet/contract.js";

test("a hundred thousand cells find room on a wall, and one finds room on a phone", () => {
  const wall = layout(100_000, 3_800, 6);
  assert.equal(wall.columns, 542);
  assert.ok(wall.height < 1_400, String(wall.height));
  assert.deepEqual(layout(1, 360, 14), { columns: 24, pitch: 15, height: 15 });
  assert.equal(layout(3, 0, 14).columns, 1);
});

test("cells are as large as a window lets them, and small only where there are many", () => {
  assert.equal(sizeFor(40, 1, 3_840, 2_160), 56);
  assert.equal(sizeFor(100_000, 1, 3_840, 2_160), 6);
  assert.equal(sizeFor(100_000, 1, 390, 844), 6);
  assert.equal(sizeFor(40, 3, 390, 844), 40);
  assert.equal(sizeFor(300, 200, 390, 844), 14, "each of many places has its line anyway");
});

test("a box that was pushed is counted as it is now, not as it was read", () => {
  const groups = [{ name: "Oslo", ids: ["a", "b", "c"], states: "oof" }];
  assert.deepEqual(counted(groups, new Map()), { o: 2, t: 0, f: 1, u: 0 });
  assert.deepEqual(counted(groups, new Map([["b", "t"], ["c", "o"], ["elsewhere", "f"]])), { o: 2, t: 1, f: 0, u: 0 });
});

test("the letter of a box says whether somebody should look", () => {
  const card = (more: Partial<Card>): Card => ({ id: "a", name: "A", online: true, ...more });
  assert.equal(letterOf(card({})), "o");
  assert.equal(letterOf(card({ degradation_level: 2 })), "t");
  assert.equal(letterOf(card({ online: false, presence: "offline" })), "f");
  assert.equal(letterOf(card({ online: false, presence: "unknown" })), "u");
});

test("arrow keys walk the cells as they stand and never leave them", () => {
  assert.equal(step("ArrowRight", null, 10, 25), 0);
  assert.equal(step("ArrowDown", 4, 10, 25), 14);
  assert.equal(step("ArrowDown", 20, 10, 25), 24);
  assert.equal(step("ArrowUp", 4, 10, 25), 0);
  assert.equal(step("End", null, 10, 25), 24);
  assert.equal(step("a", 4, 10, 25), null);
  assert.equal(step("ArrowRight", null, 10, 0), null);
});

test("of a small fleet everything is pushed, of a large one each box on the screen once", () => {
  assert.equal(eventsPath(null), EVENTS);
  assert.equal(eventsPath([]), `${EVENTS}?devices=`);
  assert.equal(eventsPath(null, true), `${EVENTS}?changes=true`);
  assert.equal(eventsPath(["a"], true), `${EVENTS}?devices=a&changes=true`);
  assert.equal(eventsPath(["b", "a", "b"]), `${EVENTS}?devices=a,b`);
  const many = Array.from({ length: 1_000 }, (_, n) => `box-${n}`);
  assert.equal(eventsPath(many).split(",").length, 400);
});
