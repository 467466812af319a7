// Sends camera and microphone to a seat by WHIP (RFC 9725): an offer at once, candidates as they come, an ICE restart when the
// network changes (the seat and the place in the scene stay), DELETE at the end. The same to the SFU that the box fetches from,
// which needs no candidates and knows no restart. This is one attempt; roads.ts makes another one by another road.

import { videoPreference } from "../../common/codecs.js";
import { Problem, send } from "../../common/problem.js";
import { callOf, followCall } from "./call.js";
import { answerFailure, failure, type Failure } from "./failure.js";
import { whipOf, type GuestLink } from "./link.js";
import type { Attempt } from "./road.js";
import { DISCONNECT_GRACE } from "./session.js";
import { fragment, merged } from "../../common/trickle.js";

/** Enough for 1280x720p30 by H.264 in hardware; the browser goes lower by itself when the network asks for it. */
const MAX_BITRATE = 2_500_000;
/** From POST to an answer, in milliseconds. The box answers in a few. */
const ANSWER_LIMIT = 10_000;
/** Candidates that come within this time of each other go in one request, in milliseconds. */
const BATCH = 20;
/** How long each restart has to bring the connection back, in milliseconds: the first may have come before the new network was
 * good for anything. After the last one it is given up for a fresh join. */
const RESTART_LIMITS = [3_000, 6_000];

/** Browsers say "online" before they know the addresses of the new network; a restart without any is one for nothing (milliseconds;
 * tried with Chromium: at once fails more often than not). */
const SETTLE = 300;

export interface Publishing {
  /** Ends the session: DELETE, then close. Also fit for the moment when the page goes away. Resolves when the box knows. */
  end(): Promise<void>;
  replace(track: MediaStreamTrack): void;
}

export interface PublishByOptions {
  link: GuestLink;
  media: MediaStream;
  servers: RTCIceServer[];
  attempt: Attempt;
  onConnected(): void;
  /** The connection was up and is lost. */
  onLost(): void;
  /** It did not come about; `gone` resolves when the box knows that it is over. */
  onFailed(failure: Failure, gone: Promise<void>): void;
}

