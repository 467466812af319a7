// Silences that are in force or yet to come: for a while nobody is told. Operators begin them for a box, a tag or all, and end them.

import { useEffect, useRef, useState } from "preact/hooks";
import { DialogButtons } from "../common/dialog_buttons.js";
import { attempt, toast } from "../common/toasts.js";
import { localMoment, one, read, ruleName, rules, said, type Silence, silenceBody, silences, standing } from "./alert_lists.js";
import { moment } from "./alert_parts.js";
import { loadAlerts, turns } from "./alerts.js";
import { api, change, mayOperate } from "./session.js";

export function Silences() {
  const [begins, begin] = useState(false);
  useEffect(() => void attempt("Silences", () => read("/silences", silences)), [turns.value]);
  const shown = standing(silences.value, Date.now());
  if (shown.length === 0 && !mayOperate.value) return null;
  return (
    <section class="panel" aria-label="Silences" data-testid="silences">
      <div class="row">
        <h2>Silences</h2>
        {mayOperate.value ? (
          <button class="small" onClick={() => begin(true)} data-testid="new-silence">
            New silence
          </button>
        ) : null}
      </div>
      {shown.length === 0 ? <p class="muted">None: people are told of everything.</p> : null}
      <ul class="alert-list">
        {shown.map((silence) => (
          <SilenceRow key={silence.id} silence={silence} />
        ))}
      </ul>
      {begins ? <NewSilence onClose={() => begin(false)} /> : null}
    </section>
  );
}

function SilenceRow({ silence }: { silence: Silence }) {
  const end = () =>
    attempt("End", async () => {
      await change("DELETE", one("/silences", silence.id));
      await Promise.all([read("/silences", silences), loadAlerts()]);
    });
  const whom = silence.all ? "everything" : [silence.device_id, silence.tag && `tag ${silence.tag}`, silence.rule_id && ruleName(silence.rule_id)].filter(Boolean).join(", ");
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

function NewSilence({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [whom, choose] = useState("device");
  useEffect(() => dialog.current?.showModal(), []);
  const begin = async (event: Event) => {
    event.preventDefault();
    const body = silenceBody(said(event.currentTarget as HTMLFormElement));
    const done = await attempt("Silence", async () => {
      await api("/silences", body);
      await Promise.all([read("/silences", silences), loadAlerts()]);
    });
    if (!done) return;
    toast("Silenced", "good");
    dialog.current?.close();
  };
  return (
    <dialog ref={dialog} aria-label="New silence" onClose={onClose}>
      <form class="stack" onSubmit={(event) => void begin(event)}>
        <h1>New silence</h1>
        <p class="muted">Alerts show all the same; nobody is told of them.</p>
        <label class="field">
          Of
          <select name="whom" value={whom} onChange={(event) => choose(event.currentTarget.value)} data-testid="silence-whom">
            <option value="device">one box</option>
            <option value="tag">boxes with a tag</option>
            <option value="all">all boxes</option>
          </select>
        </label>
        {whom === "all" ? null : (
          <label class="field">
            {whom === "device" ? "The box's identifier" : "The tag"}
            <input name="which" required maxLength={200} data-testid="silence-which" />
          </label>
        )}
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
        <DialogButtons dialog={dialog} testId="new-silence-begin">
          Silence
        </DialogButtons>
      </form>
    </dialog>
  );
}
