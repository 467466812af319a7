// One session of WHEP: recvonly offer with all candidates, answer, and the reason of its end. Who tries again is `watch`.

import { gathered, iceServers, type TurnAnswer } from "./ice.js";
import { json, Problem, send } from "./problem.js";

/** From the beginning to the answer, gathering included. */
const CONNECT_LIMIT = 14_000;
/** A connection that says "disconnected" has been silent for some seconds; within this time it often comes back. */
const DISCONNECT_GRACE = 3_000;

export interface WhepSession {
  name: string;
  audio: boolean;
  /** For viewers from outside. */
  token: string | null;
  /** Where ICE servers are told, for guests who may not ask where viewers do. */
  iceFrom?: string;
  /** From the answer to a connection, in milliseconds; the whole may take CONNECT_LIMIT. */
  iceLimit: number;
  /** Told how to end it, before anything else. */
  onEnd(stop: () => void): void;
  /** Told of the stream when its first track is there. */
  onStream(stream: MediaStream): void;
  /** Connected; also after an interruption. */
  onUp(): void;
}

/** One session from offer to end; resolves with the reason of its end. */
export async function whepSession(options: WhepSession): Promise<string> {
  if (typeof RTCPeerConnection === "undefined") throw new Problem(0, "WebRTC is not available in this browser");
  const bearer = options.token ? { authorization: `Bearer ${options.token}` } : undefined;
  let stop: (why: string) => void = () => undefined;
  const stopped = new Promise<string>((resolve) => (stop = resolve));
  options.onEnd(() => stop("stopped"));
  const turn = await json<TurnAnswer>(options.iceFrom ?? "/api/turn-credentials", undefined, { headers: bearer }).catch(() => null);
  const servers = iceServers(turn);
  const peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" });
  let location: string | null = null;
  let limit = setTimeout(() => stop("no route to the box"), CONNECT_LIMIT);
  try {
    const stream = new MediaStream();
    let up = false;
    peer.onconnectionstatechange = () => {
      if (peer.connectionState === "connected") {
        clearTimeout(limit);
        if (!up) options.onUp();
        up = true;
      } else if (peer.connectionState === "disconnected") {
        limit = setTimeout(() => stop("connection lost"), DISCONNECT_GRACE);
      } else if (peer.connectionState === "failed") {
        stop("connection lost");
      }
    };
    peer.ontrack = (event) => {
      stream.addTrack(event.track);
      options.onStream(stream);
      // A box that ends the session says so by DTLS at once.
      const dtls = event.receiver.transport;
      if (dtls) dtls.onstatechange = () => dtls.state === "closed" && stop("ended by the box");
    };
    peer.addTransceiver("video", { direction: "recvonly" });
    if (options.audio) peer.addTransceiver("audio", { direction: "recvonly" });
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer, servers);
    const response = await send(`/whep/${encodeURIComponent(options.name)}`, {
      method: "POST",
      headers: { ...bearer, "content-type": "application/sdp" },
      // The local description, not the offer: only it carries the candidates.
      body: peer.localDescription?.sdp ?? "",
    });
    location = response.headers.get("location");
    await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    if (!up) {
      clearTimeout(limit);
      limit = setTimeout(() => stop("no route to the box"), options.iceLimit);
    }
    return await stopped;
  } finally {
    clearTimeout(limit);
    peer.onconnectionstatechange = null;
    peer.ontrack = null;
    peer.close();
    if (location) {
      const url = new URL(location, document.baseURI);
      void fetch(url, { method: "DELETE", keepalive: true, headers: bearer }).catch(() => undefined);
    }
  }
}