export function publishBy(options: PublishByOptions): Publishing {
  const { attempt } = options;
  const bySfu = attempt.by === "sfu";
  const authorization = { authorization: `Bearer ${options.link.token}` };
  let ended = false;
  let location: string | null = null;
  let peer: RTCPeerConnection | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let up = false;
  let answered = "";
  let tag = "";
  /** The description whose candidates are being sent, and those that wait. */
  let described = "";
  let waiting: string[] = [];
  let batch: ReturnType<typeof setTimeout> | undefined;
  let restarting = false;
  let unfollow: () => void = () => undefined;
  /** Restarts since the connection was lost or its network changed; 0 while it is up. */
  let restarts = 0;
  /** Requests go one after the other: a fragment never overtakes the restart before it. */
  let turn: Promise<unknown> = Promise.resolve();

  /** Ends what is said about candidates of a network that is gone. */
  let candidates = new AbortController();

  function patch(body: string, match: string, signal: AbortSignal): Promise<Response> {
    const request = turn.then(() =>
      send(new URL(location ?? "", document.baseURI).href, {
        method: "PATCH",
        headers: { ...authorization, "content-type": "application/trickle-ice-sdpfrag", "if-match": match },
        credentials: "omit",
        body,
        signal,
      }),
    );
    turn = request.catch(() => undefined);
    return request;
  }

  /** Sends the candidates that wait, once there is a session to send them to. */
  function flush(): void {
    batch = undefined;
    if (ended || !location || restarting || waiting.length === 0) return;
    const body = fragment(described, waiting);
    waiting = [];
    // A candidate that is lost costs a path; the others may do.
    void patch(body, tag, candidates.signal).catch(() => undefined);
  }

  function onCandidate(event: RTCPeerConnectionIceEvent): void {
    waiting.push(event.candidate?.candidate ?? "");
    batch ??= setTimeout(flush, BATCH);
  }

  /** The same session by another network: new credentials and candidates on both sides, the same tracks. */
  async function restart(): Promise<void> {
    if (ended || restarting || !peer || !location) return;
    // The SFU takes no new path: a new join does.
    if (bySfu) return fail(failure("no-route"));
    restarting = true;
    clearTimeout(timer);
    const limit = RESTART_LIMITS[restarts++] ?? 0;
    timer = setTimeout(judge, limit);
    candidates.abort();
    candidates = new AbortController();
    try {
      waiting = [];
      const offer = await peer.createOffer({ iceRestart: true });
      await peer.setLocalDescription(offer);
      described = offer.sdp ?? "";
      const response = await patch(fragment(described, []), "*", AbortSignal.timeout(limit));
      tag = response.headers.get("etag") ?? "";
      answered = merged(answered, await response.text());
      if (!ended) await peer.setRemoteDescription({ type: "answer", sdp: answered });
    } catch (error) {
      // The box knows the session no more: join afresh at once. All else may do at the next change of the network, or the
      // time limit ends it.
      if (error instanceof Problem && [401, 403, 404].includes(error.status)) fail(failure("no-route"));
    } finally {
      restarting = false;
      flush();
    }
  }

  /** Whether the last restart brought the connection back; if not, there is another one, or the end. */
  function judge(): void {
    if (isBack()) restarts = 0;
    else if (restarting) timer = setTimeout(judge, 100);
    else if (restarts < RESTART_LIMITS.length) void restart();
    else fail(failure("no-route"));
  }

  /** A connection by a path that is gone says "connected" for some seconds more, so the path has to be one of this session. */
  function isBack(): boolean {
    const pair = peer?.getSenders()[0]?.transport?.iceTransport?.getSelectedCandidatePair?.();
    const ours = pair?.local?.usernameFragment;
    const fresh = !ours || described.includes(`a=ice-ufrag:${ours}`);
    return fresh && peer?.connectionState === "connected";
  }

  function end(): Promise<void> {
    if (ended) return Promise.resolve();
    ended = true;
    unfollow();
    clearTimeout(timer);
    clearTimeout(batch);
    removeEventListener("online", onOnline);
    return hangUp();
  }

  const onOnline = () => {
    restarts = 0;
    clearTimeout(timer);
    timer = setTimeout(() => void restart(), SETTLE);
  };

  function hangUp(): Promise<void> {
    let gone: Promise<unknown> = Promise.resolve();
    if (location) {
      gone = fetch(new URL(location, document.baseURI), {
        method: "DELETE",
        headers: authorization,
        keepalive: true,
        credentials: "omit",
      }).catch(() => undefined);
      location = null;
    }
    peer?.close();
    return gone.then(() => undefined);
  }

  function fail(why: Failure): void {
    if (ended) return;
    const gone = end();
    if (up) options.onLost();
    else options.onFailed(why, gone);
  }

  /** In, as far as the guest can know: the box has its media, or the box is what it is connected to. */
  function arrived(): void {
    clearTimeout(timer);
    if (up || ended) return;
    up = true;
    options.onConnected();
  }

  function watch(peer: RTCPeerConnection): void {
    peer.onconnectionstatechange = () => {
      switch (peer.connectionState) {
        case "connected":
          restarts = 0;
          // Connected to the SFU the guest is not in yet: its call tells.
          if (!bySfu) arrived();
          else if (up) clearTimeout(timer);
          break;
        case "disconnected":
          if (restarts > 0) break;
          clearTimeout(timer);
          timer = setTimeout(() => (up ? void restart() : fail(failure("no-route"))), DISCONNECT_GRACE);
          break;
        case "failed":
          if (restarts > 0) break;
          if (up) void restart();
          else fail(failure("no-route"));
          break;
        case "closed":
          fail(failure("no-route"));
      }
    };
  }

  async function run(): Promise<void> {
    const iceTransportPolicy = attempt.relayOnly ? "relay" : "all";
    peer = new RTCPeerConnection({ iceServers: options.servers, bundlePolicy: "max-bundle", iceTransportPolicy });
    watch(peer);
    for (const track of options.media.getTracks()) {
      const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [options.media] });
      if (track.kind === "video") prefer(transceiver);
    }
    if (!bySfu) peer.onicecandidate = onCandidate;
    const offer = await peer.createOffer();
    described = offer.sdp ?? "";
    await peer.setLocalDescription(offer);
    if (ended) return;

    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), ANSWER_LIMIT);
    let answer: string;
    try {
      const response = await send(bySfu ? callOf(options.link) : whipOf(options.link), {
        method: "POST",
        headers: { ...authorization, "content-type": "application/sdp" },
        credentials: "omit",
        body: described,
        signal: abort.signal,
      });
      location = response.headers.get("location");
      tag = response.headers.get("etag") ?? "";
      answer = answered = await response.text();
    } finally {
      clearTimeout(limit);
    }
    if (ended) {
      // The guest left while the box was answering.
      void hangUp();
      return;
    }
    flush();
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
    if (!bySfu) addEventListener("online", onOnline);
    else if (location) unfollow = followCall(options.link, location, { in: arrived, out: (reason) => fail(failure("no-route", reason)) });
    // A box that ends the session says so by DTLS at once, long before ICE notices the silence.
    const dtls = peer.getSenders()[0]?.transport;
    if (dtls) dtls.onstatechange = () => dtls.state === "closed" && fail(failure("no-route"));
    timer = setTimeout(() => fail(failure("no-route")), attempt.limit);
    limitBitrate(peer);
  }

  run().catch((error: unknown) => {
    if (error instanceof Problem) fail(answerFailure(error.status, error.detail, error.retryAfter));
    else if (error instanceof DOMException && error.name === "AbortError") fail(failure("unreachable"));
    else if (isFailure(error)) fail(error);
    else fail(failure("not-accepted", error instanceof Error ? error.message : ""));
  });

  return {
    end,
    replace(track) {
      for (const sender of peer?.getSenders() ?? []) {
        if (sender.track?.kind === track.kind) void sender.replaceTrack(track).catch(() => undefined);
      }
    },
  };
}

const isFailure = (error: unknown): error is Failure => typeof error === "object" && error !== null && "reason" in error;

function prefer(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpSender.getCapabilities?.("video")?.codecs ?? [];
  const wanted = videoPreference(codecs);
  try {
    if (wanted.length > 0) transceiver.setCodecPreferences?.(wanted);
  } catch {
    // An older browser that refuses the list offers its own order; the box picks what it can decode.
  }
}

function limitBitrate(peer: RTCPeerConnection): void {
  for (const sender of peer.getSenders()) {
    if (sender.track?.kind !== "video") continue;
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings ?? []) encoding.maxBitrate = MAX_BITRATE;
    void sender.setParameters(parameters).catch(() => undefined);
  }
}
