// Releases by channel, and rollouts that take them to boxes: begun by percent, live, paused, widened or ended.

import { useEffect, useRef, useState } from "preact/hooks";
import { wordsFor } from "../common/problem.js";
import { attempt } from "../common/toasts.js";
import { DialogButtons } from "../common/dialog_buttons.js";
import type { Page } from "./contract.js";
import { Ago } from "./parts.js";
import { api, change, mayAdminister } from "./session.js";
import { stirred } from "./store.js";

interface Release {
  version: string;
  channel: string;
  arch: string;
  size_bytes: number;
  changelog?: string | null;
  published: boolean;
  created_by: string;
  created_at: string;
}

export interface Rollout {
  id: string;
  version: string;
  tag?: string | null;
  channel: string;
  percent: number;
  abort_percent: number;
  at_once: number;
  state: string;
  reason?: string | null;
  devices: number;
  counts: { sent: number; succeeded: number; failed: number; unsupported: number; open: number };
  created_by: string;
  created_at: string;
}

/** Words and mood of a state. */
const STATES: Record<string, [string, string]> = {
  running: ["running", "good"],
  paused: ["paused", "warn"],
  halted: ["halted: too many failed", "bad"],
  unsupported: ["halted: boxes cannot do it", "bad"],
  completed: ["completed", "good"],
  cancelled: ["ended", "idle"],
};

/** What of the boxes that a rollout is for has come to what, in percent, in this order: succeeded, failed, open. Pure. */
export function shares(rollout: Rollout): [number, number, number] {
  const all = Math.max(1, rollout.devices);
  const { succeeded, failed, unsupported, open } = rollout.counts;
  return [succeeded, failed + unsupported, open].map((count) => Math.min(100, (100 * count) / all)) as [number, number, number];
}

/** Milliseconds for which what stirs is gathered before rollouts are read again. */
const GATHER = 1_000;

export function Releases() {
  const [releases, setReleases] = useState<Release[] | null>(null);
  const [rollouts, setRollouts] = useState<Rollout[]>([]);
  const [failed, setFailed] = useState<string | null>(null);
  const waiting = useRef<ReturnType<typeof setTimeout>>();

  async function load(): Promise<void> {
    try {
      const [listed, under] = await Promise.all([api<Page<Release>>("/releases?page_size=200"), api<Page<Rollout>>("/rollouts?page_size=50")]);
      setReleases(listed.items);
      setRollouts(under.items);
      setFailed(null);
    } catch (error) {
      setFailed(wordsFor(error));
    }
  }

  useEffect(() => void load(), []);
  // A rollout moves when its commands do, and those are pushed.
  const seen = stirred.value;
  useEffect(() => {
    waiting.current ??= setTimeout(() => {
      waiting.current = undefined;
      void load();
    }, GATHER);
  }, [seen]);
  useEffect(() => () => clearTimeout(waiting.current), []);

  const set = (rollout: Rollout, what: string, body: unknown) => attempt(what, () => change("PATCH", `/rollouts/${encodeURIComponent(rollout.id)}`, body)).then(load);
  const channels = [...new Set((releases ?? []).map((release) => release.channel))];
  return (
    <main class="place-page">
      {failed ? (
        <p class="error" role="alert">
          {failed}
        </p>
      ) : null}
      <section class="panel stack" aria-label="Rollouts">
        <div class="row spread">
          <h2>Rollouts</h2>
          {mayAdminister.value ? <Start releases={(releases ?? []).filter((one) => one.published)} onMade={load} /> : null}
        </div>
        {rollouts.length === 0 ? <p class="muted">None yet.</p> : null}
        {rollouts.map((rollout) => (
          <RolloutView key={rollout.id} rollout={rollout} onSet={set} />
        ))}
      </section>
      {releases === null && !failed ? <p class="muted pad">Loading…</p> : null}
      {releases?.length === 0 ? <p class="muted pad">No releases yet: `r58 ctl release create` enters one, `sign` signs it.</p> : null}
      {channels.map((channel) => (
        <section class="panel stack" key={channel} aria-label={`Channel ${channel}`}>
          <h2>{channel}</h2>
          <table data-testid={`channel-${channel}`}>
            <thead>
              <tr>
                <th scope="col">Version</th>
                <th scope="col">For</th>
                <th scope="col">Size</th>
                <th scope="col">Entered</th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {(releases ?? [])
                .filter((one) => one.channel === channel)
                .map((release) => (
                  <tr key={release.version}>
                    <td data-name="Version">
                      <b>{release.version}</b>
                      {release.changelog ? <div class="muted">{release.changelog}</div> : null}
                    </td>
                    <td data-name="For">{release.arch}</td>
                    <td data-name="Size">{`${(release.size_bytes / 1e6).toFixed(1)} MB`}</td>
                    <td data-name="Entered" class="muted">
                      <Ago at={release.created_at} /> by {release.created_by}
                    </td>
                    <td data-name="State">
                      <span class={`badge ${release.published ? "good" : "idle"}`}>{release.published ? "published" : "not published"}</span>
                    </td>
                  </tr>
                ))}
            </tbody>
          </table>
        </section>
      ))}
    </main>
  );
}

