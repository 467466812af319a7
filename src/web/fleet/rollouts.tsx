// Rollouts: begun by percent, followed live, paused, widened or ended; and box by box who has the release, who is at it, and who failed.

import { useState } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import { attempt } from "../common/toasts.js";
import { TagField } from "./alert_parts.js";
import { commandMood, elapsed, took } from "./commands.js";
import type { Command, Page } from "./contract.js";
import { Ago } from "./parts.js";
import { Failed, useRead } from "./read.js";
import { Link } from "./router.js";
import { api, change, mayAdminister } from "./session.js";
import { shares, type Release, type Rollout } from "./staged.js";
import { rolled } from "./store.js";

/** Words and mood of a state. */
const STATES: Record<string, [string, string]> = {
  running: ["running", "busy"],
  paused: ["paused", "warn"],
  halted: ["halted: too many failed", "bad"],
  unsupported: ["halted: boxes cannot do it", "bad"],
  completed: ["completed", "good"],
  cancelled: ["ended", "idle"],
};

export function Rollouts({ rollouts, releases, onMoved }: { rollouts: Rollout[]; releases: Release[]; onMoved(): Promise<void> }) {
  const set = (rollout: Rollout, what: string, body: unknown) =>
    attempt(what, () => change("PATCH", `/rollouts/${encodeURIComponent(rollout.id)}`, body)).then(onMoved);
  return (
    <section class="panel stack" aria-label="Rollouts">
      <div class="row spread">
        <h2>Rollouts</h2>
        {mayAdminister.value ? <Start releases={releases.filter((one) => one.published)} onMade={onMoved} /> : null}
      </div>
      {rollouts.length === 0 ? <p class="muted">None yet.</p> : null}
      {rollouts.map((rollout) => (
        <RolloutView key={rollout.id} rollout={rollout} onSet={set} />
      ))}
    </section>
  );
}

function RolloutView({ rollout, onSet }: { rollout: Rollout; onSet(rollout: Rollout, what: string, body: unknown): Promise<void> }) {
  const [words, mood] = STATES[rollout.state] ?? [rollout.state, "idle"];
  const { counts } = rollout;
  const bad = counts.failed + counts.unsupported;
  const part = shares(rollout);
  const told = `${counts.succeeded} done, ${bad} failed, ${counts.open} under way, of ${rollout.devices.toLocaleString("en")} ${rollout.devices === 1 ? "box" : "boxes"}`;
  const whom = rollout.tag ? `those tagged ${rollout.tag}` : `channel ${rollout.channel}`;
  return (
    <article class="rollout" aria-label={`${rollout.version} to ${whom}`} data-testid={`rollout-${rollout.id}`} data-state={rollout.state}>
      <div class="row spread">
        <h3>
          {rollout.version} <span class="muted">to {rollout.percent} % of {whom}</span>{" "}
          <span class={`badge ${mood}`} role="status">
            {words}
          </span>
        </h3>
        {mayAdminister.value && (rollout.state === "running" || rollout.state === "paused") ? <Acts rollout={rollout} onSet={onSet} /> : null}
      </div>
      <div class="progress" role="img" aria-label={told}>
        <i class="good" style={{ width: `${part.good}%` }} />
        <i class="bad" style={{ width: `${part.bad}%` }} />
        <i class="open" style={{ width: `${part.open}%` }} />
      </div>
      <p class="muted">
        {told}. {rollout.reason ? `${sentence(rollout.reason)}. ` : ""}Halts when more than {rollout.abort_percent} % fail; {rollout.at_once} at once. Begun{" "}
        <Ago at={rollout.created_at} /> by {rollout.created_by.replace(/^user:/, "")}.
      </p>
      <Members rollout={rollout} bad={bad} />
    </article>
  );
}

const sentence = (words: string): string => words.charAt(0).toUpperCase() + words.slice(1);

function Acts({ rollout, onSet }: { rollout: Rollout; onSet(rollout: Rollout, what: string, body: unknown): Promise<void> }) {
  const larger = [5, 10, 25, 50, 100].find((percent) => percent > rollout.percent);
  const running = rollout.state === "running";
  return (
    <div class="acts" role="group" aria-label={`Rollout of ${rollout.version}`}>
      {larger ? (
        <button class="small" onClick={() => void onSet(rollout, "Widen", { percent: larger })} data-testid="widen">
          To {larger} %
        </button>
      ) : null}
      <button
        class="small"
        onClick={() => void onSet(rollout, running ? "Pause" : "Go on", { state: running ? "paused" : "running" })}
        data-testid={running ? "pause" : "go-on"}
      >
        {running ? "Pause" : "Go on"}
      </button>
      <button
        class="small danger"
        onClick={() => {
          if (confirm("End this rollout? What has not begun is taken back.")) void onSet(rollout, "End", { state: "cancelled" });
        }}
        data-testid="end"
      >
        End
      </button>
    </div>
  );
}

