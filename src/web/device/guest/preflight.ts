// What is checked before a guest goes on air, and what it means in words for somebody who has never heard of WebRTC. Pure: the
// page brings the evidence and shows the findings.

export type Check = "camera" | "microphone" | "codec" | "network" | "box";
export type Mood = "busy" | "good" | "warn" | "bad";

export interface Finding {
  check: Check;
  mood: Mood;
  words: string;
}

/** What was seen so far. */
export interface Evidence {
  /** Milliseconds since camera and microphone were opened. */
  elapsed: number;
  /** New pictures of the camera since then. */
  frames: number;
  /** Softest and loudest level of the microphone in dBFS; null before the first was measured. */
  levels: { softest: number; loudest: number } | null;
  /** Video codecs that this browser can send, by MIME type; null where it does not say. */
  codecs: readonly string[] | null;
  ice: {
    /** Were any TURN servers given? */
    turn: boolean;
    /** Candidate lines that were gathered. */
    candidates: readonly string[];
    done: boolean;
    /** Did anything come through the relay? */
    relay: "untried" | "running" | "through" | "lost";
  };
  /** Milliseconds that small requests to the box took. */
  roundTrips: readonly number[];
  /** Why the box did not answer, in a sentence; it is asked again. */
  refused: string | null;
}

export const nothingSeen: Evidence = {
  elapsed: 0,
  frames: 0,
  levels: null,
  codecs: null,
  ice: { turn: false, candidates: [], done: false, relay: "untried" },
  roundTrips: [],
  refused: null,
};

/** A camera that has not given a picture by then gives none: the slowest wake up in two seconds (milliseconds). */
const CAMERA_PATIENCE = 4_000;
/** As long a microphone may be silent before that is remarkable: people look at the picture first (milliseconds). */
const SOUND_PATIENCE = 5_000;
/** Softer than this is the noise of the device itself, in dBFS. */
const SILENT = -65;
/** A level that moves by less than this is a hum and not a voice, in dB. */
const MOVES = 6;
/** A conversation is comfortable up to there, there and back, in milliseconds. */
const SLOW = 300;

const middle = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

function camera({ frames, elapsed }: Evidence): Finding {
  if (frames >= 2) return { check: "camera", mood: "good", words: "Your camera works." };
  if (elapsed < CAMERA_PATIENCE) return { check: "camera", mood: "busy", words: "Looking at your camera…" };
  return { check: "camera", mood: "bad", words: "Your camera gives no picture: another program may hold it, or its cover is closed." };
}

function microphone({ levels, elapsed }: Evidence): Finding {
  const say = (mood: Mood, words: string): Finding => ({ check: "microphone", mood, words });
  if (levels && levels.loudest > SILENT && levels.loudest - levels.softest >= MOVES) return say("good", "Your microphone hears you.");
  if (elapsed < SOUND_PATIENCE) return say("busy", "Say something: your microphone is being listened to…");
  if (!levels || levels.loudest <= SILENT) {
    return say("warn", "Your microphone is silent: say something, and see whether it is muted or another one is meant.");
  }
  return say("warn", "Your microphone hears an even noise and no voice: say something, or choose another one.");
}

function codec({ codecs }: Evidence): Finding {
  const say = (mood: Mood, words: string): Finding => ({ check: "codec", mood, words });
  if (codecs === null) return say("good", "This browser does not say how it sends pictures; it will be tried.");
  const has = (type: string) => codecs.some((one) => one.toLowerCase() === type);
  if (has("video/h264")) return say("good", "This browser sends pictures that the box can read (H.264).");
  if (has("video/vp8")) return say("good", "This browser sends pictures that the box can read (VP8).");
  return say("bad", "This browser cannot send pictures that the box reads: try a current Chrome, Safari, Edge or Firefox.");
}

/** Type and transport of a candidate line. */
function sort(line: string): { type: string; relayedBy: string } {
  const type = / typ (\w+)/.exec(line)?.[1] ?? "";
  // Chrome says by which transport it reached its relay; by the priority's upper bits: 2 UDP, 1 TCP, 0 TLS (RFC 8445, 5.1.2).
  const preference = Number(line.split(" ")[3] ?? 0) >>> 24;
  return { type, relayedBy: type !== "relay" ? "" : preference === 0 ? "TLS" : preference === 1 ? "TCP" : "UDP" };
}

function network({ ice, refused }: Evidence): Finding {
  const say = (mood: Mood, words: string): Finding => ({ check: "network", mood, words });
  if (refused !== null && ice.candidates.length === 0) return say("warn", "Ways out of your network are looked for as soon as the box answers.");
  const found = ice.candidates.filter((line) => line !== "").map(sort);
  const relays = found.filter((one) => one.type === "relay");
  const outside = found.some((one) => one.type === "srflx" || one.type === "prflx");
  if (ice.relay === "through") {
    const by = relays.some((one) => one.relayedBy === "UDP") ? "" : ", by a detour that strict firewalls allow";
    return say("good", `Picture and sound find their way out of your network${by}.`);
  }
  if (!ice.done || ice.relay === "running") return say("busy", "Looking for ways out of your network…");
  if (found.length === 0) return say("bad", "Your browser finds no network at all: a privacy setting or an extension may forbid WebRTC.");
  if (ice.relay === "lost") {
    return say("warn", "A relay answered but carried nothing: if you cannot join, try mobile data instead of this Wi-Fi.");
  }
  if (ice.turn && relays.length === 0) {
    const rest = outside ? "picture and sound must find a direct way" : "and no direct way out was found either";
    return say("warn", `No relay can be reached from your network: ${rest}. If you cannot join, try mobile data instead of this Wi-Fi.`);
  }
  if (outside) return say("good", "Your network lets picture and sound out directly.");
  return say("good", "Your network works here; nobody tells this page of ways beyond it.");
}

function box({ roundTrips, refused }: Evidence): Finding {
  const say = (mood: Mood, words: string): Finding => ({ check: "box", mood, words });
  if (refused !== null) return say("bad", refused);
  if (roundTrips.length === 0) return say("busy", "Asking the box…");
  const usual = Math.round(middle(roundTrips));
  if (usual > SLOW) return say("warn", `The box answers slowly, after ${usual} ms: conversation will lag.`);
  return say("good", `The box answers after ${usual} ms.`);
}

/** One finding for each check, in the order in which they are shown. */
export const judge = (evidence: Evidence): Finding[] => [camera(evidence), microphone(evidence), codec(evidence), network(evidence), box(evidence)];

/** Nothing that would keep the guest out for certain; what is still looked at, or doubtful, keeps nobody waiting. */
export const mayJoin = (findings: readonly Finding[]): boolean => findings.every((finding) => finding.mood !== "bad");

/** All checks have come to an end. */
export const isSettled = (findings: readonly Finding[]): boolean => findings.every((finding) => finding.mood !== "busy");
