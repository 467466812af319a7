// Rules: everybody reads them; administrators make, change, switch and delete them.

import { useEffect, useRef, useState } from "preact/hooks";
import { DialogButtons } from "../common/dialog_buttons.js";
import { attempt } from "../common/toasts.js";
import { condition, KINDS, one, read, receivers, type Rule, ruleBody, rules, said, UNITS } from "./alert_lists.js";
import { Mark, SeverityField } from "./alert_parts.js";
import { turns } from "./alerts.js";
import { api, change, mayAdminister } from "./session.js";

export function Rules() {
  // What is being made or changed.
  const [edited, edit] = useState<Rule | "new" | null>(null);
  useEffect(() => void attempt("Rules", () => read("/alert-rules", rules)), [turns.value]);
  return (
    <details class="panel" data-testid="rules">
      <summary>Rules</summary>
      <ul class="alert-list">
        {rules.value.map((rule) => (
          <RuleRow key={rule.id} rule={rule} onEdit={() => edit(rule)} />
        ))}
      </ul>
      {mayAdminister.value ? (
        <button onClick={() => edit("new")} data-testid="new-rule">
          New rule
        </button>
      ) : null}
      {edited ? <RuleDialog rule={edited === "new" ? null : edited} onClose={() => edit(null)} /> : null}
    </details>
  );
}

const receiverName = (id: string): string => receivers.value.find((receiver) => receiver.id === id)?.name ?? "a receiver";

function RuleRow({ rule, onEdit }: { rule: Rule; onEdit: () => void }) {
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
          {condition(rule)}
          {rule.receiver_ids ? `; tells ${rule.receiver_ids.map(receiverName).join(", ")}` : ""}
        </p>
      </div>
      <label class="row">
        <input type="checkbox" checked={rule.enabled} disabled={locked} onChange={(event) => void turn(event.currentTarget.checked)} aria-label={`${rule.name} in force`} />
        on
      </label>
      {locked ? null : (
        <div class="row">
          <button class="small" onClick={onEdit} aria-label={`Change rule: ${rule.name}`} data-testid={`edit-rule-${rule.kind}`}>
            Change
          </button>
          <button class="small" onClick={() => void remove()} aria-label={`Delete rule: ${rule.name}`}>
            Delete
          </button>
        </div>
      )}
    </li>
  );
}

function RuleDialog({ rule, onClose }: { rule: Rule | null; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [kind, choose] = useState(rule?.kind ?? "offline");
  const [enabled, turn] = useState(rule?.enabled ?? true);
  const [told, tell] = useState<string[]>(rule?.receiver_ids ?? []);
  useEffect(() => dialog.current?.showModal(), []);
  const measure = UNITS[kind];
  const save = async (event: Event) => {
    event.preventDefault();
    const form = said(event.currentTarget as HTMLFormElement);
    const body = ruleBody({ ...form, kind }, told, enabled, rule);
    const done = await attempt("Rule", async () => {
      await (rule ? change("PATCH", one("/alert-rules", rule.id), body) : api("/alert-rules", { ...body, kind }));
      await read("/alert-rules", rules);
    });
    if (done) dialog.current?.close();
  };
  return (
    <dialog ref={dialog} aria-label={rule ? "Change a rule" : "New rule"} onClose={onClose}>
      <form class="stack" onSubmit={(event) => void save(event)}>
        <h1>{rule ? rule.name : "New rule"}</h1>
        <label class="field">
          When
          <select value={kind} disabled={rule !== null} onChange={(event) => choose(event.currentTarget.value)} data-testid="rule-kind">
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
        <label class="field">
          Only boxes with the tag
          <input name="tag" maxLength={200} placeholder="all boxes" defaultValue={rule?.tag ?? undefined} />
        </label>
        <label class="field">
          Only the box
          <input name="device_id" maxLength={200} placeholder="all boxes" defaultValue={rule?.device_id ?? undefined} data-testid="rule-device" />
        </label>
        <fieldset class="field">
          <legend>Tell only</legend>
          {receivers.value.length === 0 ? <span class="muted">There are no receivers yet.</span> : null}
          {receivers.value.map((receiver) => (
            <label key={receiver.id} class="row">
              <input
                type="checkbox"
                checked={told.includes(receiver.id)}
                onChange={(event) => tell(event.currentTarget.checked ? [...told, receiver.id] : told.filter((id) => id !== receiver.id))}
              />
              {receiver.name}
            </label>
          ))}
          <span class="muted">Without a choice all who are told of its severity.</span>
        </fieldset>
        <label class="row">
          <input type="checkbox" checked={enabled} onChange={(event) => turn(event.currentTarget.checked)} />
          in force
        </label>
        <DialogButtons dialog={dialog} testId="rule-save">
          {rule ? "Change" : "Make rule"}
        </DialogButtons>
      </form>
    </dialog>
  );
}
