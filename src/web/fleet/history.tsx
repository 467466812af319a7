// Commands of the open box, newest first, each with its states as a line in time. They move as the box reports them.

import { clock, expiry } from "../common/format.js";
import { attempt } from "../common/toasts.js";
import { commandMood, elapsed, isTerminal, summary, timeline, took, withCommand } from "./commands.js";
import type { Command } from "./contract.js";
import { api, mayOperate } from "./session.js";
import { commands, now } from "./store.js";

export function History() {
  const list = commands.value;
  return (
    <section class="panel" aria-label="Commands">
      <h2>Commands</h2>
      {list.length === 0 ? <p class="muted">No commands yet.</p> : null}
      <ol class="commands" aria-live="polite" aria-label="Commands, newest first" tabIndex={0}>
        {list.map((command) => (
          <Row key={command.id} command={command} />
        ))}
      </ol>
    </section>
  );
}

const cancel = (command: Command) =>
  attempt("Cancel", async () => {
    const after = await api<Command>(`/commands/${encodeURIComponent(command.id)}/cancel`, {});
    if (after) commands.value = withCommand(commands.value, after);
  });

function Row({ command }: { command: Command }) {
  const open = !isTerminal(command.state);
  const after = took(command);
  const steps = timeline(command.history);
  const why = [command.code, command.reason].filter(Boolean).join(": ");
  return (
    <li data-testid={`command-${command.id}`} data-type={command.type} data-state={command.state}>
      <div class="row">
        <b>{command.type}</b>
        <span class="mono muted cut-off args" title={JSON.stringify(command.payload)}>
          {summary(command.payload)}
        </span>
        <span class="grow" />
        {open && typeof command.progress === "number" ? <span class="muted">{Math.round(command.progress * 100)} %</span> : null}
        <span class={`badge ${commandMood(command.state)}`}>{command.state.replace(/_/g, " ")}</span>
        {after === null ? null : (
          <span class="muted" title="From the click to the end">
            {elapsed(after).replace("+", "after ")}
          </span>
        )}
        {open && command.cancel_requested ? <span class="muted">cancelling…</span> : null}
        {open && mayOperate.value && !command.cancel_requested ? (
          <button class="small" data-testid={`cancel-${command.id}`} onClick={() => void cancel(command)}>
            Cancel
          </button>
        ) : null}
      </div>
      {steps.length > 0 ? (
        <div class="steps">
          {steps.map((step, index) => (
            <span key={`${step.state}-${index}`} class={`step ${index === steps.length - 1 ? commandMood(step.state) : ""}`} title={step.reason ?? step.ts}>
              {step.state.replace(/_/g, " ")}
              <i>{elapsed(step.after)}</i>
            </span>
          ))}
        </div>
      ) : null}
      {why ? <p class={commandMood(command.state) === "bad" ? "why bad" : "why"}>{why}</p> : null}
      {command.result !== null && command.result !== undefined ? <p class="why mono">{typeof command.result === "string" ? command.result : JSON.stringify(command.result)}</p> : null}
      <p class="faint small-print">
        {clock(command.created_at, now.value)}
        {command.created_by ? ` by ${command.created_by.replace(/^user:/, "")}` : ""}
        {(command.attempts ?? 0) > 1 ? ` · attempt ${command.attempts}` : ""}
        {open && command.expires_at ? ` · ${expiry(command.expires_at, now.value)}` : ""}
        {` · ${command.id}`}
      </p>
    </li>
  );
}
