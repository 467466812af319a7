// Rules: everybody reads them; administrators make, change, switch and delete them.

import { useEffect, useState } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import { attempt } from "../common/toasts.js";
import { condition, KINDS, one, read, receivers, type Rule, ruleBody, rules, said, UNITS } from "./alert_lists.js";
import { boxName, Mark, SeverityField, TagField } from "./alert_parts.js";
import { turns } from "./alerts.js";
import { DevicePicker } from "./device_picker.js";
import { api, change, mayAdminister } from "./session.js";

export function Rules() {
  useEffect(() => void attempt("Rules", () => read("/alert-rules", rules)), [turns.value]);
  return (
    <details class="panel" data-testid="rules">
      <summary>Rules</summary>
      <ul class="alert-list">
        {rules.value.map((rule) => (
          <RuleRow key={rule.id} rule={rule} />
        ))}
      </ul>
      {mayAdminister.value ? <RuleDialog rule={null} /> : null}
    </details>
  );
}

const receiverName = (id: string): string => receivers.value.find((receiver) => receiver.id === id)?.name ?? "a receiver";

function RuleRow({ rule }: { rule: Rule }) {
  const turn = (enabled: boolean) =>
    attempt("Change", async () => {
      await change("PATCH", one("/alert-rules", rule.id), { enabled });
      await read("/alert-rules", rules);
    });
  const remove = () =>
    confirm(`Delete the rule "${rule.name}"? Its alerts end.`) &&
    attempt("Delete", async () => {
      await change("DELETE", one("/alert-rules", rule.id));
      await read("/alert-rules", rules);
    });
  const locked = !mayAdminister.value;
  return (
    <li class={rule.enabled ? "" : "off"} data-testid={`rule-${rule.kind}`}>
      <Mark severity={rule.severity} />
      <div class="what">
        <b>{rule.name}</b>
        <p class="muted">
          {condition(rule, boxName)}
          {rule.receiver_ids ? `; tells ${rule.receiver_ids.map(receiverName).join(", ")}` : ""}
        </p>
      </div>
      <label class="row">
        <input type="checkbox" checked={rule.enabled} disabled={locked} onChange={(event) => void turn(event.currentTarget.checked)} aria-label={`${rule.name} in force`} />
        on
      </label>
      {locked ? null : (
        <div class="row">
          <RuleDialog rule={rule} />
          <button class="small" onClick={() => void remove()} aria-label={`Delete rule: ${rule.name}`}>
            Delete
          </button>
        </div>
      )}
    </li>
  );
}

function RuleDialog({ rule }: { rule: Rule | null }) {
  const save = async (fields: FormData) => {
    const form = said(fields);
    const kind = rule?.kind ?? String(form.kind);
    const body = ruleBody({ ...form, kind }, fields.getAll("receiver").map(String), fields.has("enabled"), rule);
    await (rule ? change("PATCH", one("/alert-rules", rule.id), body) : api("/alert-rules", { ...body, kind }));
    await read("/alert-rules", rules);
  };
  const words = rule
    ? { opens: "Change", title: `Change the rule ${rule.name}`, does: "Change", openId: `edit-rule-${rule.kind}`, label: `Change rule: ${rule.name}` }
    : { opens: "New rule", title: "New rule", does: "Make rule", openId: "new-rule" };
  return (
    <FormDialog {...words} doId="rule-save" onDo={save}>
      <RuleFields rule={rule} />
    </FormDialog>
  );
}

function RuleFields({ rule }: { rule: Rule | null }) {
  const [kind, choose] = useState(rule?.kind ?? "offline");
  const measure = UNITS[kind];
  return (
    <>
      <label class="field">
        When
        <select name="kind" value={kind} disabled={rule !== null} onChange={(event) => choose(event.currentTarget.value)} data-testid="rule-kind">
          {Object.entries(KINDS).map(([word, words]) => (
            <option key={word} value={word}>
              {words}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        Name
        <input name="name" required maxLength={200} defaultValue={rule?.name} data-testid="rule-name" />
      </label>
      {measure ? (
        <div class="row">
          <label class="field">
            {measure.below ? "Less than" : "From"} ({measure.unit})
            <input name="threshold" type="number" step="any" min="0" required defaultValue={rule?.threshold ?? undefined} data-testid="rule-threshold" />
          </label>
          <label class="field">
            Over at
            <input name="clear_threshold" type="number" step="any" min="0" defaultValue={rule?.clear_threshold ?? undefined} placeholder="a little away" />
          </label>
        </div>
      ) : null}
      <label class="field">
        For seconds, and to be gone for as long
        <input name="for_seconds" type="number" min="0" max="86400" required defaultValue={rule?.for_seconds ?? 60} data-testid="rule-seconds" />
      </label>
      <SeverityField name="severity" label="Severity" value={rule?.severity} />
      <TagField name="tag" label="Only boxes with the tag" value={rule?.tag} placeholder="all boxes" />
      <DevicePicker name="device_id" label="Only the box" value={rule?.device_id} placeholder="all boxes" testId="rule-device" />
      <fieldset class="field">
        <legend>Tell only</legend>
        {receivers.value.length === 0 ? <span class="muted">There are no receivers yet.</span> : null}
        {receivers.value.map((receiver) => (
          <label key={receiver.id} class="row">
            <input type="checkbox" name="receiver" value={receiver.id} defaultChecked={rule?.receiver_ids?.includes(receiver.id)} />
            {receiver.name}
          </label>
        ))}
        <span class="muted">Without a choice all who are told of its severity.</span>
      </fieldset>
      <label class="row">
        <input type="checkbox" name="enabled" defaultChecked={rule?.enabled ?? true} />
        in force
      </label>
    </>
  );
}
