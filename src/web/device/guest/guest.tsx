// The guest's page: see yourself, press Join, be told in plain words what happens. Made for phones and for people in a hurry.
//
// `body` carries data-state (asking, ready, connecting, waiting, live, rejoining, failed, left), data-reason (the failure),
// data-tally, and data-preflight (running, good, doubtful, bad).

import "../../common/base.css";
import "./guest.css";
import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { State, Tally } from "../../common/contract.js";
import { openEvents } from "../../common/events.js";
import { Meter } from "../../common/meter.js";
import { failure, isFinal, type Failure } from "./failure.js";
import { gatherEvidence } from "./evidence.js";
import { follow, type Standing } from "./follow.js";
import { readLink } from "./link.js";
import { closeMedia, listDevices, measure, onDeviceLost, openMedia, type Choice, type Devices } from "./media.js";
import { isSettled, judge, mayJoin, nothingSeen, type Check, type Evidence } from "./preflight.js";
import type { Publishing } from "./publish.js";
import { Return } from "./return.js";
import { publish } from "./roads.js";
import { handle, start, type Happening, type Phase } from "./session.js";

const link = readLink(location);

const session = signal(start);
const media = signal<MediaStream | null>(null);
const devices = signal<Devices>({ cameras: [], microphones: [] });
const choice = signal<Choice>({ camera: "", microphone: "" });
const level = signal<number | null>(null);
const muted = signal(false);
const tally = signal<Tally>("none");
const seatLabel = signal<string>("");
/** In the waiting room, until the box says otherwise. */
const waiting = signal(link?.invited ?? false);
/** The crew has muted it. */
const silenced = signal(false);
const evidence = signal<Evidence>(nothingSeen);

let publishing: Publishing | null = null;
let pending: ReturnType<typeof setTimeout> | undefined;
let stopMeter: () => void = () => undefined;
let stopTally: (() => void) | null = null;
let stopFollowing: (() => void) | null = null;
let stopLooking: () => void = () => undefined;
let wakeLock: WakeLockSentinel | null = null;

function happen(happening: Happening): void {
  const [next, todo] = handle(session.value, happening);
  session.value = next;
  if (todo?.do === "connect") {
    clearTimeout(pending);
    pending = setTimeout(connect, todo.after);
  } else if (todo?.do === "hang-up") {
    clearTimeout(pending);
    publishing?.end();
    publishing = null;
    unfollow();
  }
  // With a link that opens nothing any more, nobody is filmed.
  if (next.phase === "failed" && next.failure && isFinal(next.failure.reason)) goDark();
}

const isFailure = (error: unknown): error is Failure => typeof error === "object" && error !== null && "reason" in error;

function useMedia(stream: MediaStream): void {
  stopMeter();
  stopMeter = measure(stream, (db) => (level.value = muted.value ? null : db));
  for (const track of stream.getAudioTracks()) track.enabled = !muted.value;
  onDeviceLost(stream, (why) => happen({ what: "failed", failure: why }));
  media.value = stream;
  look(stream);
  const of = (kind: "video" | "audio") => stream.getTracks().find((track) => track.kind === kind)?.getSettings().deviceId ?? "";
  choice.value = { camera: of("video"), microphone: of("audio") };
  void listDevices().then((list) => (devices.value = list));
}

/** The pre-flight: from the moment there are camera and microphone until the guest joins. */
function look(stream: MediaStream): void {
  stopLooking();
  evidence.value = nothingSeen;
  if (!link || publishing) return;
  stopLooking = gatherEvidence({
    link,
    media: stream,
    level: () => level.value,
    onEvidence: (seen) => (evidence.value = seen),
    onStanding: (standing) => (seatLabel.value = standing.name ?? ""),
    onRefused(why) {
      happen({ what: "failed", failure: why });
      stopLooking();
    },
  });
}

function stand(now: Standing): void {
  seatLabel.value = now.name ?? seatLabel.value;
  silenced.value = now.muted ?? false;
  if (now.state !== "outside") waiting.value = now.state === "waiting";
  // Where the box tells by itself, that is quicker.
  if (!stopTally) tally.value = now.tally ?? "none";
}

async function ask(): Promise<void> {
  happen({ what: "asked" });
  if (!link) {
    happen({ what: "failed", failure: failure("bad-link") });
    return;
  }
  try {
    closeMedia(media.value);
    useMedia(await openMedia(choice.value));
    happen({ what: "media-ready" });
  } catch (error) {
    happen({ what: "failed", failure: isFailure(error) ? error : failure("camera-busy") });
  }
}

