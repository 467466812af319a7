// Gathers what `preflight.ts` judges: pictures of the camera, the microphone's level, codecs, ways out of the network, round trips.

import { hasTurn, iceServers, isRelay } from "../../common/ice.js";
import { Problem } from "../../common/problem.js";
import { answerFailure, failure, isFinal, type Failure } from "./failure.js";
import { ask, type Standing } from "./follow.js";
import type { GuestLink } from "./link.js";
import { nothingSeen, type Evidence } from "./preflight.js";

/** Ways out that have not shown by then are not waited for, in milliseconds. */
const GATHERED_BY = 6_000;
/** From two relays that were found to something that comes through them, in milliseconds. */
const THROUGH_BY = 6_000;
const ROUND_TRIPS = 3;
/** A box that does not answer is asked again after so many milliseconds. */
const ASK_AGAIN = 3_000;

export interface Sources {
  link: GuestLink;
  media: MediaStream;
  /** Level of the microphone in dBFS, as it is now. */
  level(): number | null;
  onEvidence(evidence: Evidence): void;
  onStanding(standing: Standing): void;
  /** The link opens nothing. */
  onRefused(why: Failure): void;
}

/** Looks until the returned function is called. */
export function gatherEvidence({ link, media, level, onEvidence, onStanding, onRefused }: Sources): () => void {
  const started = performance.now();
  const undo: (() => void)[] = [];
  let over = false;
  let seen: Evidence = { ...nothingSeen, codecs: RTCRtpSender.getCapabilities?.("video")?.codecs.map((one) => one.mimeType) ?? null };
  const note = (more: Partial<Evidence>) => {
    if (over) return;
    seen = { ...seen, ...more, elapsed: performance.now() - started };
    onEvidence(seen);
  };

  undo.push(countFrames(media, (frames) => note({ frames })));
  const listening = setInterval(() => {
    const db = level();
    if (db === null || !Number.isFinite(db)) return note({});
    const levels = seen.levels ?? { softest: db, loudest: db };
    note({ levels: { softest: Math.min(levels.softest, db), loudest: Math.max(levels.loudest, db) } });
  }, 200);
  undo.push(() => clearInterval(listening));

  void (async () => {
    let rounds = 0;
    const roundTrips: number[] = [];
    while (!over && rounds <= ROUND_TRIPS) {
      const asked = performance.now();
      try {
        const standing = await ask(link);
        if (over) return;
        // The first one opens the connection as well.
        if (rounds > 0) roundTrips.push(performance.now() - asked);
        note({ refused: null, roundTrips: [...roundTrips] });
        if (rounds === 0) {
          onStanding(standing);
          undo.push(lookForWays(iceServers(standing), (ice) => note({ ice })));
        }
        rounds++;
      } catch (error) {
        const why = error instanceof Problem ? answerFailure(error.status, error.detail, error.retryAfter) : failure("unreachable");
        if (over) return;
        if (isFinal(why.reason)) return onRefused(why);
        note({ refused: `${why.title}: ${why.advice}` });
        await new Promise((resolve) => setTimeout(resolve, Math.max(ASK_AGAIN, (why.retryAfter ?? 0) * 1_000)));
      }
    }
  })();

  return () => {
    over = true;
    for (const stop of undo) stop();
  };
}

/** Counts new pictures of a camera in an element of its own, so that a page that is scrolled away counts too. */
function countFrames(media: MediaStream, onFrames: (frames: number) => void): () => void {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = new MediaStream(media.getVideoTracks());
  void video.play().catch(() => undefined);
  const timer = setInterval(() => {
    // Where the browser does not count, a clock that moves is as good.
    const counted = video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    onFrames(Math.max(counted, Math.floor(video.currentTime * 10)));
  }, 250);
  return () => {
    clearInterval(timer);
    video.srcObject = null;
  };
}

/** Gathers candidates; where there is a relay, sends a word to itself through it. */
function lookForWays(servers: RTCIceServer[], onIce: (ice: Evidence["ice"]) => void): () => void {
  let ice: Evidence["ice"] = { turn: hasTurn(servers), candidates: [], done: false, relay: "untried" };
  const note = (more: Partial<Evidence["ice"]>) => onIce((ice = { ...ice, ...more }));
  const peer = new RTCPeerConnection({ iceServers: servers });
  const undo: (() => void)[] = [() => peer.close()];
  const done = () => ice.done || note({ done: true });
  const limit = setTimeout(done, GATHERED_BY);
  undo.push(() => clearTimeout(limit));
  peer.createDataChannel("preflight");
  peer.onicecandidate = ({ candidate }) => {
    if (!candidate) return done();
    note({ candidates: [...ice.candidates, candidate.candidate] });
    if (!isRelay(candidate.candidate) || ice.relay !== "untried") return;
    note({ relay: "running" });
    undo.push(throughRelay(servers, (through) => note({ relay: through ? "through" : "lost" })));
  };
  void peer
    .createOffer()
    .then((offer) => peer.setLocalDescription(offer))
    .catch(done);
  return () => {
    peer.onicecandidate = null;
    for (const stop of undo) stop();
  };
}

/** Two peers on this page that may meet at a relay only. */
function throughRelay(iceServers: RTCIceServer[], onEnd: (through: boolean) => void): () => void {
  const [one, other] = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" })) as [RTCPeerConnection, RTCPeerConnection];
  let ended = false;
  const end = (through: boolean | null) => {
    if (ended) return;
    ended = true;
    clearTimeout(limit);
    one.close();
    other.close();
    if (through !== null) onEnd(through);
  };
  const limit = setTimeout(() => end(false), THROUGH_BY);
  const pass = (to: RTCPeerConnection) => (event: RTCPeerConnectionIceEvent) => {
    if (event.candidate) void to.addIceCandidate(event.candidate).catch(() => undefined);
  };
  one.onicecandidate = pass(other);
  other.onicecandidate = pass(one);
  one.createDataChannel("preflight").onopen = () => end(true);
  void (async () => {
    const offer = await one.createOffer();
    await other.setRemoteDescription(offer);
    await one.setLocalDescription(offer);
    const answer = await other.createAnswer();
    await one.setRemoteDescription(answer);
    await other.setLocalDescription(answer);
  })().catch(() => end(false));
  return () => end(null);
}
