import assert from "node:assert/strict";
import { test } from "node:test";
import { handle, RETURN_AFTER, start, type Abilities, type Effect, type Happening, type Watching } from "../common/watching.js";

const all: Abilities = { whep: true, hls: true };
function run(happenings: Happening[], can = all, from: Watching = start): [Watching, Effect[]] {
  return happenings.reduce<[Watching, Effect[]]>(([now], happening) => handle(now, happening, can), [from, []]);
}
const up = (way: "whep" | "hls"): Happening => ({ what: "up", way });
const down = (way: "whep" | "hls", more: object = {}): Happening => ({ what: "down", way, why: `${way} failed`, ...more });
const begin: Happening = { what: "start" };

test("whep comes first and needs nothing else", () => {
  const [trying, effects] = run([begin]);
  assert.deepEqual([trying.trying, effects], ["whep", [{ do: "try", way: "whep" }]]);
  const [playing, more] = run([begin, up("whep")]);
  assert.deepEqual([playing.on, playing.trying, playing.why, more], ["whep", null, null, []]);
});

test("whep that does not connect, or fails later, is followed by hls at once", () => {
  for (const before of [[begin], [begin, up("whep")]]) {
    const [now, effects] = run([...before, down("whep")]);
    assert.deepEqual([now.on, now.trying, now.why, effects], [null, "hls", "whep failed", [{ do: "try", way: "hls" }]]);
    const [playing] = run([up("hls")], all, now);
    assert.deepEqual([playing.on, playing.why], ["hls", "whep failed"]);
  }
});

test("while hls plays whep is tried beside it, ever more rarely, and takes over when it is up", () => {
  let [now, effects] = run([begin, down("whep"), up("hls")]);
  for (const times of [1, 2, 4, 8, 15, 15]) {
    assert.deepEqual(effects, [{ do: "pause", after: times * RETURN_AFTER }]);
    [now, effects] = handle(now, { what: "again" }, all);
    assert.deepEqual([now.on, effects], ["hls", [{ do: "try", way: "whep" }]]);
    [now, effects] = handle(now, down("whep"), all);
    assert.equal(now.on, "hls");
  }
  [now] = handle(now, { what: "again" }, all);
  [now, effects] = handle(now, up("whep"), all);
  assert.deepEqual([now.on, now.why, effects], ["whep", null, [{ do: "stop", way: "hls" }]]);
});

test("hls that fails too is followed by a pause and whep again", () => {
  const [now, effects] = run([begin, down("whep"), down("hls")]);
  assert.deepEqual([now.on, now.trying, effects], [null, null, [{ do: "pause", after: 4_000 }]]);
  assert.deepEqual(handle(now, { what: "again" }, all)[1], [{ do: "try", way: "whep" }]);
});

test("hls that ends while whep is being tried leaves whep alone with it", () => {
  const [now, effects] = run([begin, down("whep"), up("hls"), { what: "again" }, down("hls")]);
  assert.deepEqual([now.on, now.trying, effects], [null, "whep", []]);
  assert.equal(handle(now, up("whep"), all)[0].on, "whep");
});

test("a token that is refused or a picture that is not there is no reason for another way", () => {
  const [now, effects] = run([begin, down("whep", { hopeless: true, retryAfter: 2 })]);
  assert.deepEqual([now.trying, effects], [null, [{ do: "pause", after: 2_000 }]]);
});

test("a browser does what it can", () => {
  const only = (can: Abilities) => run([begin], can)[1];
  assert.deepEqual(only({ whep: false, hls: true }), [{ do: "try", way: "hls" }]);
  assert.deepEqual(only({ whep: false, hls: false }), []);
  const [now, effects] = run([begin, down("whep")], { whep: true, hls: false });
  assert.deepEqual([now.trying, effects], [null, [{ do: "pause", after: 2_000 }]]);
  assert.deepEqual(run([{ what: "again" }], { whep: false, hls: true }, { ...start, on: "hls" })[1], []);
});

test("what comes too late changes nothing", () => {
  const [now] = run([begin, down("whep"), up("hls")]);
  assert.deepEqual(handle(now, down("whep"), all), [now, []]);
  assert.deepEqual(handle(now, up("whep"), all), [now, [{ do: "stop", way: "whep" }]]);
});
