// Silences in force, rules and receivers: everybody sees the first two, administrators change rules and receivers.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { attempt, toast } from "../common/toasts.js";
import { Mark, moment } from "./alert_parts.js";
import { loadAlerts, SEVERITIES, type Severity, turns } from "./alerts.js";
import type { Page } from "./contract.js";
import { api, change, mayAdminister, mayOperate } from "./session.js";

interface Silence {
  id: string;
  rule_id?: string | null;
  device_id?: string | null;
  tag?: string | null;
  reason: string;
  created_by: string;
  ends_at: string;
  active: boolean;
}

interface Rule {
  id: string;
  kind: string;
  name: string;
  threshold?: number | null;
  for_seconds: number;
  severity: Severity;
  tag?: string | null;
  enabled: boolean;
}

interface Receiver {
  id: string;
  name: string;
  kind: string;
  url?: string | null;
  addresses?: string[] | null;
  min_severity: Severity;
  enabled: boolean;
}

const silences = signal<Silence[]>([]);
const rules = signal<Rule[]>([]);
const receivers = signal<Receiver[]>([]);

const one = (place: string, id: string): string => `${place}/${encodeURIComponent(id)}`;

async function read<T>(place: string, into: { value: T[] }): Promise<void> {
  into.value = (await api<Page<T>>(`${place}?page_size=200`)).items;
}

/** What a threshold of a kind is measured in; kinds that are not here have none. */
const UNITS: Record<string, string> = { disk: "GB free", temperature: "°C", restarts: "within an hour", clock: "s off" };

const KINDS: Record<string, string> = {
  offline: "a box is offline",
  disk: "little space on its disk",
  temperature: "it is hot",
  input_lost: "an input is lost",
  guest_failing: "a guest has no picture",
  restarts: "it restarts again and again",
  clock: "its clock is wrong",
};

export function Silences() {
  useEffect(() => void attempt("Silences", () => read("/silences", silences)), [turns.value]);
  const active = silences.value.filter((silence) => silence.active);
  if (active.length === 0) return null;
  const end = (silence: Silence) =>
    attempt("End", async () => {
      await change("DELETE", one("/silences", silence.id));
      await Promise.all([read("/silences", silences), loadAlerts()]);
    });
  return (
    <section class="panel" aria-label="Silences" data-testid="silences">
      <h2>Silences</h2>
      <ul class="alert-list">
        {active.map((silence) => (
          <li key={silence.id}>
            <div class="what">
              <b>{silence.reason}</b>
              <p class="muted">
                {[silence.device_id, silence.tag && `tag ${silence.tag}`, silence.rule_id && ruleName(silence.rule_id)].filter(Boolean).join(", ")}; by{" "}
                {silence.created_by.replace(/^user:/, "")} until {moment(silence.ends_at)}
              </p>
            </div>
            {mayOperate.value ? (
              <button class="small" onClick={() => void end(silence)} aria-label={`End silence: ${silence.reason}`} data-testid="end-silence">
                End now
              </button>
            ) : null}
          </li>
        ))}
      </ul>
    </section>
  );
}

const ruleName = (id: string): string => rules.value.find((rule) => rule.id === id)?.name ?? "a rule";

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
      {mayAdminister.value ? <NewRule /> : null}
    </details>
  );
}

function RuleRow({ rule }: { rule: Rule }) {
  const edit = (body: Partial<Rule>) =>
    attempt("Change", async () => {
      await change("PATCH", one("/alert-rules", rule.id), body);
      await read("/alert-rules", rules);
    });
  const remove = () =>
    confirm(`Delete the rule "${rule.name}"? Its alerts end.`) &&
    attempt("Delete", async () => {
      await change("DELETE", one("/alert-rules", rule.id));
      await read("/alert-rules", rules);
    });
  const unit = UNITS[rule.kind];
  const locked = !mayAdminister.value;
  return (
    <li class={rule.enabled ? "" : "off"} data-testid={`rule-${rule.kind}`}>
      <Mark severity={rule.severity} />
      <div class="what">
        <b>{rule.name}</b>
        <p class="muted">
          {KINDS[rule.kind] ?? rule.kind}
          {rule.tag ? `, boxes with the tag ${rule.tag}` : ""}
        </p>
      </div>
      {unit ? (
        <Value label={`Threshold of ${rule.name}, ${unit}`} unit={unit} value={rule.threshold ?? 0} step="any" locked={locked} onValue={(threshold) => edit({ threshold })} />
      ) : null}
      <Value label={`Seconds for ${rule.name}`} unit="s" value={rule.for_seconds} step="1" locked={locked} onValue={(for_seconds) => edit({ for_seconds })} />
      <label class="row">
        <input type="checkbox" checked={rule.enabled} disabled={locked} onChange={(event) => void edit({ enabled: event.currentTarget.checked })} aria-label={`${rule.name} in force`} />
        on
      </label>
      {locked ? null : (
        <button class="small" onClick={() => void remove()} aria-label={`Delete rule: ${rule.name}`}>
          Delete
        </button>
      )}
    </li>
  );
}

function Value(props: { label: string; unit: string; value: number; step: string; locked: boolean; onValue: (value: number) => Promise<boolean> }) {
  const changed = async (event: Event) => {
    const field = event.currentTarget as HTMLInputElement;
    if (field.value === "" || !(await props.onValue(Number(field.value)))) field.value = String(props.value);
  };
  return (
    <label class="row value">
      <input type="number" step={props.step} min="0" value={props.value} readOnly={props.locked} aria-label={props.label} onChange={(event) => void changed(event)} />
      <span class="muted">{props.unit}</span>
    </label>
  );
}

