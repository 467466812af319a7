// What the open box should run and what it runs, what differs, and the versions there were: each can be compared and gone back to.

import { FormDialog } from "../common/form_dialog.js";
import { commandMood, parseChanges } from "./commands.js";
import type { Detail, Page } from "./contract.js";
import { Ago } from "./parts.js";
import { Failed, useRead } from "./read.js";
import { api, change } from "./session.js";
import { commands } from "./store.js";

interface Version {
  ver: number;
  notes?: string | null;
  /** The version that it went back to. */
  restores?: number | null;
  created_by: string;
  created_at: string;
}

interface Both {
  desired: Version | null;
  reported: { ver: number; config: unknown } | null;
  in_force: boolean;
  state: string | null;
  reason: string | null;
}

interface Difference {
  path: string;
  kind: "added" | "removed" | "changed";
  from?: unknown;
  to?: unknown;
}

interface Found {
  both: Both;
  differences: Difference[];
  versions: Version[];
}

/** Milliseconds for which what moves is gathered. */
const GATHER = 500;
/** Versions shown. */
const MOST = 50;

export function Configuration({ box, id }: { box: Detail; id: string }) {
  const path = `/devices/${encodeURIComponent(id)}/config`;
  const read = async (): Promise<Found> => {
    const [both, versions] = await Promise.all([api<Both>(path), api<Page<Version>>(`${path}/versions?page_size=${MOST}`)]);
    const told = both.desired && both.reported ? await api<{ differences: Difference[] }>(`${path}/diff`) : { differences: [] };
    return { both, differences: told.differences, versions: versions.items };
  };
  const moved = commands.value.filter((command) => command.type === "config").map((command) => command.id + command.state);
  const { found, failed, again } = useRead(read, path, { seen: `${moved} ${box.reported?.ver}`, gather: GATHER });
  const latest = found?.both.desired?.ver ?? 0;

  const alter = async (fields: FormData): Promise<void> => {
    const parsed = parseChanges(String(fields.get("changes") ?? ""));
    if ("error" in parsed) throw new Error(parsed.error);
    try {
      await change("PATCH", path, { changes: parsed.changes, expected_ver: latest, ...notesOf(fields) });
    } finally {
      // Also when somebody else was faster.
      await again();
    }
  };
  return (
    <section class="panel stack" aria-label="Configuration" data-testid="configuration">
      <div class="row spread">
        <h2>Configuration</h2>
        <FormDialog opens="Change…" title={`Configure ${box.name}`} does="Send" openId="do-config" doId="send-config" wide onDo={alter} disabled={found === null}>
          <p class="muted">Only what changes; null removes. The box checks it, and goes back by itself when the part does not come up with it.</p>
          <label class="field">
            Changes (JSON)
            <textarea name="changes" class="mono" rows={8} spellcheck={false} required placeholder={'{ "inputs": { "cam1": { "source": { "kind": "test" } } } }'} />
          </label>
          <label class="field">
            Why, for whoever reads the versions
            <input name="notes" maxLength={200} autocomplete="off" />
          </label>
          <details>
            <summary class="muted">What the box runs now</summary>
            <pre class="now" tabIndex={0}>
              {JSON.stringify(found?.both.reported?.config ?? null, null, 2)}
            </pre>
          </details>
        </FormDialog>
      </div>
      <Failed words={failed} />
      {found ? <Standing both={found.both} /> : failed ? null : <p class="muted">Loading…</p>}
      {found && found.differences.length > 0 ? <Differences title="What differs" from="Runs" to="Should run" list={found.differences} /> : null}
      {found && found.versions.length > 0 ? <Versions path={path} versions={found.versions} latest={latest} onMoved={again} /> : null}
    </section>
  );
}

const notesOf = (fields: FormData): { notes?: string } => {
  const notes = String(fields.get("notes") ?? "").trim();
  return notes ? { notes } : {};
};

function Standing({ both }: { both: Both }) {
  if (!both.desired) return <p class="muted">Nothing was asked for: it runs what its own file says.</p>;
  const { ver } = both.desired;
  return (
    <p role="status" data-testid="config-state">
      {both.in_force ? (
        <span class="badge good">version {ver} is in force</span>
      ) : (
        <span class={`badge ${commandMood(both.state ?? "")}`}>
          version {ver}: {(both.state ?? "on its way").replace(/_/g, " ")}
        </span>
      )}{" "}
      <span class="muted">{both.in_force ? "" : (both.reason ?? "")}</span>
    </p>
  );
}

const value = (one: unknown): string => (one === undefined ? "–" : JSON.stringify(one));

function Differences({ title, from, to, list }: { title: string; from: string; to: string; list: Difference[] }) {
  return (
    <div class="scrolled" role="region" aria-label={title} tabIndex={0}>
      <table data-testid="differences">
        <thead>
          <tr>
            <th scope="col">Place</th>
            <th scope="col">{from}</th>
            <th scope="col">{to}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((one) => (
            <tr key={one.path} class={one.kind}>
              <td class="mono">{one.path || "/"}</td>
              <td class="mono">{value(one.from)}</td>
              <td class="mono">{value(one.to)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Versions({ path, versions, latest, onMoved }: { path: string; versions: Version[]; latest: number; onMoved(): Promise<void> }) {
  const back = (version: Version, fields: FormData) =>
    change("POST", `${path}/rollback`, { ver: version.ver, expected_ver: latest, ...notesOf(fields) }).finally(onMoved);
  return (
    <details data-testid="versions">
      <summary class="muted">Versions</summary>
      <ol class="versions" reversed>
        {versions.map((version) => (
          <li key={version.ver} class="row">
            <b>{version.ver}</b>
            <span class="muted">
              <Ago at={version.created_at} /> by {version.created_by.replace(/^user:/, "")}
              {version.restores ? `, back to ${version.restores}` : ""}
            </span>
            <span class="grow">{version.notes ?? ""}</span>
            {version.ver === latest ? (
              <span class="badge idle">latest</span>
            ) : (
              <FormDialog
                opens="Go back…"
                label={`Go back… to version ${version.ver}`}
                title={`Go back to version ${version.ver}?`}
                does="Go back"
                openId={`back-${version.ver}`}
                doId="go-back"
                wide
                onDo={(fields) => back(version, fields)}
              >
                <Comparison path={`${path}/diff?from=desired&to=${version.ver}`} ver={version.ver} latest={latest} />
                <label class="field">
                  Why
                  <input name="notes" maxLength={200} autocomplete="off" />
                </label>
              </FormDialog>
            )}
          </li>
        ))}
      </ol>
    </details>
  );
}

/** What would be different. */
function Comparison({ path, ver, latest }: { path: string; ver: number; latest: number }) {
  const { found, failed } = useRead(() => api<{ differences: Difference[] }>(path), path);
  const list = found?.differences ?? null;
  if (list === null) return failed ? <Failed words={failed} /> : <p class="muted">Loading…</p>;
  if (list.length === 0) return <p class="muted">The same as version {latest}.</p>;
  return <Differences title="What would differ" from={`Version ${latest}`} to={`Version ${ver}`} list={list} />;
}
