// One session of WHEP: recvonly offer, answer, and the reason of its end. Who tries again is `watch`.
//
// At the box the ICE servers are known first, and the offer has all candidates. By way of the fleet server they come with the
// answer (RFC 9725, section 4.6), and the candidates follow.

import { gathered, iceServers, linkedServers, type TurnAnswer } from "./ice.js";
import { json, Problem, send } from "./problem.js";
import { fragment } from "./trickle.js";

/** From the beginning to the answer, gathering included. */
const CONNECT_LIMIT = 14_000;
/** A connection that says "disconnected" has been silent for some seconds; within this time it often comes back. */
const DISCONNECT_GRACE = 3_000;

/** Candidates that come within this time of each other go in one request, in milliseconds. */
const BATCH = 20;

/** Where sessions are begun, and by what right. */
export interface WhepDoor {
  url: string;
  /** What every request shows, at the time when it is made. */
  headers(): Record<string, string>;
  /** The ICE servers; null when only the answer to the offer tells them. */
  servers: (() => Promise<RTCIceServer[]>) | null;
}

/** The door of the box that served this page; ICE servers are told to guests elsewhere than to viewers. */
export function boxDoor(name: string, token: string | null, iceFrom = "/api/turn-credentials"): WhepDoor {
  const headers = () => (token ? { authorization: `Bearer ${token}` } : ({} as Record<string, string>));
  return {
    url: `/whep/${encodeURIComponent(name)}`,
    headers,
    servers: async () =>
      iceServers(await json<TurnAnswer>(iceFrom, undefined, { headers: headers() }).catch(() => null)),
  };
}

export interface WhepSession {
  door: WhepDoor;
  audio: boolean;
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
  const { door } = options;
  let stop: (why: string) => void = () => undefined;
  const stopped = new Promise<string>((resolve) => (stop = resolve));
  options.onEnd(() => stop("stopped"));
  const servers = await door.servers?.();
  const peer = new RTCPeerConnection({ iceServers: servers ?? [], bundlePolicy: "max-bundle" });
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
    const offer = await peer.createOffer();
    if (servers) {
      await peer.setLocalDescription(offer);
      await gathered(peer, servers);
    }
    const response = await send(door.url, {
      method: "POST",
      headers: { ...door.headers(), "content-type": "application/sdp" },
      // The local description, not the offer: only it carries the candidates, if there are any yet.
      body: peer.localDescription?.sdp ?? offer.sdp ?? "",
    });
    location = response.headers.get("location");
    const answer = await response.text();
    if (!servers) {
      peer.setConfiguration({ iceServers: linkedServers(response.headers.get("link")), bundlePolicy: "max-bundle" });
      if (location) trickle(peer, offer.sdp ?? "", location, response.headers.get("etag") ?? "*", door);
      await peer.setLocalDescription(offer);
    }
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
    if (!up) {
      clearTimeout(limit);
      limit = setTimeout(() => stop("no route to the box"), options.iceLimit);
    }
    return await stopped;
  } finally {
    clearTimeout(limit);
    peer.onconnectionstatechange = null;
    peer.ontrack = null;
    peer.onicecandidate = null;
    peer.close();
    if (location) {
      const url = new URL(location, document.baseURI);
      void fetch(url, { method: "DELETE", keepalive: true, headers: door.headers() }).catch(() => undefined);
    }
  }
}

/** Sends candidates as they come, in their order. One that is lost costs a path; the others may do. */
function trickle(peer: RTCPeerConnection, offer: string, location: string, tag: string, door: WhepDoor): void {
  const url = new URL(location, document.baseURI);
  let waiting: string[] = [];
  let batch: ReturnType<typeof setTimeout> | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  const flush = () => {
    batch = undefined;
    const body = fragment(offer, waiting);
    waiting = [];
    const headers = { ...door.headers(), "content-type": "application/trickle-ice-sdpfrag", "if-match": tag };
    turn = turn.then(() => send(url.href, { method: "PATCH", headers, body })).catch(() => undefined);
  };
  peer.onicecandidate = (event) => {
    waiting.push(event.candidate?.candidate ?? "");
    batch ??= setTimeout(flush, BATCH);
  };
}
