import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, anew, auditQuery, onward, withNewest, type Changes } from "../fleet/changes.js";

const page = (from: number, to: number, next?: string): Changes => ({
  items: Array.from({ length: from - to + 1 }, (_, n) => ({ seq: from - n, at: "", actor: "server", action: "user.create", target: "u", hash: "" })),
  has_more: next !== undefined,
  next_cursor: next,
});

test("what came meanwhile goes on top of a list that was walked down, each change once", () => {
  const held = onward(anew(null, page(10, 6, "a")), page(5, 1));
  const next = withNewest(held, page(12, 8, "b"));
  assert.deepEqual(next.items.map((change) => change.seq), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  assert.equal(next.cursor, null);
});

test("where more came than a page holds the list begins anew, so that nothing is missing in it", () => {
  const next = withNewest(anew(null, page(10, 1)), page(30, 21, "c"));
  assert.deepEqual([next.items.length, next.items[0]?.seq, next.cursor], [10, 30, "c"]);
  assert.equal(withNewest(null, page(2, 1)).items.length, 2);
});

test("a day of the filter is the whole of that day where somebody sits", () => {
  const query = new URLSearchParams(auditQuery({ ...ALL, until: "2026-03-01", actor: " ada " }, null));
  assert.equal(query.get("until"), new Date(2026, 2, 2).toISOString());
  assert.equal(query.get("actor"), "ada");
});
