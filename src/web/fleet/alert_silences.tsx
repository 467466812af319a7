// Silences that are in force or yet to come: for a while nobody is told. Operators begin them for a box, a tag or all, and end them.

import { useEffect, useState } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import { attempt, toast } from "../common/toasts.js";
import { localMoment, one, read, ruleName, rules, said, type Silence, silenceBody, silences, standing } from "./alert_lists.js";
import { boxName, moment, TagField } from "./alert_parts.js";
import { loadAlerts, turns } from "./alerts.js";
import { DevicePicker } from "./device_picker.js";
import { api, change, mayOperate } from "./session.js";

export function Silences() {
  useEffect(() => void attempt("Silences", () => read("/silences", silences)), [turns.value]);
  const shown = standing(silences.value, Date.now());
  if (shown.length === 0 && !mayOperate.value) return null;
  return (
    <section class="panel" aria-label="Silences" data-testid="silences">
      <div class="row">
        <h2>Silences</h2>
        {mayOperate.value ? <NewSilence /> : null}
      </div>
      {shown.length === 0 ? <p class="muted">None: people are told of everything.</p> : null}
      <ul class="alert-list">
        {shown.map((silence) => (
          <SilenceRow key={silence.id} silence={silence} />
        ))}
      </ul>
    </section>
  );
}

function SilenceRow({ silence }: { silence: Silence }) {
  const end = () =>
    attempt("End", async () => {
      await change("DELETE", one("/silences", silence.id));
      await Promise.all([read("/silences", silences), loadAlerts()]);
    });
  const whom = silence.all ? "everything" : [silence.device_id && boxName(silence.device_id), silence.tag && `tag ${silence.tag}`, silence.rule_id && ruleName(silence.rule_id)].filter(Boolean).join(", ");
  return (
    <li class={silence.active ? "" : "off"} data-testid="silence">
      <div class="what">
        <b>{silence.reason}</b>
        <p class="muted">
          {whom}; by {silence.created_by.replace(/^user:/, "")}
          {silence.active ? "" : ` from ${moment(silence.starts_at)}`} until {moment(silence.ends_at)}
        </p>
      </div>
      {silence.active ? null : <span class="badge idle">to come</span>}
      {mayOperate.value ? (
        <button class="small" onClick={() => void end()} aria-label={`End silence: ${silence.reason}`} data-testid="end-silence">
          {silence.active ? "End now" : "Take back"}
        </button>
      ) : null}
    </li>
  );
}

function NewSilence() {
  const begin = async (fields: FormData) => {
    await api("/silences", silenceBody(said(fields)));
    await Promise.all([read("/silences", silences), loadAlerts()]);
    toast("Silenced", "good");
  };
  return (
    <FormDialog opens="New silence" title="New silence" does="Silence" openId="new-silence" doId="new-silence-begin" onDo={begin}>
      <SilenceFields />
    </FormDialog>
  );
}

function SilenceFields() {
  const [whom, choose] = useState("device");
  return (
    <>
      <p class="muted">Alerts show all the same; nobody is told of them.</p>
      <label class="field">
        Of
        <select name="whom" value={whom} onChange={(event) => choose(event.currentTarget.value)} data-testid="silence-whom">
          <option value="device">one box</option>
          <option value="tag">boxes with a tag</option>
          <option value="all">all boxes</option>
        </select>
      </label>
      {whom === "device" ? <DevicePicker name="which" label="The box" required testId="silence-which" /> : null}
      {whom === "tag" ? <TagField name="which" label="The tag" required /> : null}
      <label class="field">
        Alerts
        <select name="rule_id">
          <option value="">of every rule</option>
          {rules.value.map((rule) => (
            <option key={rule.id} value={rule.id}>
              {rule.name}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        From
        <input name="from" type="datetime-local" />
        <span class="muted">now, if empty</span>
      </label>
      <label class="field">
        Until
        <input name="until" type="datetime-local" required defaultValue={localMoment(new Date(Date.now() + 3_600_000))} />
      </label>
      <label class="field">
        Reason
        <input name="reason" required maxLength={200} data-testid="new-silence-reason" />
      </label>
    </>
  );
}
