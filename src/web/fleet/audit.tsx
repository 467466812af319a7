// Who changed what: the audit log, newest first, with filters; its export is a file that `r58 ctl audit verify` proves.

import { useEffect, useState } from "preact/hooks";
import { attempt } from "../common/toasts.js";
import { wordsFor } from "../common/problem.js";
import { api, apiRaw, mayAdminister } from "./session.js";
import { Ago } from "./parts.js";
import { Failed } from "./read.js";

interface Change {
  seq: number;
  at: string;
  actor: string;
  action: string;
  target: string;
  detail?: string | null;
  hash: string;
}

interface Changes {
  items: Change[];
  has_more: boolean;
  next_cursor?: string;
}

interface Verdict {
  valid: boolean;
  changes?: number;
  head?: string;
  key?: string;
  /** The first change that is not what it was. */
  change?: number;
  reason?: string;
}

interface Filter {
  actor: string;
  action: string;
  target: string;
  since: string;
  until: string;
}

const ALL: Filter = { actor: "", action: "", target: "", since: "", until: "" };

/** The query of a list. A day in the form is the whole of that day here, wherever the server stands. Pure. */
export function auditQuery(filter: Filter, cursor: string | null): string {
  const params = new URLSearchParams({ limit: "100" });
  for (const key of ["actor", "action", "target"] as const) if (filter[key].trim()) params.set(key, filter[key].trim());
  const day = (text: string, more: number) => {
    const [year = 0, month = 1, date = 1] = text.split("-").map(Number);
    return new Date(year, month - 1, date + more).toISOString();
  };
  if (filter.since) params.set("since", day(filter.since, 0));
  if (filter.until) params.set("until", day(filter.until, 1));
  if (cursor) params.set("cursor", cursor);
  return `?${params}`;
}

export function Audit() {
  const [filter, setFilter] = useState(ALL);
  const [changes, setChanges] = useState<Change[] | null>(null);
  const [cursor, setCursor] = useState<string | null>(null);
  const [failed, setFailed] = useState<string | null>(null);

  const [verdict, setVerdict] = useState<Verdict | null>(null);
  const [verifying, setVerifying] = useState(false);

  async function verify(): Promise<void> {
    setVerdict(null);
    setVerifying(true);
    try {
      setVerdict(await api<Verdict>("/audit/verify"));
    } finally {
      setVerifying(false);
    }
  }

  async function load(next: Filter, from: string | null): Promise<void> {
    try {
      const page = await api<Changes>(`/audit${auditQuery(next, from)}`);
      setChanges((held) => (from === null || held === null ? page.items : [...held, ...page.items]));
      setCursor(page.has_more ? (page.next_cursor ?? null) : null);
      setFailed(null);
    } catch (error) {
      setFailed(wordsFor(error));
    }
  }

  useEffect(() => {
    const typed = setTimeout(() => void load(filter, null), changes === null ? 0 : 300);
    return () => clearTimeout(typed);
  }, [filter]);

  if (!mayAdminister.value) return <main class="place-page">Only administrators read the audit log.</main>;
  const set = (key: keyof Filter) => (event: { currentTarget: HTMLInputElement }) => setFilter({ ...filter, [key]: event.currentTarget.value });
  return (
    <main class="place-page">
      <div class="row spread">
        <h1>Audit log</h1>
        <div class="row">
          <button class="small" onClick={() => void load(filter, null)}>
            Read anew
          </button>
          <button class="small" onClick={() => void attempt("Verify", verify)} disabled={verifying} data-testid="verify">
            {verifying ? "Verifying…" : "Verify"}
          </button>
          <button class="small" onClick={() => void attempt("Export", download)} data-testid="export">
            Export
          </button>
        </div>
      </div>
      <div role="status" data-testid="verdict">
        {verdict ? <VerdictView verdict={verdict} /> : null}
      </div>
      <div class="filters" role="search" aria-label="Filter changes">
        <label class="field">
          Who
          <input value={filter.actor} onInput={set("actor")} placeholder="user:ada@example.org" data-testid="audit-actor" />
        </label>
        <label class="field">
          What
          <input value={filter.action} onInput={set("action")} placeholder="device.change" data-testid="audit-action" />
        </label>
        <label class="field">
          To
          <input value={filter.target} onInput={set("target")} placeholder="an id" />
        </label>
        <label class="field">
          From
          <input type="date" value={filter.since} onInput={set("since")} />
        </label>
        <label class="field">
          Until
          <input type="date" value={filter.until} onInput={set("until")} />
        </label>
      </div>
      <Failed words={failed} />
      <p class="muted" role="status">
        {changes === null ? "Loading…" : changes.length === 0 ? "No change fits." : `${changes.length.toLocaleString("en")} changes${cursor ? ", and more" : ""}`}
      </p>
      {changes && changes.length > 0 ? (
        <table data-testid="changes">
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">Who</th>
              <th scope="col">What</th>
              <th scope="col">To</th>
              <th scope="col">Detail</th>
            </tr>
          </thead>
          <tbody>
            {changes.map((change) => (
              <tr key={change.seq}>
                <td data-name="When" title={new Date(change.at).toLocaleString()}>
                  <Ago at={change.at} />
                </td>
                <td data-name="Who">{change.actor}</td>
                <td data-name="What" class="mono">
                  {change.action}
                </td>
                <td data-name="To">{change.target}</td>
                <td data-name="Detail" class="muted">
                  {change.detail ?? ""}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
      {cursor ? <button onClick={() => void load(filter, cursor)}>Show more</button> : null}
    </main>
  );
}

function VerdictView({ verdict }: { verdict: Verdict }) {
  if (!verdict.valid) {
    return (
      <p class="error" role="alert">
        The log is not as it was{verdict.change ? `: change ${verdict.change}` : ""}: {verdict.reason}.
      </p>
    );
  }
  return (
    <p>
      <span class="badge good">whole and unchanged</span> {verdict.changes?.toLocaleString("en")} changes, head{" "}
      <code title={verdict.head}>{verdict.head?.slice(0, 16)}…</code>, signed by key <code>{verdict.key}</code>.{" "}
      <span class="muted">
        That is this server's word. Keep an export elsewhere, and <code>r58 ctl audit verify --against</code> it later.
      </span>
    </p>
  );
}

/** The token travels in a header, so a plain link would not do. */
async function download(): Promise<void> {
  const response = await apiRaw("/audit/export", {});
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = "audit.ndjson";
  link.click();
  URL.revokeObjectURL(url);
}
