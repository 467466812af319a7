// The box from the inside: its actors, the encoder it chose and why, who serves TURN, the fleet link, what the governor does.

import "../../common/base.css";
import "../device.css";
import "./status.css";
import { signal } from "@preact/signals";
import { render, type ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Actors } from "../../common/actors.js";
import { rejectedEncoders, type ActorReport, type MixerStatus, type State } from "../../common/contract.js";
import { ago, duration, figure, sentence, expiry } from "../../common/format.js";
import { json, wordsFor } from "../../common/problem.js";
import { degradationWords, fleetWords, signalWords, turnRoadWords, turnWords, type Mood } from "../../common/words.js";
import { followBox, link, now, state } from "../box.js";
import { LostBanner } from "../lost.js";

const actors = signal<ActorReport[] | null>(null);
const mixer = signal<MixerStatus | null>(null);
const uptime = signal<number | null>(null);
const failed = signal<string | null>(null);

/** The tree has no push of its own; every two seconds is what an eye follows. */
const LOOK = 2_000;

async function look(): Promise<void> {
  if (document.hidden) return;
  try {
    const [tree, status, health] = await Promise.all([
      json<{ actors: ActorReport[] }>("/api/actors"),
      json<MixerStatus>("/api/mixer/status").catch(() => null),
      json<{ uptime_seconds?: number }>("/health").catch(() => null),
    ]);
    actors.value = tree.actors ?? [];
    mixer.value = status;
    uptime.value = health?.uptime_seconds ?? null;
    failed.value = null;
  } catch (error) {
    failed.value = wordsFor(error);
  }
}

function Status() {
  useEffect(() => {
    void look();
    const timer = setInterval(() => void look(), LOOK);
    return () => clearInterval(timer);
  }, []);
  const box = state.value;
  return (
    <div class="status">
      <LostBanner />
      <header class="strip">
        <h1 class="cut-off">{box?.device.name ?? "R58"}</h1>
        <span class="muted grow">
          {box ? `${box.device.id} · version ${box.device.version ?? "–"}` : ""}
          {uptime.value === null ? "" : ` · up ${duration(uptime.value)}`}
        </span>
        <nav>
          <a href="/">Switcher</a>
        </nav>
      </header>
      <main class="stack">
        {box ? <Facts box={box} /> : <p class="muted pad">{link.value.why ? "The box does not answer." : "Connecting to the box…"}</p>}
        <section class="panel">
          <div class="row spread">
            <h2>Actors</h2>
            {failed.value ? <span class="badge bad">not refreshed: {failed.value}</span> : null}
          </div>
          {actors.value ? <Actors actors={actors.value} /> : <p class="muted">Loading…</p>}
        </section>
      </main>
    </div>
  );
}

function Facts({ box }: { box: State }) {
  const { programme, turn, fleet, degradation } = box;
  const fleetState = fleetWords(fleet.state);
  const load = degradationWords(degradation.level);
  const relay = turnWords(turn.provider, turn.stale);
  const encoder = mixer.value?.encoder ?? programme.encoder ?? null;
  const rejected = rejectedEncoders(encoder?.rejected);
  const sessions = programme.encoder?.sessions;
  const longest = mixer.value?.stats?.longest_gap_ms;
  return (
    <div class="facts">
      <Card name="Programme" badge={`${figure(programme.fps, 1)} fps`} mood={programme.fps >= 1 ? "good" : "bad"}>
        <Line name="Mode" value={`${programme.width} × ${programme.height}`} />
        <Line name="Frames" value={String(programme.frames)} />
        <Line name="Missed slots" value={String(programme.missed_slots)} />
        {typeof longest === "number" ? <Line name="Longest gap" value={figure(longest, 1, "ms")} /> : null}
        <Line name="Scene" value={programme.scene ?? "–"} />
        <Line name="Viewers" value={String(programme.viewers ?? 0)} />
      </Card>
      <Card name="Encoder" badge={encoder?.name ?? "none"} mood={encoder ? "good" : "bad"}>
        <p>{encoder?.reason ?? ""}</p>
        {sessions ? <Line name="In hardware" value={sessions.most > 0 ? `${sessions.hardware} of ${sessions.most}` : String(sessions.hardware)} /> : null}
        {sessions ? <Line name="In software" value={String(sessions.software)} /> : null}
        {rejected.length > 0 ? (
          <>
            <h3 class="muted">Tried and not taken</h3>
            <ul>
              {rejected.map((one) => (
                <li key={one.name}>
                  <b>{one.name}</b>: {one.why}
                </li>
              ))}
            </ul>
          </>
        ) : null}
      </Card>
      <Card name="TURN" badge={turn.stale ? "stale" : relay.mood === "good" ? "ready" : "no relay"} mood={relay.mood}>
        <Line name="Served by" value={relay.words} />
        {(turn.roads ?? []).map((road) => (
          <Line key={road.server} name={road.server} value={turnRoadWords(road)} />
        ))}
        {(turn.roads ?? []).map((road) => (road.last_error ? <p key={road.server} class="muted">{sentence(road.last_error)}</p> : null))}
        <Line name="Credentials" value={turn.provider ? sentence(expiry(turn.expires_at, now.value)) : "–"} />
        {turn.stale ? <p class="muted">The provider is away; these credentials are still valid and are used until they expire.</p> : null}
        {relay.mood === "good" || turn.stale ? null : <p class="muted">Guests behind strict firewalls may not get in.</p>}
      </Card>
      <Card name="Fleet link" badge={fleetState.words} mood={fleetState.mood}>
        <Line name="Since" value={fleet.since ? ago(fleet.since, now.value) : "–"} />
        {fleet.last_error ? <p class="muted">{fleet.last_error}</p> : null}
      </Card>
      <Card name="Load" badge={`level ${degradation.level}`} mood={load.mood}>
        <p>{sentence(load.words)}</p>
        {degradation.reasons.map((reason) => (
          <p key={reason} class="muted">
            {reason}
          </p>
        ))}
        <Line name="Live input pictures" value={box.whep_inputs ? "allowed" : "switched off"} />
      </Card>
      <Card name="Inputs" badge={`${box.inputs.filter((input) => signalWords(input.signal).mood === "good").length} of ${box.inputs.length} live`} mood="idle">
        {box.inputs.map((input) => (
          <div class="line" key={input.id}>
            <span>{input.label}</span>
            <span class={signalWords(input.signal).mood}>{signalWords(input.signal).words}</span>
          </div>
        ))}
      </Card>
    </div>
  );
}

function Card(props: { name: string; badge: string; mood: Mood; children: ComponentChildren }) {
  return (
    <section class="panel card">
      <div class="row spread">
        <h2>{props.name}</h2>
        <span class={`badge ${props.mood}`}>{props.badge}</span>
      </div>
      {props.children}
    </section>
  );
}

function Line({ name, value }: { name: string; value: string }) {
  return (
    <div class="line">
      <span class="muted">{name}</span>
      <span>{value}</span>
    </div>
  );
}

followBox();
render(<Status />, document.getElementById("app")!);
