// Alerts: what is the matter, the worst first; taken on, silenced, and for administrators who is told and by which rules.

import { useEffect, useRef, useState } from "preact/hooks";
import { attempt, toast } from "../common/toasts.js";
import { DialogButtons } from "../common/dialog_buttons.js";
import { Mark, moment } from "./alert_parts.js";
import { Receivers } from "./alert_receivers.js";
import { Rules } from "./alert_rules.js";
import { Silences } from "./alert_silences.js";
import { type Alert, failed, isMore, loadAlerts, open, ordered, over, summary, watchAlerts, worst } from "./alerts.js";
import { Ago } from "./parts.js";
import { Link } from "./router.js";
import { api, change, mayAdminister, mayOperate } from "./session.js";

/** How many alerts nobody took on, beside the word that leads to them. */
export function AlertCount() {
  const counts = summary.value;
  const bad = worst(counts);
  return bad ? (
    <span class={`mark ${bad}`} data-testid="alert-count">
      {counts?.firing} <span class="unseen">that nobody took on</span>
    </span>
  ) : null;
}

export function Alerts() {
  useEffect(watchAlerts, []);
  const [chosen, choose] = useState<Alert | null>(null);
  return (
    <main class="alerts">
      <section class="panel" aria-label="Open alerts">
        <div class="row">
          <h2>Open</h2>
          <span class="muted" role="status" data-testid="open-alerts">
            {told()}
          </span>
        </div>
        {failed.value ? (
          <p class="error" role="alert">
            Alerts could not be loaded: {failed.value}
          </p>
        ) : null}
        <ul class="alert-list" aria-label="Open alerts">
          {ordered.value.map((alert) => (
            <Row key={alert.id} alert={alert} onSilence={() => choose(alert)} />
          ))}
        </ul>
        {isMore.value ? <p class="muted">Only the newest are shown; `r58 ctl alert list` has all.</p> : null}
      </section>
      <Silences />
      <Past />
      <Rules />
      {mayAdminister.value ? <Receivers /> : null}
      {chosen ? <SilenceDialog alert={chosen} onClose={() => choose(null)} /> : null}
    </main>
  );
}

function told(): string {
  const count = summary.value?.open ?? open.value.length;
  return count === 0 ? "Nothing is the matter." : `${count} open, ${summary.value?.firing ?? 0} that nobody took on`;
}

function Row({ alert, onSilence }: { alert: Alert; onSilence: () => void }) {
  const take = () =>
    attempt("Acknowledge", async () => {
      await api<Alert>(`/alerts/${encodeURIComponent(alert.id)}/acknowledge`, {});
      await loadAlerts();
    });
  const giveBack = () =>
    attempt("Give back", async () => {
      await change<Alert>("DELETE", `/alerts/${encodeURIComponent(alert.id)}/acknowledge`);
      await loadAlerts();
    });
  const name = `${alert.rule_name} on ${alert.device_name}`;
  return (
    <li class={alert.state} data-testid={`alert-${alert.device_id}-${alert.kind}`} data-state={alert.state}>
      <Mark severity={alert.severity} />
      <div class="what">
        <b>{alert.rule_name}</b> <Link to={`/devices/${encodeURIComponent(alert.device_id)}`}>{alert.device_name}</Link>
        <p class="muted">
          {alert.detail}, <Ago at={alert.since} />
          {alert.acknowledged_by ? `; taken on by ${alert.acknowledged_by.replace(/^user:/, "")}` : ""}
          {alert.note ? `: ${alert.note}` : ""}
        </p>
      </div>
      {alert.silenced_until ? <span class="badge idle">silenced until {moment(alert.silenced_until)}</span> : null}
      {alert.state === "acknowledged" ? <span class="badge busy">acknowledged</span> : null}
      {mayOperate.value ? (
        <div class="row">
          {alert.state === "firing" ? (
            <button class="small primary" onClick={() => void take()} aria-label={`Acknowledge: ${name}`} data-testid={`ack-${alert.device_id}`}>
              Acknowledge
            </button>
          ) : null}
          {alert.state === "acknowledged" ? (
            <button class="small" onClick={() => void giveBack()} aria-label={`Give back: ${name}`} data-testid={`unack-${alert.device_id}`}>
              Give back
            </button>
          ) : null}
          {alert.silenced_until ? null : (
            <button class="small" onClick={onSilence} aria-label={`Silence: ${name}`} data-testid={`silence-${alert.device_id}`}>
              Silence
            </button>
          )}
        </div>
      ) : null}
    </li>
  );
}

function Past() {
  if (over.value.length === 0) return null;
  return (
    <details class="panel">
      <summary>Over</summary>
      <ul class="alert-list">
        {over.value.map((alert) => (
          <li key={alert.id} class="resolved">
            <Mark severity={alert.severity} />
            <div class="what">
              <b>{alert.rule_name}</b> <Link to={`/devices/${encodeURIComponent(alert.device_id)}`}>{alert.device_name}</Link>
              <p class="muted">
                {alert.detail}; over <Ago at={alert.resolved_at} />: {alert.resolution}
              </p>
            </div>
          </li>
        ))}
      </ul>
    </details>
  );
}

function SilenceDialog({ alert, onClose }: { alert: Alert; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const begin = async (event: Event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const whole = form.get("what") === "device";
    const ends = new Date(Date.now() + Number(form.get("minutes")) * 60_000).toISOString();
    const body = { device_id: alert.device_id, ...(whole ? {} : { rule_id: alert.rule_id }), reason: String(form.get("reason")), ends_at: ends };
    const done = await attempt("Silence", async () => {
      await api("/silences", body);
      await loadAlerts();
    });
    if (!done) return;
    toast("Silenced", "good");
    dialog.current?.close();
  };
  return (
    <dialog ref={dialog} aria-label="Silence" onClose={onClose}>
      <form class="stack" onSubmit={(event) => void begin(event)}>
        <h1>Silence {alert.device_name}</h1>
        <p class="muted">Alerts show all the same; nobody is told of them.</p>
        <label class="field">
          What
          <select name="what">
            <option value="rule">{alert.rule_name} on this box</option>
            <option value="device">everything on this box</option>
          </select>
        </label>
        <label class="field">
          For
          <select name="minutes">
            <option value="60">one hour</option>
            <option value="480">eight hours</option>
            <option value="1440">one day</option>
            <option value="10080">one week</option>
          </select>
        </label>
        <label class="field">
          Reason
          <input name="reason" required maxLength={200} data-testid="silence-reason" />
        </label>
        <DialogButtons dialog={dialog} testId="silence-begin">
          Silence
        </DialogButtons>
      </form>
    </dialog>
  );
}
