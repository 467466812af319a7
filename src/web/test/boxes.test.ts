import assert from "node:assert/strict";
import { test } from "node:test";
import type { Card } from "../fleet/contract.js";
import { rowAfter, scrollFor, spanOf } from "../fleet/virtual.js";
import { isWithin, onward, START } from "../fleet/walk.js";
import { fromQuery, pagePath, toQuery } from "../fleet/wanted.js";

const card = (name: string): Card => ({ id: name, name, online: true });

test("what is wanted is kept in the address and read from it again", () => {
  for (const query of ["", "?status=offline", "?status=trouble&tag=west+wing&search=town+hall&view=list"]) {
    assert.equal(toQuery(fromQuery(query)), query);
  }
  assert.equal(toQuery(fromQuery("?status=gone&view=map&page=3&search=+&tag=")), "", "what is unknown is passed over");
});

test("a page asks for what the server can sort out, and for everything when all boxes are held", () => {
  const wanted = fromQuery("?status=trouble&tag=a%26b&search=x");
  assert.equal(pagePath(wanted, "next"), "/devices?limit=200&tag=a%26b&search=x&cursor=next");
  assert.equal(pagePath(fromQuery("?status=online"), null), "/devices?limit=200&status=online");
  assert.equal(pagePath(null, null), "/devices?limit=200");
});

test("of any number of rows only those in sight are drawn, and a few beyond", () => {
  assert.deepEqual(spanOf(0, 600, 44, 100_000), { first: 0, end: 22 });
  const { first, end } = spanOf(2_000_000, 600, 44, 100_000);
  assert.ok(first * 44 <= 2_000_000 && end * 44 >= 2_000_600 && end - first < 40);
  assert.deepEqual(spanOf(4_400_000, 600, 44, 100_000).end, 100_000);
  assert.deepEqual(spanOf(0, 600, 44, 3), { first: 0, end: 3 });
  assert.deepEqual(spanOf(9_000, 600, 44, 3), { first: 3, end: 3 }, "the list became shorter than it was scrolled");
  assert.deepEqual(spanOf(0, 600, 0, 3), { first: 0, end: 0 });
});

test("keys walk through the rows and stop at both ends", () => {
  assert.equal(rowAfter("ArrowDown", 0, 10, 100), 1);
  assert.equal(rowAfter("ArrowUp", 0, 10, 100), 0);
  assert.equal(rowAfter("PageDown", 95, 10, 100), 99);
  assert.equal(rowAfter("Home", 50, 10, 100), 0);
  assert.equal(rowAfter("End", 50, 10, 100), 99);
  assert.equal(rowAfter("Enter", 50, 10, 100), null);
  assert.equal(rowAfter("ArrowDown", 0, 10, 0), null);
});

test("a row that is walked to is scrolled into sight and no further", () => {
  assert.equal(scrollFor(0, 500, 600, 44), 0);
  assert.equal(scrollFor(14, 0, 600, 44), 60);
  assert.equal(scrollFor(5, 100, 600, 44), 100);
});

test("a walk goes on until nothing follows, and a box from elsewhere has its place only in what came", () => {
  const first = onward(START, { items: [card("a"), card("m")], has_more: true, next_cursor: "after m" });
  assert.deepEqual([first.cursor, first.done], ["after m", false]);
  assert.ok(isWithin(first, card("b")) && !isWithin(first, card("n")) && !isWithin(START, card("a")));
  const last = onward(first, { items: [], has_more: false });
  assert.ok(last.done && isWithin(last, card("z")));
});