function RolloutView({ rollout, onSet }: { rollout: Rollout; onSet(rollout: Rollout, what: string, body: unknown): Promise<void> }) {
  const [words, mood] = STATES[rollout.state] ?? [rollout.state, "idle"];
  const { counts } = rollout;
  const [good, bad, open] = shares(rollout);
  const underWay = rollout.state === "running" || rollout.state === "paused";
  const larger = [5, 10, 25, 50, 100].find((percent) => percent > rollout.percent);
  const told = `${counts.succeeded} done, ${counts.failed + counts.unsupported} failed, ${counts.open} under way, of ${rollout.devices.toLocaleString("en")} boxes`;
  return (
    <article class="rollout" data-testid={`rollout-${rollout.id}`}>
      <div class="row spread">
        <span>
          <b>{rollout.version}</b> to {rollout.percent} % of {rollout.tag ? `those tagged ${rollout.tag}` : `channel ${rollout.channel}`}{" "}
          <span class={`badge ${mood}`}>{words}</span>
        </span>
        {mayAdminister.value && underWay ? (
          <div class="acts">
            {larger ? (
              <button class="small" onClick={() => void onSet(rollout, "Widen", { percent: larger })}>
                To {larger} %
              </button>
            ) : null}
            {rollout.state === "running" ? (
              <button class="small" onClick={() => void onSet(rollout, "Pause", { state: "paused" })}>
                Pause
              </button>
            ) : (
              <button class="small" onClick={() => void onSet(rollout, "Go on", { state: "running" })}>
                Go on
              </button>
            )}
            <button
              class="small"
              onClick={() => {
                if (confirm("End this rollout? What has not begun is taken back.")) void onSet(rollout, "End", { state: "cancelled" });
              }}
            >
              End
            </button>
          </div>
        ) : null}
      </div>
      <div class="progress" role="img" aria-label={told}>
        <i class="good" style={{ width: `${good}%` }} />
        <i class="bad" style={{ width: `${bad}%` }} />
        <i class="open" style={{ width: `${open}%` }} />
      </div>
      <p class="muted">
        {told}. Ends by itself when more than {rollout.abort_percent} % fail; {rollout.at_once} at once.
        {rollout.reason ? ` ${rollout.reason}.` : ""} Begun <Ago at={rollout.created_at} /> by {rollout.created_by}.
      </p>
    </article>
  );
}

function Start({ releases, onMade }: { releases: Release[]; onMade(): Promise<void> }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const start = async (event: Event) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const tag = String(fields.get("tag") ?? "").trim();
    const number = (name: string) => Number(fields.get(name));
    const body = {
      version: fields.get("version"),
      percent: number("percent"),
      abort_percent: number("abort_percent"),
      at_once: number("at_once"),
      ...(tag ? { tag } : {}),
    };
    if (await attempt("Begin a rollout", () => api("/rollouts", body))) {
      dialog.current?.close();
      await onMade();
    }
  };
  return (
    <>
      <button class="small" disabled={releases.length === 0} onClick={() => dialog.current?.showModal()} data-testid="start-rollout">
        Begin a rollout
      </button>
      <dialog ref={dialog} aria-label="Begin a rollout">
        <form class="stack" onSubmit={(event) => void start(event)}>
          <h1>Begin a rollout</h1>
          <label class="field">
            Release
            <select name="version" required>
              {releases.map((one) => (
                <option key={one.version} value={one.version}>
                  {one.version} ({one.channel})
                </option>
              ))}
            </select>
          </label>
          <label class="field">
            To boxes with this tag; all on its channel without one
            <input name="tag" maxLength={200} autocomplete="off" />
          </label>
          <label class="field">
            To how many percent of them
            <input name="percent" type="number" min={1} max={100} value={5} required />
          </label>
          <label class="field">
            Halt when more than this many percent fail
            <input name="abort_percent" type="number" min={1} max={100} value={10} required />
          </label>
          <label class="field">
            Boxes at once
            <input name="at_once" type="number" min={1} max={1000} value={50} required />
          </label>
          <DialogButtons dialog={dialog} testId="begin">
            Begin
          </DialogButtons>
        </form>
      </dialog>
    </>
  );
}
