// Who changed what: the audit log, newest first, with filters; its export is a file that `r58 ctl audit verify` proves.

import { useEffect, useRef, useState } from "preact/hooks";
import { attempt } from "../common/toasts.js";
import { wordsFor } from "../common/problem.js";
import { ALL, anew, auditQuery, onward, withNewest, type Changes, type Filter, type Listed } from "./changes.js";
import { api, apiRaw, mayAdminister } from "./session.js";
import { Ago } from "./parts.js";
import { Failed, useStir } from "./read.js";
import { noted, useChanges } from "./store.js";

interface Verdict {
  valid: boolean;
  changes?: number;
  head?: string;
  key?: string;
  /** The first change that is not what it was. */
  change?: number;
  reason?: string;
}

/** Milliseconds for which changes are gathered before the log is read again. */
const GATHER = 300;

export function Audit() {
  return mayAdminister.value ? <Log /> : <main class="place-page">Only administrators read the audit log.</main>;
}

function Log() {
  const [filter, setFilter] = useState(ALL);
  const [list, setList] = useState<Listed | null>(null);
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

  const wanted = useRef(filter);
  wanted.current = filter;
  async function load(asked: Filter, from: string | null, taken: (held: Listed | null, page: Changes) => Listed): Promise<void> {
    try {
      const page = await api<Changes>(`/audit${auditQuery(asked, from)}`);
      // Another filter has been set meanwhile.
      if (wanted.current !== asked) return;
      setList((held) => taken(held, page));
      setFailed(null);
    } catch (error) {
      if (wanted.current === asked) setFailed(wordsFor(error));
    }
  }

  useChanges();
  // What came meanwhile goes on top; a list that somebody walked down stays as long as it is.
  useStir({ seen: noted.value, gather: GATHER }, () => void load(filter, null, withNewest));

  useEffect(() => {
    const typed = setTimeout(() => void load(filter, null, anew), list === null ? 0 : 300);
    return () => clearTimeout(typed);
  }, [filter]);

  const { items: changes, cursor } = list ?? { items: null, cursor: null };
  const set = (key: keyof Filter) => (event: { currentTarget: HTMLInputElement }) => setFilter({ ...filter, [key]: event.currentTarget.value });
  return (
    <main class="place-page">
      <div class="row spread">
        <h1>Audit log</h1>
        <div class="row">
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
                <td data-name={change.detail ? "Detail" : undefined} class="muted">
                  {change.detail ?? ""}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
      {cursor ? <button onClick={() => void load(filter, cursor, onward)}>Show more</button> : null}
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
