import assert from "node:assert/strict";
import { test } from "node:test";
import { activeAfter, choicesPath, further, meant, refusal, toldOf } from "../fleet/pick.js";
import type { Card, Page } from "../fleet/contract.js";

const page = (ids: string[], next: string | null = null): Page<Card> => ({
  items: ids.map((id) => ({ id, name: `Box ${id}`, online: true })),
  has_more: next !== null,
  next_cursor: next,
});

test("pages of a search follow each other, each box once, and another search begins anew", () => {
  const first = further(null, "box", page(["a", "b"], "more"));
  const next = further(first, "box", page(["b", "c"]));
  assert.deepEqual([next.items.map((one) => one.id), next.cursor], [["a", "b", "c"], null]);
  assert.deepEqual(further(next, "c", page(["c"])).items.length, 1);
  assert.equal(choicesPath(" oslo & co ", "x y"), "/devices?limit=20&search=oslo+%26+co&cursor=x+y");
  assert.equal(toldOf(first), "2 boxes, and more further down");
});

test("who types an identifier, or a name that only one box has, has chosen it", () => {
  const found = further(null, "box a", page(["a"]));
  assert.equal(meant("box a", found)?.id, "a");
  assert.equal(meant("a", further(null, "a", page(["b", "a"], "more")))?.id, "a");
  assert.equal(meant("box a", further(null, "box a", page(["a"], "more"))), null, "there may be another of that name");
  assert.equal(meant("box", further(null, "box a", page(["a"]))), null, "the answer is to another question");
  assert.equal(meant("", further(null, "", page(["a"]))), null);
});

test("what is no box is refused in a sentence, and none at all only where one is needed", () => {
  const none = further(null, "nope", page([]));
  assert.equal(refusal("nope", null, none, false), "There is no box “nope”.");
  assert.match(refusal("no", null, none, false), /choose one from the list/);
  assert.deepEqual([refusal(" ", null, null, false), refusal("", null, null, true)], ["", "Choose a box."]);
  assert.equal(refusal("Box a", { id: "a", name: "Box a" }, none, true), "");
});

test("arrow keys walk the list and stay within it", () => {
  assert.deepEqual([activeAfter("ArrowDown", -1, 3), activeAfter("ArrowUp", -1, 3), activeAfter("ArrowDown", 2, 3)], [0, 2, 2]);
  assert.deepEqual([activeAfter("PageDown", 0, 20), activeAfter("a", 0, 3), activeAfter("ArrowDown", -1, 0)], [8, null, null]);
});
