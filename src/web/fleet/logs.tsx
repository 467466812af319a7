// The log of the open box: what it said before, and what it says while somebody looks. It is asked for only when the view is open.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { openEvents } from "../common/events.js";
import { wordsFor } from "../common/problem.js";
import { fieldWords, isAtLeast, levelMood, LEVELS, type LogLevel, type LogPage, type LogRecord, withRecords } from "./records.js";
import { api, bearer, onStreamRefused } from "./session.js";
import "./logs.css";

const records = signal<LogRecord[]>([]);
const level = signal<LogLevel>("info");
const actor = signal("");
const live = signal(true);
/** How it stands, in words; empty when all is well. */
const note = signal("");
const leftOut = signal(0);
const opened = signal(false);

const query = (): string => {
  const parts = [`level=${level.value}`];
  if (actor.value) parts.push(`actor=${encodeURIComponent(actor.value)}`);
  return parts.join("&");
};

export function Logs({ id, online }: { id: string; online: boolean }) {
  return (
    <details class="panel" onToggle={(event) => (opened.value = event.currentTarget.open)} data-testid="logs">
      <summary>Log</summary>
      {opened.value ? <View id={id} online={online} /> : null}
    </details>
  );
}

function View({ id, online }: { id: string; online: boolean }) {
  const path = `/devices/${encodeURIComponent(id)}/logs`;
  const asked = query();
  const list = useRef<HTMLOListElement>(null);

  useEffect(() => {
    let gone = false;
    records.value = [];
    leftOut.value = 0;
    const load = async () => {
      try {
        const page = await api<LogPage>(`${path}?${asked}&limit=500`);
        if (gone) return;
        records.value = withRecords(records.value, page.items ?? []);
        note.value = "";
      } catch (error) {
        if (!gone) note.value = wordsFor(error);
      }
    };
    if (!live.value || !online) {
      void load();
      return () => (gone = true);
    }
    // Listened to first; what comes in between is in the page as well, and kept once.
    const close = openEvents({
      url: `/api/v1${path}/live?${asked}`,
      headers: bearer,
      silence: 45_000,
      onEvent(name, data) {
        if (gone) return;
        if (name === "hello") void load();
        else if (name === "log") records.value = withRecords(records.value, [JSON.parse(data) as LogRecord]);
        else if (name === "dropped") leftOut.value += (JSON.parse(data) as { count: number }).count;
        else if (name === "away") note.value = "The box cannot be asked now; its log goes on when it is back.";
        else if (name === "back") void load();
      },
      onLink(link) {
        if (!link.up) note.value = link.why ?? "";
      },
      onRefused: onStreamRefused,
    });
    return () => {
      gone = true;
      close();
    };
  }, [id, asked, live.value, online]);

  const shown = records.value.filter((record) => isAtLeast(record, level.value));
  useEffect(() => {
    // Stays at the end for whoever is at the end.
    const element = list.current;
    if (element && element.scrollHeight - element.scrollTop - element.clientHeight < 120) element.scrollTop = element.scrollHeight;
  }, [shown.length]);

  return (
    <>
      <div class="row">
        <label>
          Level{" "}
          <select value={level.value} onChange={(event) => (level.value = event.currentTarget.value as LogLevel)} data-testid="log-level">
            {LEVELS.map((one) => (
              <option key={one} value={one}>
                {one}
              </option>
            ))}
          </select>
        </label>
        <label>
          Actor, input or seat{" "}
          <input value={actor.value} maxLength={64} onChange={(event) => (actor.value = event.currentTarget.value.trim())} data-testid="log-actor" />
        </label>
        <label>
          <input type="checkbox" checked={live.value} onChange={(event) => (live.value = event.currentTarget.checked)} data-testid="log-live" /> Live
        </label>
        <span class="grow" />
        <span class="muted" role="status">
          {[note.value, leftOut.value > 0 ? `${leftOut.value} left out: they came too fast` : ""].filter(Boolean).join(" · ")}
        </span>
      </div>
      <ol class="log mono" ref={list} tabIndex={0} aria-label="Log records, oldest first">
        {shown.map((record) => (
          <li key={record.seq} class={levelMood(record.level)}>
            <time dateTime={record.ts}>{record.ts.slice(11, 23)}</time> <b>{record.level}</b> <span class="muted">{record.actor}</span> {record.message}{" "}
            <span class="muted">{fieldWords(record.fields)}</span>
          </li>
        ))}
      </ol>
      {shown.length === 0 && !note.value ? <p class="muted">Nothing of that kind.</p> : null}
    </>
  );
}