async function choose(next: Choice): Promise<void> {
  const old = media.value;
  // Phones cannot hold two cameras open, so the old one is closed before the new one is asked for.
  closeMedia(old);
  try {
    const stream = await openMedia(next);
    useMedia(stream);
    for (const track of stream.getTracks()) publishing?.replace(track);
  } catch (error) {
    happen({ what: "failed", failure: isFailure(error) ? error : failure("camera-busy") });
  }
}

function connect(): void {
  const stream = media.value;
  if (!stream || !link) return;
  stopLooking();
  publishing?.end();
  publishing = publish({
    link,
    media: stream,
    onConnected() {
      happen({ what: "connected" });
      stopFollowing?.();
      stopFollowing = follow(link, { standing: stand, refused: (why) => happen({ what: "failed", failure: why }) });
      if (!link.afar) followTally(link.name, link.token);
      void keepAwake();
    },
    onLost: () => happen({ what: "lost" }),
    onFailed: (why) => happen({ what: "failed", failure: why }),
  });
}

function leave(): void {
  happen({ what: "left" });
  goDark();
}

/** Camera and microphone off, and nothing more is asked of the box. */
function goDark(): void {
  stopMeter();
  stopLooking();
  closeMedia(media.value);
  media.value = null;
  unfollow();
  void wakeLock?.release().catch(() => undefined);
  wakeLock = null;
}

function unfollow(): void {
  stopTally?.();
  stopFollowing?.();
  stopTally = stopFollowing = null;
  tally.value = "none";
}

/** Join, or join again after a failure: with the media that is open, else by asking for it first. */
async function join(): Promise<void> {
  const open = media.value?.getTracks().every((track) => track.readyState === "live") ?? false;
  if (!open) await ask();
  if (session.value.phase === "ready" || (open && session.value.phase === "failed")) happen({ what: "join" });
}

/** Where the box shows its state to guests, the page shows tally; where it does not, nothing is missing. */
function followTally(seat: string, token: string): void {
  stopTally ??= openEvents({
    url: "/api/events",
    headers: () => ({ authorization: `Bearer ${token}` }),
    // Without credentials: a box with a crew password must not make a guest's browser ask for it.
    credentials: "omit",
    silence: 40_000,
    onLink: (link) => {
      if (!link.up) tally.value = "none";
    },
    onEvent(name, data) {
      if (name !== "state") return;
      // A guest is told of its own seat and of nothing else.
      const mine = (JSON.parse(data) as State).inputs.find((input) => input.id === seat || link?.invited);
      tally.value = mine?.tally ?? "none";
      seatLabel.value = mine?.label ?? "";
    },
    onRefused: () => {
      stopTally = null;
      return true;
    },
  });
}

async function keepAwake(): Promise<void> {
  try {
    wakeLock = (await navigator.wakeLock?.request("screen")) ?? null;
  } catch {
    // The phone saves its battery; the guest may have to touch it now and then.
  }
}

addEventListener("pagehide", () => publishing?.end());
addEventListener("pageshow", (event) => {
  // Back from the browser's cache: camera and session are gone.
  if (event.persisted) location.reload();
});
addEventListener("visibilitychange", () => {
  if (!document.hidden && session.value.phase === "live") void keepAwake();
});
navigator.mediaDevices?.addEventListener?.("devicechange", () => void listDevices().then((list) => (devices.value = list)));

effect(() => {
  const { phase, failure: why } = session.value;
  const findings = judge(evidence.value);
  document.body.dataset.state = phase === "live" && waiting.value ? "waiting" : phase;
  document.body.dataset.reason = why?.reason ?? "";
  document.body.dataset.tally = phase === "live" && !waiting.value ? tally.value : "none";
  document.body.dataset.preflight = !isSettled(findings)
    ? "running"
    : !mayJoin(findings)
      ? "bad"
      : findings.every((finding) => finding.mood === "good")
        ? "good"
        : "doubtful";
});

const headlines: Record<Exclude<Phase, "failed"> | "waiting", [string, string]> = {
  waiting: ["You are in the waiting room", "The crew sees you, nobody else does. They will let you in; please stay on this page."],
  asking: ["Allow camera and microphone", "Your browser asks for them now. The crew sees you only after you press Join."],
  ready: ["Ready", "Check picture and sound, then press Join."],
  connecting: ["Connecting…", "This takes a few seconds."],
  live: ["You are connected", "The crew sees and hears you."],
  rejoining: ["Connection lost, rejoining…", "Please stay on this page."],
  left: ["You have left", "Camera and microphone are off. You can close this page."],
};

