import assert from "node:assert/strict";
import { test } from "node:test";
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
  const list = [alert("1", "warning"), alert("2", "critical", "acknowledged"), alert("3", "critical"), alert("4", "critical", "firing", "soon"), alert("5", "warning")];
  assert.deepEqual(inOrder(list).map((one) => one.id), ["3", "4", "2", "5", "1"]);
});

test("the mark is that of the worst that nobody took on, and none when there is none", () => {
  assert.equal(worst({ open: 3, firing: 2, critical: 0, warning: 1, info: 1 }), "warning");
  assert.equal(worst({ open: 3, firing: 0, critical: 0, warning: 0, info: 0 }), null);
  assert.equal(worst(null), null);
});
