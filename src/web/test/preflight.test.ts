import assert from "node:assert/strict";
import { test } from "node:test";
import { answerFailure } from "../device/guest/failure.js";
import { readLink } from "../device/guest/link.js";
import { isSettled, judge, mayJoin, nothingSeen, type Check, type Evidence } from "../device/guest/preflight.js";

const host = "candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host generation 0";
const srflx = "candidate:2 1 udp 1686052607 198.51.100.1 50000 typ srflx raddr 192.0.2.1 rport 50000";
const relay = (preference: number) => `candidate:3 1 udp ${preference * 2 ** 24 + 0x1eff} 203.0.113.1 60000 typ relay raddr 0.0.0.0 rport 0`;

const well: Evidence = {
  elapsed: 8_000,
  frames: 90,
  levels: { softest: -70, loudest: -20 },
  codecs: ["video/VP8", "video/H264"],
  ice: { turn: true, candidates: [host, srflx, relay(2)], done: true, relay: "through" },
  roundTrips: [40, 900, 50],
  refused: null,
};

const finding = (evidence: Partial<Evidence>, check: Check) => judge({ ...well, ...evidence }).find((one) => one.check === check)!;

test("when all is well, all is good and the guest may join", () => {
  const findings = judge(well);
  assert.deepEqual(findings.map(({ mood }) => mood), ["good", "good", "good", "good", "good"]);
  assert.match(finding({}, "box").words, /50 ms/);
  assert.ok(mayJoin(findings) && isSettled(findings));
});

test("at the beginning everything is looked at, and nobody is kept waiting for it", () => {
  const findings = judge({ ...nothingSeen, codecs: ["video/H264"] });
  assert.ok(!isSettled(findings) && mayJoin(findings));
});

test("a camera without a picture keeps the guest out, but not before it had time to wake up", () => {
  assert.equal(finding({ frames: 0, elapsed: 3_000 }, "camera").mood, "busy");
  const late = finding({ frames: 0 }, "camera");
  assert.deepEqual([late.mood, late.words.startsWith("Your camera gives no picture: another program may hold it")], ["bad", true]);
  assert.equal(mayJoin([late]), false);
});

test("a silent microphone and one that only hums are said apart, and both may join", () => {
  assert.match(finding({ levels: { softest: -90, loudest: -70 } }, "microphone").words, /silent/);
  assert.match(finding({ levels: { softest: -42, loudest: -40 } }, "microphone").words, /even noise/);
  assert.equal(finding({ levels: null }, "microphone").mood, "warn");
  assert.equal(finding({ levels: null, elapsed: 1_000 }, "microphone").mood, "busy");
});

test("a browser without H.264 and VP8 is told to be another one", () => {
  assert.equal(finding({ codecs: ["video/AV1"] }, "codec").mood, "bad");
  assert.match(finding({ codecs: ["video/VP8"] }, "codec").words, /VP8/);
  assert.equal(finding({ codecs: null }, "codec").mood, "good");
});

test("ways out of the network: by relay, by a detour, directly, or none", () => {
  const ice = (more: Partial<Evidence["ice"]>) => finding({ ice: { ...well.ice, ...more } }, "network");
  assert.match(ice({ candidates: [host, relay(0)] }).words, /detour/);
  assert.equal(ice({ relay: "lost" }).mood, "warn");
  assert.match(ice({ candidates: [host], relay: "untried" }).words, /no direct way out/);
  assert.match(ice({ candidates: [host, srflx], relay: "untried" }).words, /must find a direct way/);
  assert.equal(ice({ turn: false, candidates: [host, srflx], relay: "untried" }).mood, "good");
  assert.equal(ice({ candidates: [], relay: "untried" }).mood, "bad");
  assert.equal(ice({ done: false, relay: "untried" }).mood, "busy");
});

test("a box that is slow or silent is said in one sentence each, and a silent one keeps the guest out until it answers", () => {
  assert.equal(finding({ roundTrips: [400, 500] }, "box").mood, "warn");
  const silent = { refused: "The box does not answer.", ice: { ...well.ice, candidates: [], done: false, relay: "untried" } } as const;
  assert.deepEqual([finding(silent, "box").mood, finding(silent, "network").mood], ["bad", "warn"]);
  assert.equal(mayJoin(judge({ ...well, ...silent })), false);
});

test("a link is an invitation with its secret after the hash, or a seat with its token", () => {
  const token = "00112233445566778899aabbccddeeff";
  const at = (pathname: string, hash = "", search = "") => readLink({ pathname, hash, search });
  assert.deepEqual(at("/join/0123456789abcdef", `#${token}`), { name: "0123456789abcdef", token, invited: true, afar: false });
  assert.equal(at("/join/0123456789abcdef.stage-left", `#${token}`)?.afar, true);
  assert.deepEqual(at("/guest_join", "", "?seat=guest1&token=a%20b"), { name: "guest1", token: "a b", invited: false, afar: false });
  for (const bad of [at("/join/0123456789abcdef"), at("/join/0123456789abcdef", "#guess"), at("/guest_join", "", "?seat=guest1"), at("/join/a/b", `#${token}`)]) {
    assert.equal(bad, null);
  }
});

test("an invitation that opens nothing any more is told from a link that never did", () => {
  const reasons = ["this invitation has expired", "this invitation has been used", "this invitation was withdrawn", "the crew has not let you in",
    "the crew has taken you out of the programme", "the bearer token is for another seat"].map((detail) => answerFailure(403, detail, null).reason);
  assert.deepEqual(reasons, ["expired", "used", "withdrawn", "refused", "removed", "bad-link"]);
});