/** Milliseconds between two looks at the boxes of a rollout that moves. */
const GATHER = 1_000;
/** Boxes shown of one rollout; the most of a page. */
const MOST = 200;

function Members({ rollout, bad }: { rollout: Rollout; bad: number }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)} data-testid="members">
      <summary class="muted">Boxes, {rollout.counts.sent.toLocaleString("en")} so far</summary>
      {open ? <MemberList rollout={rollout} bad={bad} /> : null}
    </details>
  );
}

function MemberList({ rollout, bad }: { rollout: Rollout; bad: number }) {
  const [failed, setFailed] = useState(bad > 0);
  const path = `/rollouts/${encodeURIComponent(rollout.id)}/commands?page_size=${MOST}&failed=${failed}`;
  const list = useRead(() => api<Page<Command>>(path), path, { seen: rolled.value, gather: GATHER });
  const total = list.found?.total ?? 0;
  return (
    <div class="stack">
      <div class="views" role="group" aria-label="Which boxes">
        <button class="small" aria-pressed={!failed} onClick={() => setFailed(false)}>
          All
        </button>
        <button class="small" aria-pressed={failed} onClick={() => setFailed(true)} data-testid="only-failed">
          Failed
        </button>
      </div>
      <Failed words={list.failed} />
      {list.found === null && !list.failed ? <p class="muted">Loading…</p> : null}
      {list.found && total === 0 ? <p class="muted">{failed ? "None failed." : "None yet: it reaches boxes that are connected."}</p> : null}
      <ul class="members" aria-label={failed ? "Boxes that failed" : "Boxes"} tabIndex={0}>
        {(list.found?.items ?? []).map((command) => {
          const after = took(command);
          return (
            <li key={command.id} data-testid={`member-${command.device_id}`} data-state={command.state}>
              <Link to={`/devices/${encodeURIComponent(command.device_id)}`}>{command.device_id}</Link>
              <span class={`badge ${commandMood(command.state)}`}>{command.state.replace(/_/g, " ")}</span>
              {typeof command.progress === "number" && after === null ? <span class="muted">{Math.round(command.progress * 100)} %</span> : null}
              <span class="muted">{[command.code, command.reason].filter(Boolean).join(": ")}</span>
              <span class="faint">{after === null ? "" : elapsed(after).replace("+", "after ")}</span>
            </li>
          );
        })}
      </ul>
      {total > MOST ? <p class="muted">The first {MOST} of {total.toLocaleString("en")}.</p> : null}
    </div>
  );
}

function Start({ releases, onMade }: { releases: Release[]; onMade(): Promise<void> }) {
  const start = async (fields: FormData) => {
    const tag = String(fields.get("tag") ?? "").trim();
    const number = (name: string) => Number(fields.get(name));
    const body = {
      version: fields.get("version"),
      percent: number("percent"),
      abort_percent: number("abort_percent"),
      at_once: number("at_once"),
      ...(tag ? { tag } : {}),
    };
    await api("/rollouts", body);
    await onMade();
  };
  return (
    <FormDialog
      opens="Begin a rollout"
      title="Begin a rollout"
      does="Begin"
      openId="start-rollout"
      doId="begin"
      disabled={releases.length === 0}
      why="There is no published release"
      onDo={start}
    >
      <label class="field">
        Release
        <select name="version" required>
          {releases.map((one) => (
            <option key={`${one.version} ${one.arch}`} value={one.version}>
              {one.version} ({one.channel})
            </option>
          ))}
        </select>
      </label>
      <TagField name="tag" label="To boxes with this tag; all on its channel without one" />
      <label class="field">
        To how many percent of them
        <input name="percent" type="number" min={1} max={100} defaultValue={5} required />
      </label>
      <label class="field">
        Halt when more than this many percent fail
        <input name="abort_percent" type="number" min={1} max={100} defaultValue={10} required />
      </label>
      <label class="field">
        Boxes at once
        <input name="at_once" type="number" min={1} max={1000} defaultValue={50} required />
      </label>
    </FormDialog>
  );
}
