// Alerts: what is the matter, the worst first; taken on, silenced, and for administrators who is told and by which rules.

import { useEffect } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import { attempt, toast } from "../common/toasts.js";
import { Mark, moment } from "./alert_parts.js";
import { Receivers } from "./alert_receivers.js";
import { Rules } from "./alert_rules.js";
import { Silences } from "./alert_silences.js";
import { type Alert, failed, isMore, loadAlerts, ordered, over, summary, watchAlerts, worst } from "./alerts.js";
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
            <Row key={alert.id} alert={alert} />
          ))}
        </ul>
        {isMore.value ? <p class="muted">Only the newest are shown; `r58 ctl alert list` has all.</p> : null}
      </section>
      <Silences />
      <Past />
      <Rules />
      {mayAdminister.value ? <Receivers /> : null}
    </main>
  );
}

function told(): string {
  if (failed.value !== null) return "";
  if (summary.value === null) return "Loading…";
  const count = summary.value.open;
  return count === 0 ? "Nothing is the matter." : `${count} open, ${summary.value.firing} that nobody took on`;
}

function Row({ alert }: { alert: Alert }) {
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
          {alert.silenced_until ? null : <Silence alert={alert} name={name} />}
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

function Silence({ alert, name }: { alert: Alert; name: string }) {
  const begin = async (fields: FormData) => {
    const whole = fields.get("what") === "device";
    const ends = new Date(Date.now() + Number(fields.get("minutes")) * 60_000).toISOString();
    const body = { device_id: alert.device_id, ...(whole ? {} : { rule_id: alert.rule_id }), reason: String(fields.get("reason")), ends_at: ends };
    await api("/silences", body);
    await loadAlerts();
    toast("Silenced", "good");
  };
  return (
    <FormDialog
      opens="Silence"
      title={`Silence ${alert.device_name}`}
      does="Silence"
      label={`Silence: ${name}`}
      openId={`silence-${alert.device_id}`}
      doId="silence-begin"
      onDo={begin}
    >
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
    </FormDialog>
  );
}