function text(form: FormData, name: string): string | undefined {
  return String(form.get(name) ?? "").trim() || undefined;
}

function NewRule() {
  const make = async (event: Event) => {
    event.preventDefault();
    const shape = event.currentTarget as HTMLFormElement;
    const form = new FormData(shape);
    const threshold = text(form, "threshold");
    const body = {
      kind: text(form, "kind"),
      name: text(form, "name"),
      severity: text(form, "severity"),
      tag: text(form, "tag"),
      for_seconds: Number(form.get("for_seconds")),
      threshold: threshold === undefined ? undefined : Number(threshold),
    };
    const done = await attempt("New rule", async () => {
      await api("/alert-rules", body);
      await read("/alert-rules", rules);
    });
    if (done) shape.reset();
  };
  return (
    <form class="new-one" onSubmit={(event) => void make(event)} aria-label="New rule">
      <label class="field">
        When
        <select name="kind">
          {Object.entries(KINDS).map(([kind, words]) => (
            <option key={kind} value={kind}>
              {words}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        Name
        <input name="name" required maxLength={200} />
      </label>
      <label class="field">
        Threshold
        <input name="threshold" type="number" step="any" min="0" placeholder="where there is one" />
      </label>
      <label class="field">
        For seconds
        <input name="for_seconds" type="number" min="0" max="86400" value="60" required />
      </label>
      <SeverityField name="severity" label="Severity" />
      <label class="field">
        Only with the tag
        <input name="tag" maxLength={200} placeholder="all boxes" />
      </label>
      <button class="primary" type="submit" data-testid="make-rule">
        Make rule
      </button>
    </form>
  );
}

function SeverityField({ name, label }: { name: string; label: string }) {
  return (
    <label class="field">
      {label}
      <select name={name}>
        {SEVERITIES.map((severity) => (
          <option key={severity} value={severity} selected={severity === "warning"}>
            {severity}
          </option>
        ))}
      </select>
    </label>
  );
}

export function Receivers() {
  useEffect(() => void attempt("Receivers", () => read("/alert-receivers", receivers)), []);
  return (
    <details class="panel" data-testid="receivers">
      <summary>Who is told</summary>
      {receivers.value.length === 0 ? <p class="muted">Nobody yet.</p> : null}
      <ul class="alert-list">
        {receivers.value.map((receiver) => (
          <ReceiverRow key={receiver.id} receiver={receiver} />
        ))}
      </ul>
      <NewReceiver />
    </details>
  );
}

interface Delivery {
  id: string;
  state: string;
  error?: string | null;
}

function ReceiverRow({ receiver }: { receiver: Receiver }) {
  const place = one("/alert-receivers", receiver.id);
  const act = (what: string, run: () => Promise<unknown>) =>
    attempt(what, async () => {
      await run();
      await read("/alert-receivers", receivers);
    });
  const last = () =>
    attempt("Deliveries", async () => {
      const [newest] = (await api<Page<Delivery>>(`${place}/deliveries?page_size=1`)).items;
      toast(newest ? `${receiver.name}: ${newest.state}${newest.error ? `, ${newest.error}` : ""}` : `${receiver.name}: nothing was sent yet`);
    });
  const test = () => act("Test", () => change("POST", `${place}/test`)).then((sent) => sent && toast("A test message is on its way", "good"));
  return (
    <li class={receiver.enabled ? "" : "off"} data-testid={`receiver-${receiver.name}`}>
      <Mark severity={receiver.min_severity} />
      <div class="what">
        <b>{receiver.name}</b>
        <p class="muted cut-off">{receiver.url ?? receiver.addresses?.join(", ")}</p>
      </div>
      <label class="row">
        <input type="checkbox" checked={receiver.enabled} aria-label={`${receiver.name} in use`} onChange={(event) => void act("Change", () => change("PATCH", place, { enabled: event.currentTarget.checked }))} />
        on
      </label>
      <div class="row">
        <button class="small" onClick={() => void test()} aria-label={`Test ${receiver.name}`}>
          Test
        </button>
        <button class="small" onClick={() => void last()} aria-label={`Last message to ${receiver.name}`}>
          Last message
        </button>
        <button class="small" onClick={() => confirm(`Delete "${receiver.name}"?`) && void act("Delete", () => change("DELETE", place))} aria-label={`Delete ${receiver.name}`}>
          Delete
        </button>
      </div>
    </li>
  );
}

function NewReceiver() {
  const make = async (event: Event) => {
    event.preventDefault();
    const shape = event.currentTarget as HTMLFormElement;
    const form = new FormData(shape);
    const to = text(form, "to") ?? "";
    const mail = to.includes("@") && !/^https?:/i.test(to);
    const where = mail ? { addresses: to.split(/[\s,;]+/).filter(Boolean) } : { url: to, secret: text(form, "secret") };
    const done = await attempt("New receiver", async () => {
      await api("/alert-receivers", { name: text(form, "name"), min_severity: text(form, "min_severity"), ...where });
      await read("/alert-receivers", receivers);
    });
    if (done) shape.reset();
  };
  return (
    <form class="new-one" onSubmit={(event) => void make(event)} aria-label="New receiver">
      <label class="field">
        Name
        <input name="name" required maxLength={200} />
      </label>
      <label class="field">
        Webhook or mail addresses
        <input name="to" required maxLength={2000} placeholder="https://… or crew@example.org" />
      </label>
      <label class="field">
        Secret of a webhook
        <input name="secret" type="password" minLength={16} maxLength={200} autocomplete="new-password" placeholder="to sign messages with" />
      </label>
      <SeverityField name="min_severity" label="From" />
      <button class="primary" type="submit" data-testid="make-receiver">
        Add
      </button>
    </form>
  );
}
