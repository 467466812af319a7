import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder } from "../common/actors.js";
import { rejectedEncoders, type Scene, type Slot } from "../common/contract.js";
import { cropOf, digitOf, fullSceneOf, sceneForDigit, stacked } from "../common/scenes.js";
import { actionFor } from "../device/switcher/keys.js";

const slot = (source: string, rest: Partial<Slot> = {}): Slot => ({ source, x_rel: 0, y_rel: 0, w_rel: 1, h_rel: 1, ...rest });
const scenes: Scene[] = [
  { id: "pip", label: "Picture in picture", slots: [slot("cam1"), slot("cam2", { x_rel: 0.7, w_rel: 0.25, h_rel: 0.25, z: 1 })] },
  { id: "half", label: "Half", slots: [slot("cam1", { w_rel: 0.5 })] },
  { id: "full-cam1", label: "CAM 1", slots: [slot("cam1")] },
];

test("the full scene of an input shows it alone and whole", () => {
  assert.equal(fullSceneOf("cam1", scenes)?.id, "full-cam1");
  assert.equal(fullSceneOf("cam2", scenes), undefined);
});

test("digits mean the scenes in the order of their buttons", () => {
  assert.equal(sceneForDigit("2", scenes)?.id, "half");
  assert.equal(sceneForDigit("9", scenes), undefined);
  assert.equal(sceneForDigit("0", scenes), undefined);
  assert.equal(digitOf(scenes[2], scenes), "3");
  assert.equal(digitOf(undefined, scenes), "");
});

test("slots are stacked by z and then by their place in the list", () => {
  const order = stacked([slot("c", { z: 2 }), slot("a"), slot("b")]).map((one) => one.source);
  assert.deepEqual(order, ["a", "b", "c"]);
});

test("a crop leaves a picture even when it asks for all of it", () => {
  assert.deepEqual(cropOf(slot("a")), { left: 0, top: 0, width: 1, height: 1 });
  assert.deepEqual(cropOf(slot("a", { crop_left: 0.25, crop_right: 0.25 })), { left: 0.25, top: 0, width: 0.5, height: 1 });
  assert.ok(cropOf(slot("a", { crop_top: 1, crop_bottom: 1 })).height > 0);
});

test("digits preview, space cuts and enter mixes", () => {
  assert.deepEqual(actionFor({ key: "4" }, "BODY", false), { do: "preview", digit: "4" });
  assert.deepEqual(actionFor({ key: " " }, "BODY", false), { do: "cut" });
  assert.deepEqual(actionFor({ key: "Enter" }, "BODY", false), { do: "mix" });
});

test("a held space cuts once", () => {
  assert.equal(actionFor({ key: " ", repeat: true }, "BODY", false), null);
});

test("keyboards whose digits need shift preview by the place of the key", () => {
  assert.deepEqual(actionFor({ key: "&", code: "Digit1" }, "BODY", false), { do: "preview", digit: "1" });
});

test("what is typed into a field stays there", () => {
  assert.equal(actionFor({ key: "1" }, "INPUT", true), null);
  assert.equal(actionFor({ key: " " }, "TEXTAREA", true), null);
});

test("a button reached by tab is pressed by space, a button that was clicked is not", () => {
  assert.equal(actionFor({ key: " " }, "BUTTON", true), null);
  assert.deepEqual(actionFor({ key: " " }, "BUTTON", false), { do: "cut" });
});

test("the browser's own shortcuts stay the browser's", () => {
  assert.equal(actionFor({ key: "1", ctrlKey: true }, "BODY", false), null);
  assert.equal(actionFor({ key: "Enter", altKey: true }, "BODY", false), null);
});

test("rejected encoders are read as pairs and as objects", () => {
  assert.deepEqual(rejectedEncoders([["a", "no"], { name: "b", why: "slow" }, 3]), [
    { name: "a", why: "no" },
    { name: "b", why: "slow" },
  ]);
  assert.deepEqual(rejectedEncoders(undefined), []);
});

test("actors that need eyes come first", () => {
  const names = inOrder([
    { name: "cam10", state: "running", restarts: 0 },
    { name: "cam2", state: "running", restarts: 0 },
    { name: "mixer", state: "running", restarts: 0, essential: true },
    { name: "link", state: "degraded", restarts: 5 },
  ]).map((actor) => actor.name);
  assert.deepEqual(names, ["link", "mixer", "cam2", "cam10"]);
});
