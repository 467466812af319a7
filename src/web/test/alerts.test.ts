import assert from "node:assert/strict";
import { test } from "node:test";
import { condition, localMoment, type Rule, ruleBody, type Silence, silenceBody, standing } from "../fleet/alert_lists.js";
import { type Alert, inOrder, worst } from "../fleet/alerts.js";

const alert = (id: string, severity: Alert["severity"], state = "firing", silenced_until: string | null = null): Alert => ({
  id,
  severity,
  state,
  silenced_until,
  rule_id: "r",
  rule_name: "R",
  kind: "offline",
  device_id: "d",
  device_name: "D",
  subject: "",
  detail: "",
  since: "",
});

test("the worst comes first, then what nobody took on, then the newest", () => {
  const list = [alert("1", "warning"), alert("2", "critical", "acknowledged"), alert("3", "critical"), alert("4", "critical", "firing", "soon"), alert("5", "warning"), alert("6", "error")];
  assert.deepEqual(inOrder(list).map((one) => one.id), ["3", "4", "2", "6", "5", "1"]);
});

test("the mark is that of the worst that nobody took on, and none when there is none", () => {
  assert.equal(worst({ open: 3, firing: 2, critical: 0, error: 0, warning: 1, info: 1 }), "warning");
  assert.equal(worst({ open: 3, firing: 0, critical: 0, error: 0, warning: 0, info: 0 }), null);
  assert.equal(worst(null), null);
});

const rule = (more: Partial<Rule>): Rule => ({ id: "r", kind: "disk", name: "R", for_seconds: 60, severity: "warning", enabled: true, threshold: 5, clear_threshold: 6, ...more });

test("a rule is said in words", () => {
  assert.equal(condition(rule({ tag: "tour" })), "less than 5 GB free for 60 s, until 6; boxes with the tag tour");
  assert.equal(condition(rule({ kind: "clock", threshold: 30, clear_threshold: null, for_seconds: 0 })), "30 s off or more");
  assert.equal(condition(rule({ kind: "offline", device_id: "box1" })), "a box is offline for 60 s; box1");
});

test("a changed rule says of each field what is wanted, and of one that was emptied that it is none", () => {
  const said = { kind: "disk", name: "R", threshold: "7.5", clear_threshold: "6", for_seconds: "30", severity: "critical", tag: undefined, device_id: "box1" };
  const body = ruleBody(said, ["a"], false, rule({}));
  assert.deepEqual(JSON.parse(JSON.stringify(body)), {
    name: "R",
    threshold: 7.5,
    for_seconds: 30,
    severity: "critical",
    tag: null,
    device_id: "box1",
    receiver_ids: ["a"],
    enabled: false,
  });
  assert.equal(ruleBody({ ...said, clear_threshold: "9" }, [], true, rule({})).clear_threshold, 9);
  const plain = ruleBody({ kind: "offline", name: "R", threshold: "5", for_seconds: "0", severity: "info" }, [], true, null);
  assert.deepEqual([plain.threshold, plain.receiver_ids], [undefined, null]);
});

test("a silence is of a box, a tag, a rule, or on purpose of everything", () => {
  const at = { until: "2026-12-01T18:00", reason: "r" };
  const of = (more: object) => JSON.parse(JSON.stringify(silenceBody({ ...at, ...more })));
  const ends_at = new Date("2026-12-01T18:00").toISOString();
  assert.deepEqual(of({ whom: "device", which: "box1" }), { device_id: "box1", reason: "r", ends_at });
  assert.deepEqual(of({ whom: "tag", which: "tour", rule_id: "x" }), { tag: "tour", rule_id: "x", reason: "r", ends_at });
  assert.deepEqual(of({ whom: "all" }), { all: true, reason: "r", ends_at });
  assert.deepEqual(of({ whom: "all", rule_id: "x", from: at.until }), { rule_id: "x", reason: "r", starts_at: ends_at, ends_at });
  assert.equal(new Date(localMoment(new Date(ends_at))).toISOString(), ends_at);
});

test("silences that are over are not listed, and the next to end comes first", () => {
  const silence = (id: string, ends_at: string): Silence => ({ id, ends_at, starts_at: ends_at, all: false, reason: "", created_by: "", active: true });
  const all = [silence("a", "2026-01-03T00:00:00Z"), silence("b", "2026-01-02T00:00:00Z"), silence("c", "2026-01-01T00:00:00Z")];
  assert.deepEqual(standing(all, Date.parse("2026-01-01T12:00:00Z")).map((one) => one.id), ["b", "a"]);
});
