// Who is told: webhooks and mail addresses, made, tried and switched by administrators.

import { useEffect } from "preact/hooks";
import { attempt, toast } from "../common/toasts.js";
import { one, read, type Receiver, receivers, said } from "./alert_lists.js";
import { Mark, SeverityField } from "./alert_parts.js";
import { receiversMoved } from "./alerts.js";
import type { Page } from "./contract.js";
import { api, change } from "./session.js";
import { useChanges } from "./store.js";

export function Receivers() {
  useChanges();
  useEffect(() => void attempt("Receivers", () => read("/alert-receivers", receivers)), [receiversMoved.value]);
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
    const form = said(new FormData(shape));
    const to = form.to ?? "";
    const mail = to.includes("@") && !/^https?:/i.test(to);
    const where = mail ? { addresses: to.split(/[\s,;]+/).filter(Boolean) } : { url: to, secret: form.secret };
    const done = await attempt("New receiver", async () => {
      await api("/alert-receivers", { name: form.name, min_severity: form.min_severity, ...where });
      await read("/alert-receivers", receivers);
    });
    if (done) shape.reset();
  };
  return (
    <form class="new-one" onSubmit={(event) => void make(event)} aria-label="New receiver">
      <label class="field">
        Name
        <input name="name" required maxLength={200} autocomplete="off" />
      </label>
      <label class="field">
        Webhook or mail addresses
        <input name="to" required maxLength={2000} autocomplete="off" placeholder="https://… or crew@example.org" />
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
