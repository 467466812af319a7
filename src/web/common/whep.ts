// Watches one stream of the box by WHEP: recvonly offer with all candidates, answer, and back again after a failure.

import { backoff } from "./backoff.js";
import { gathered, iceServers, type TurnAnswer } from "./ice.js";
import { json, Problem, send, wordsFor } from "./problem.js";

export type WhepState = "connecting" | "playing" | "waiting";

export interface WhepOptions {
  name: string;
  audio: boolean;
  onStream(stream: MediaStream | null): void;
  onState(state: WhepState, why: string | null): void;
}

/** From the beginning to connected, gathering included; after that thumbnails have to do until the next attempt. */
const CONNECT_LIMIT = 14_000;
/** A connection that says "disconnected" has been silent for some seconds; within this time it often comes back. */
const DISCONNECT_GRACE = 3_000;

/** Keeps watching until the returned function is called. */
export function watchWhep(options: WhepOptions): () => void {
  let stopped = false;
  let attempt = 0;
  let end: (() => void) | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;

  async function run(): Promise<void> {
    if (stopped) return;
    options.onState("connecting", null);
    let why: string;
    let wait: number | null = null;
    try {
      why = await session(options, (stop) => (end = stop), () => (attempt = 0));
    } catch (error) {
      why = wordsFor(error);
      if (error instanceof Problem && error.retryAfter !== null) wait = error.retryAfter * 1_000;
    }
    end = null;
    if (stopped) return;
    options.onStream(null);
    options.onState("waiting", why);
    timer = setTimeout(() => void run(), wait ?? backoff(attempt++, Math.random(), 1_000, 20_000));
  }

  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    removeEventListener("pagehide", stop);
    end?.();
    options.onStream(null);
  };
  addEventListener("pagehide", stop);
  void run();
  return stop;
}

/** One session from offer to end; resolves with the reason of its end. */
async function session(options: WhepOptions, onEnd: (stop: () => void) => void, onUp: () => void): Promise<string> {
  if (typeof RTCPeerConnection === "undefined") throw new Problem(0, "WebRTC is not available in this browser");
  const turn = await json<TurnAnswer>("/api/turn-credentials").catch(() => null);
  const servers = iceServers(turn);
  const peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" });
  let location: string | null = null;
  try {
    const stream = new MediaStream();
    const ended = new Promise<string>((resolve) => {
      onEnd(() => resolve("stopped"));
      let limit = setTimeout(() => resolve("no route to the box"), CONNECT_LIMIT);
      peer.onconnectionstatechange = () => {
        if (peer.connectionState === "connected") {
          clearTimeout(limit);
          onUp();
          options.onState("playing", null);
        } else if (peer.connectionState === "disconnected") {
          limit = setTimeout(() => resolve("connection lost"), DISCONNECT_GRACE);
        } else if (peer.connectionState === "failed") {
          clearTimeout(limit);
          resolve("connection lost");
        }
      };
      peer.ontrack = (event) => {
        stream.addTrack(event.track);
        options.onStream(stream);
        // A box that ends the session says so by DTLS at once.
        const dtls = event.receiver.transport;
        if (dtls) dtls.onstatechange = () => dtls.state === "closed" && resolve("ended by the box");
      };
    });
    peer.addTransceiver("video", { direction: "recvonly" });
    if (options.audio) peer.addTransceiver("audio", { direction: "recvonly" });
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer, servers);
    const response = await send(`/whep/${encodeURIComponent(options.name)}`, {
      method: "POST",
      headers: { "content-type": "application/sdp" },
      // The local description, not the offer: only it carries the candidates.
      body: peer.localDescription?.sdp ?? "",
    });
    location = response.headers.get("location");
    await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    return await ended;
  } finally {
    peer.onconnectionstatechange = null;
    peer.ontrack = null;
    peer.close();
    if (location) {
      const url = new URL(location, document.baseURI);
      void fetch(url, { method: "DELETE", keepalive: true }).catch(() => undefined);
    }
  }
}
