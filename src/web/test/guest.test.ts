import assert from "node:assert/strict";
import { test } from "node:test";
import { videoPreference } from "../common/codecs.js";
import { hasTurn, iceServers, isRelay, linkedServers } from "../common/ice.js";
import { parseRetryAfter, problemFrom } from "../common/problem.js";
import { answerFailure, failure, mediaFailure, type Reason } from "../device/guest/failure.js";
import { handle, MAX_REJOINS, start, type Happening, type Session } from "../device/guest/session.js";

function after(session: Session, ...happenings: Happening[]): Session {
  return happenings.reduce((now, happening) => handle(now, happening)[0], session);
}
const live = after(start, { what: "media-ready" }, { what: "join" }, { what: "connected" });
const failed = (reason: Reason, retryAfter: number | null = null): Happening => ({ what: "failed", failure: failure(reason, "", retryAfter) });

test("a guest asks, joins and is live", () => {
  const ready = after(start, { what: "media-ready" });
  assert.equal(ready.phase, "ready");
  const [connecting, effect] = handle(ready, { what: "join" });
  assert.equal(connecting.phase, "connecting");
  assert.deepEqual(effect, { do: "connect", after: 0 });
  assert.equal(live.phase, "live");
});

test("a second press of join does nothing", () => {
  assert.equal(handle(live, { what: "join" })[1], null);
});

test("a first attempt that fails is told to the guest, not repeated", () => {
  const [session, effect] = handle(after(start, { what: "media-ready" }, { what: "join" }), failed("no-route"));
  assert.equal(session.phase, "failed");
  assert.equal(session.failure?.reason, "no-route");
  assert.deepEqual(effect, { do: "hang-up" });
});

test("a connection that is lost is rejoined without asking", () => {
  const [session, effect] = handle(live, { what: "lost" });
  assert.equal(session.phase, "rejoining");
  assert.equal(effect?.do, "connect");
});

test("a rejoin waits as long as the box says while the old session holds the seat", () => {
  const [session, effect] = handle(after(live, { what: "lost" }), failed("seat-taken", 3));
  assert.equal(session.phase, "rejoining");
  assert.deepEqual(effect, { do: "connect", after: 3_000 });
});

test("rejoining ends after its attempts with words about the loss", () => {
  let session = after(live, { what: "lost" });
  for (let i = 0; i < MAX_REJOINS; i++) session = after(session, failed("unreachable"));
  assert.equal(session.phase, "failed");
  assert.equal(session.failure?.reason, "lost");
});

test("a link that is not valid any more ends rejoining at once", () => {
  assert.equal(after(live, { what: "lost" }, failed("bad-link")).phase, "failed");
});

test("a rejoin that works starts the count anew", () => {
  const again = after(live, { what: "lost" }, failed("unreachable"), { what: "connected" });
  assert.equal(again.phase, "live");
  assert.equal(again.rejoins, 0);
});

test("what comes in after leaving does not bring the guest back", () => {
  const left = after(live, { what: "left" });
  assert.equal(left.phase, "left");
  assert.deepEqual(handle(left, { what: "connected" })[1], { do: "hang-up" });
  assert.equal(after(left, failed("no-route")).phase, "left");
  assert.equal(after(left, { what: "lost" }).phase, "left");
});

test("a camera that is pulled while on air is told", () => {
  assert.equal(after(live, failed("device-lost")).failure?.reason, "device-lost");
});

test("each failure of the camera has its own words", () => {
  assert.equal(mediaFailure("NotAllowedError", null, "camera").reason, "camera-refused");
  assert.equal(mediaFailure("NotFoundError", "camera", "camera").reason, "no-camera");
  assert.equal(mediaFailure("NotFoundError", "microphone", "camera").reason, "no-microphone");
  assert.equal(mediaFailure("NotReadableError", null, "microphone").reason, "microphone-busy");
  assert.equal(mediaFailure("NotReadableError", null, "camera").reason, "camera-busy");
  assert.equal(mediaFailure("SecurityError", null, "camera").reason, "insecure");
});

test("each answer of the box has its own words", () => {
  assert.equal(answerFailure(0, "", null).reason, "unreachable");
  for (const status of [401, 403, 404]) assert.equal(answerFailure(status, "", null).reason, "bad-link");
  assert.equal(answerFailure(503, "", 4).reason, "busy");
  assert.equal(answerFailure(422, "no codec", null).reason, "not-accepted");
  const taken = answerFailure(409, "live since 14:03", 7);
  assert.equal(taken.reason, "seat-taken");
  assert.equal(taken.retryAfter, 7);
  assert.match(taken.advice, /live since 14:03; free again at the earliest in 7 s/);
});

