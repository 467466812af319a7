import assert from "node:assert/strict";
import { test } from "node:test";
import { attempts, DIRECT_LIMIT, SFU_LIMIT, standOf } from "../device/guest/road.js";
import { ICE_LIMIT } from "../device/guest/session.js";

const tried = (...args: Parameters<typeof attempts>) => attempts(...args).map(({ by, relayOnly, limit }) => `${by}${relayOnly ? " by relay" : ""} ${limit}`);

test("by itself a guest comes straight, and by the sfu when that has not come about in five seconds", () => {
  assert.equal(DIRECT_LIMIT, 5_000);
  for (const road of ["auto", undefined, null, "something of a later version"]) {
    assert.deepEqual(tried(road, true), [`box ${DIRECT_LIMIT}`, `sfu ${SFU_LIMIT}`]);
    assert.deepEqual(tried(road, false), [`box ${ICE_LIMIT}`], "without an sfu there is nothing to hurry for");
  }
});

test("an invitation that names its road gets that one and no other", () => {
  for (const sfu of [true, false]) {
    assert.deepEqual(tried("direct", sfu), [`box ${ICE_LIMIT}`]);
    assert.deepEqual(tried("turn", sfu), [`box by relay ${ICE_LIMIT}`]);
  }
  assert.deepEqual(tried("sfu", true), [`sfu ${SFU_LIMIT}`]);
  assert.deepEqual(tried("sfu", false), []);
});

test("whoever comes back begins with the road that worked", () => {
  assert.deepEqual(tried("auto", true, "sfu"), [`sfu ${SFU_LIMIT}`, `box ${ICE_LIMIT}`]);
  assert.deepEqual(tried("auto", true, "box"), [`box ${DIRECT_LIMIT}`, `sfu ${SFU_LIMIT}`]);
  assert.deepEqual(tried("turn", true, "sfu"), [`box by relay ${ICE_LIMIT}`]);
});

test("a guest is in when the box has fetched it, and out when its call is over or somebody else's", () => {
  const call = (state: string, session = "a") => standOf({ state, session }, "a");
  for (const state of ["publishing", "connecting", "pulling", "something new"]) assert.equal(call(state), "on the way");
  assert.equal(call("joined"), "in");
  for (const state of ["closing", "ended"]) assert.equal(call(state), "out");
  assert.equal(call("joined", "b"), "out");
  assert.equal(standOf(null, "a"), "out");
});
