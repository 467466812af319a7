// Watches one stream of the box in a video element, by WHEP or HLS, whichever works; `watching` decides, this does.

import { canHls, playHls } from "./hls.js";
import { Problem, wordsFor } from "./problem.js";
import { handle, ICE_LIMIT, start, type Abilities, type Effect, type Happening, type Watching } from "./watching.js";
import { boxDoor, whepSession, type WhepDoor } from "./whep.js";

export interface WatchOptions {
  name: string;
  audio: boolean;
  video: HTMLVideoElement;
  /** For viewers from outside. */
  token?: string | null;
  /** Where WHEP is, if not at the box that served the page. */
  door?: WhepDoor;
  /** What may be used, of what the browser can do; both when absent. */
  ways?: Abilities;
  onState(state: Watching): void;
}

/** Answers that HLS would get too. */
const hopeless = (error: unknown): boolean => error instanceof Problem && [401, 403, 404, 409].includes(error.status);

/** Keeps watching until the returned function is called. */
export function watch(options: WatchOptions): () => void {
  const { video, name, token } = options;
  const can: Abilities = {
    whep: (options.ways?.whep ?? true) && typeof RTCPeerConnection !== "undefined",
    hls: (options.ways?.hls ?? true) && canHls(),
  };
  let state = start;
  let stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stops: { whep: (() => void) | null; hls: (() => void) | null } = { whep: null, hls: null };

  function happens(happening: Happening): void {
    if (stopped) return;
    let effects: Effect[];
    [state, effects] = handle(state, happening, can);
    for (const effect of effects) carryOut(effect);
    options.onState(state);
  }

  function carryOut(effect: Effect): void {
    if (effect.do === "pause") {
      clearTimeout(timer);
      timer = setTimeout(() => happens({ what: "again" }), effect.after);
    } else if (effect.do === "stop") {
      stops[effect.way]?.();
      stops[effect.way] = null;
    } else if (effect.way === "whep") {
      void whep();
    } else {
      const query = token ? `?token=${encodeURIComponent(token)}` : "";
      const url = new URL(`/hls/${encodeURIComponent(name)}/index.m3u8${query}`, document.baseURI);
      stops.hls = playHls(
        video,
        url.href,
        () => happens({ what: "up", way: "hls" }),
        (why) => happens({ what: "down", way: "hls", why }),
      );
    }
  }

  async function whep(): Promise<void> {
    let stream: MediaStream | null = null;
    let end: (() => void) | null = null;
    const down: Happening = { what: "down", way: "whep", why: "ended" };
    try {
      down.why = await whepSession({
        door: options.door ?? boxDoor(name, token ?? null),
        audio: options.audio,
        iceLimit: ICE_LIMIT,
        onEnd: (stop) => (stops.whep = end = stop),
        onStream: (value) => (stream = value),
        onUp() {
          // First HLS lets go of the element, then the stream takes it.
          happens({ what: "up", way: "whep" });
          if (state.on !== "whep") return;
          video.srcObject = stream;
          void video.play().catch(() => undefined);
        },
      });
    } catch (error) {
      down.why = wordsFor(error);
      down.hopeless = hopeless(error);
      down.retryAfter = error instanceof Problem ? error.retryAfter : null;
    }
    if (stops.whep === end) stops.whep = null;
    if (stream && video.srcObject === stream) video.srcObject = null;
    happens(down);
  }

  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    removeEventListener("pagehide", stop);
    stops.whep?.();
    stops.hls?.();
    video.srcObject = null;
  };
  addEventListener("pagehide", stop);
  happens({ what: "start" });
  return stop;
}