test("ice servers are read from an object and from an array", () => {
  const turn = { urls: ["turn:a:3478?transport=udp", "turns:a:5349"], username: "u", credential: "c" };
  assert.deepEqual(iceServers({ iceServers: turn }), [turn]);
  assert.deepEqual(iceServers({ iceServers: [{ urls: ["stun:a:3478"] }, turn] }), [{ urls: ["stun:a:3478"] }, turn]);
  assert.deepEqual(iceServers({ iceServers: { urls: "stun:a" } }), [{ urls: ["stun:a"] }]);
  assert.deepEqual(iceServers(null), []);
  assert.deepEqual(iceServers({ iceServers: null }), []);
});

test("ice entries that a browser would throw on or cannot use are left out", () => {
  assert.deepEqual(iceServers({ iceServers: { urls: ["turn:a", "http://x"], username: "", credential: "" } }), []);
  assert.deepEqual(iceServers({ iceServers: { urls: ["stun:a:53", "stun:a:3478"] } }), [{ urls: ["stun:a:3478"] }]);
});

test("of many ice servers one of each kind is used, with tls on 443", () => {
  const urls = [
    "stun:t.example:3478",
    "turn:t.example:3478?transport=udp",
    "turn:t.example:80?transport=udp",
    "turn:t.example:3478?transport=tcp",
    "turns:t.example:5349?transport=tcp",
    "turns:t.example:443?transport=tcp",
  ];
  const used = iceServers({ iceServers: { urls, username: "u", credential: "c" } })[0]?.urls;
  assert.deepEqual(used, [urls[0], urls[1], urls[3], urls[5]]);
});

test("relays are known by scheme and by candidate", () => {
  assert.ok(hasTurn([{ urls: ["stun:a", "turns:b"] }]));
  assert.ok(!hasTurn([{ urls: "stun:a" }]));
  assert.ok(isRelay("candidate:1 1 udp 41885439 192.0.2.1 50000 typ relay raddr 0.0.0.0 rport 0"));
  assert.ok(!isRelay("candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host"));
});

test("h264 in constrained baseline is offered first, then vp8, then retransmission, and nothing else", () => {
  const order = videoPreference([
    { mimeType: "video/VP8" },
    { mimeType: "video/rtx", sdpFmtpLine: "apt=96" },
    { mimeType: "video/VP9" },
    { mimeType: "video/H264", sdpFmtpLine: "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f" },
    { mimeType: "video/H264", sdpFmtpLine: "packetization-mode=1;profile-level-id=640c1f" },
    { mimeType: "video/H264", sdpFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f" },
    { mimeType: "video/AV1" },
  ]).map((codec) => codec.sdpFmtpLine?.match(/profile-level-id=\w+/)?.[0] ?? codec.mimeType);
  assert.deepEqual(order, ["profile-level-id=42e01f", "profile-level-id=42001f", "profile-level-id=640c1f", "video/VP8", "video/rtx"]);
});

test("a problem document gives title and detail, anything else its status", () => {
  const problem = problemFrom(409, "Conflict", '{"title":"Seat taken","detail":"live since 14:03"}', 5);
  assert.equal(problem.title, "Seat taken");
  assert.equal(problem.words, "Live since 14:03");
  assert.equal(problem.retryAfter, 5);
  assert.equal(problemFrom(502, "Bad Gateway", "<html>", null).words, "Bad Gateway");
  assert.equal(problemFrom(500, "", "", null).words, "Error 500");
});

test("retry-after is read as seconds and as a date", () => {
  assert.equal(parseRetryAfter("7", 0), 7);
  assert.equal(parseRetryAfter("Thu, 01 Jan 1970 00:00:09 GMT", 2_000), 7);
  assert.equal(parseRetryAfter(null, 0), null);
  assert.equal(parseRetryAfter("soon", 0), null);
});

test("ICE servers are read from the Link headers of an answer, and nothing else is", () => {
  const turn = '<turn:t.example:3478?transport=udp>; rel="ice-server"; username="17:a, b"; credential="p\\"w;,"; credential-type="password"';
  assert.deepEqual(linkedServers(`<stun:s.example>; rel="ice-server", ${turn}, <https://x.example>; rel="next"`), [
    { urls: ["stun:s.example"] },
    { urls: ["turn:t.example:3478?transport=udp"], username: "17:a, b", credential: 'p"w;,' },
  ]);
  assert.deepEqual(linkedServers(null), []);
  assert.deepEqual(linkedServers('<turn:t.example>; rel="ice-server"'), [], "a TURN server without its credential is of no use");
  assert.deepEqual(linkedServers("<<>;;; rel=, <"), []);
});
