// One box in full: pictures, figures, actors, what can be done to it, and what was done.

import { useEffect } from "preact/hooks";
import { Actors } from "../common/actors.js";
import { diskPercent, duration, figure, expiry } from "../common/format.js";
import { turnWords } from "../common/words.js";
import { Bundles } from "./bundles.js";
import { Charts } from "./charts.js";
import { Configuration } from "./configuration.js";
import type { Detail } from "./contract.js";
import { Edit } from "./edit.js";
import { Guests } from "./guests.js";
import { History } from "./history.js";
import { Logs } from "./logs.js";
import { Operations } from "./operations.js";
import { absence, Ago, Bar, Degradation, InputThumb, LiveThumb, Online } from "./parts.js";
import { home, Link } from "./router.js";
import { mayOperate } from "./session.js";
import { closeDevice, detail, detailError, loadDevice, now, openDevice } from "./store.js";

export function Device({ id }: { id: string }) {
  useEffect(() => {
    openDevice.value = id;
    void loadDevice(id);
    return closeDevice;
  }, [id]);
  const box = detail.value;
  return (
    <main class="device">
      <nav>
        <Link to={home()}>‹ All boxes</Link>
      </nav>
      {detailError.value ? (
        <p class="error" role="alert">
          {detailError.value}
        </p>
      ) : null}
      {box ? <Body box={box} id={id} /> : detailError.value ? null : <p class="muted pad">Loading…</p>}
    </main>
  );
}

function Body({ box, id }: { box: Detail; id: string }) {
  const inputs = box.inputs ?? [];
  const actors = box.actors ?? [];
  return (
    <>
      <header class="head">
        <h1>{box.name}</h1>
        <Online card={box} />
        <Degradation level={box.degradation_level} />
        <span class="muted">
          {id}
          {box.version ? ` · v${box.version}` : ""}
          {box.target_version && box.target_version !== box.version ? ` (should be v${box.target_version})` : ""}
          {box.location ? ` · ${box.location}` : ""} {absence(box) ? ` · ${absence(box)}` : ""} · last seen <Ago at={box.last_seen} />
        </span>
        {(box.tags ?? []).map((tag) => (
          <span class="tag muted" key={tag}>
            {tag}
          </span>
        ))}
        <span class="grow" />
        {mayOperate.value && box.status !== "decommissioned" ? <Edit box={box} id={id} /> : null}
      </header>
      {box.notes ? <p class="notes muted">{box.notes}</p> : null}
      <div class="split">
        <section class="panel" aria-label="Pictures">
          <LiveThumb device={id} name="programme" label={`Programme of ${box.name}`} of="the programme" can={box.online} class="programme">
            <span class="what cut-off">{sceneLabel(box, box.programme?.scene)}</span>
          </LiveThumb>
          <div class="inputs large">
            {inputs.map((input) => (
              <InputThumb key={input.id} device={id} input={input} large away={!box.online} />
            ))}
          </div>
        </section>
        <div class="stack">
          {mayOperate.value && box.status !== "decommissioned" ? <Operations box={box} id={id} /> : null}
          {mayOperate.value && box.online ? <Guests box={box} id={id} /> : null}
          <Figures box={box} />
        </div>
      </div>
      <Charts box={box} id={id} />
      <History />
      {mayOperate.value ? <Configuration box={box} id={id} /> : null}
      {mayOperate.value ? <Bundles id={id} /> : null}
      <Logs id={id} online={box.online} />
      <section class="panel">
        <h2>Actors</h2>
        <Actors actors={actors} />
      </section>
      <details class="panel">
        <summary>Raw heartbeat and reported state</summary>
        <div class="raw">
          <pre data-testid="raw-heartbeat" tabIndex={0} aria-label="Heartbeat">{JSON.stringify(box.heartbeat ?? null, null, 2)}</pre>
          <pre tabIndex={0} aria-label="Reported state">{JSON.stringify(box.reported ?? null, null, 2)}</pre>
        </div>
      </details>
    </>
  );
}

const sceneLabel = (box: Detail, scene: string | null | undefined): string =>
  box.reported?.scenes?.find((one) => one.id === scene)?.label ?? scene ?? "no scene reported";

function Figures({ box }: { box: Detail }) {
  const beat = box.heartbeat;
  const load = beat?.metrics?.load_avg;
  const rows: [string, string][] = [
    ["Programme", `${figure(box.programme?.fps, 1)} fps, ${box.programme?.missed_slots ?? "–"} slots missed`],
    ["Temperature", typeof box.temperature_c === "number" ? `${figure(box.temperature_c, 0)} °C` : "not measured"],
    ["Uptime", duration(beat?.uptime_seconds)],
    ["Load average", Array.isArray(load) ? load.join(", ") : load === undefined || load === null ? "–" : String(load)],
    ["Recording", beat?.status?.recording_active ? "yes" : "no"],
    ["TURN", turnWords(beat?.turn?.provider).words + (beat?.turn?.expires_at ? `, ${expiry(beat.turn.expires_at, now.value)}` : "")],
    ["Outbox", `${beat?.outbox?.pending ?? "–"} waiting, ${beat?.outbox?.dropped ?? "–"} dropped`],
    ["Starts so far", beat?.boot_seq === undefined ? "–" : String(beat.boot_seq)],
  ];
  return (
    <section class="panel" aria-label="Figures">
      <h2>Heartbeat</h2>
      <div class="bars">
        <Bar name="CPU" value={box.cpu_percent} />
        <Bar name="Memory" value={box.mem_percent} />
        <Bar
          name="Disk"
          value={diskPercent(box.disk_free_gb, box.disk_total_gb)}
          text={typeof box.disk_free_gb === "number" ? `${figure(box.disk_free_gb, 0)} GB free` : undefined}
        />
      </div>
      <dl class="figures">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {(box.errors ?? []).length > 0 ? (
        <ul class="errors">
          {(box.errors ?? []).map((error, index) => (
            <li key={index}>{error}</li>
          ))}
        </ul>
      ) : null}
    </section>
  );
}