function Guest() {
  const { phase, failure: why } = session.value;
  const outside = phase === "live" && waiting.value;
  const on = phase === "live" && !outside ? tally.value : "none";
  const findings = judge(evidence.value);
  const [title, advice] =
    phase === "failed" && why
      ? [why.title, why.advice]
      : on === "programme"
        ? ["You are on air", "Everybody sees and hears you now."]
        : on === "preview"
          ? ["You are next", "Get ready: you may go on air any moment."]
          : headlines[outside ? "waiting" : (phase as Exclude<Phase, "failed">)];
  const busy = phase === "connecting" || phase === "asking";
  const over = phase === "failed" && why !== null && isFinal(why.reason);
  const inside = phase === "live" || phase === "rejoining";
  return (
    <main class={`guest ${outside ? "waiting" : phase} ${on}`}>
      <Mirror />
      {phase === "live" && !outside && link ? <Return link={link} /> : null}
      <div class="words" role={phase === "failed" ? "alert" : "status"} aria-live="polite" data-testid="message">
        <h1>{title}</h1>
        <p>{advice}</p>
        {over ? <p class="muted">Camera and microphone are off. You can close this page.</p> : null}
        {inside && silenced.value && !outside ? <p class="silenced">The crew has muted you for the moment.</p> : null}
      </div>
      {phase === "ready" ? <Preflight /> : null}
      {media.value ? (
        <div class="level">
          <span class="muted">{muted.value ? "Microphone off" : "Microphone"}</span>
          <Meter level={level} label="Microphone level" />
        </div>
      ) : null}
      <div class="buttons">
        {inside ? (
          <>
            <button
              data-testid="mute"
              aria-pressed={muted.value}
              onClick={() => {
                muted.value = !muted.value;
                for (const track of media.value?.getAudioTracks() ?? []) track.enabled = !muted.value;
              }}
            >
              {muted.value ? "Microphone on" : "Mute"}
            </button>
            <button id="leave" data-testid="leave" class="danger" onClick={leave}>
              Leave
            </button>
          </>
        ) : phase === "failed" ? (
          over ? null : (
            <button id="rejoin" data-testid="rejoin" class="primary big" onClick={() => void join()}>
              Try again
            </button>
          )
        ) : (
          <>
            <button id="join" data-testid="join" class="primary big" disabled={busy || (phase === "ready" && !mayJoin(findings))} onClick={() => void join()}>
              {phase === "left" ? "Join again" : phase === "connecting" ? "Connecting…" : "Join"}
            </button>
            {phase === "connecting" ? (
              <button id="leave" data-testid="leave" onClick={leave}>
                Cancel
              </button>
            ) : null}
          </>
        )}
      </div>
      {media.value ? <Pickers /> : null}
    </main>
  );
}

const names: Record<Check, string> = { camera: "Camera", microphone: "Microphone", codec: "Browser", network: "Network", box: "Box" };

function Preflight() {
  return (
    <ul class="preflight" aria-label="Checks before you join" data-testid="preflight">
      {judge(evidence.value).map(({ check, mood, words }) => (
        <li key={check} class={mood} data-testid={`check-${check}`} data-mood={mood}>
          <span class={`badge ${mood}`}>{names[check]}</span>
          <span>{words}</span>
        </li>
      ))}
    </ul>
  );
}

function Mirror() {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current) video.current.srcObject = media.value;
  }, [media.value]);
  return (
    <div class="picture mirror">
      <video ref={video} muted autoplay playsinline aria-label="Your camera" data-testid="self" />
      {media.value ? null : <span class="blank" aria-hidden="true" />}
      {seatLabel.value ? <span class="seat">{seatLabel.value}</span> : null}
    </div>
  );
}

function Pickers() {
  const { cameras, microphones } = devices.value;
  if (cameras.length + microphones.length < 1) return null;
  const pick = (kind: keyof Choice) => (event: Event) =>
    void choose({ ...choice.value, [kind]: (event.currentTarget as HTMLSelectElement).value });
  return (
    <div class="pickers">
      <label class="field">
        Camera
        <select data-testid="camera" value={choice.value.camera} onChange={pick("camera")}>
          {cameras.map((one) => (
            <option key={one.id} value={one.id}>
              {one.label}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        Microphone
        <select data-testid="microphone" value={choice.value.microphone} onChange={pick("microphone")}>
          {microphones.map((one) => (
            <option key={one.id} value={one.id}>
              {one.label}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

render(<Guest />, document.getElementById("app")!);
void ask();
