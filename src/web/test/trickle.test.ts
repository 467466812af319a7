import assert from "node:assert/strict";
import { test } from "node:test";
import { fragment, merged } from "../common/trickle.js";

const section = (kind: string, mid: number, ice: string, candidate = "") =>
  `m=${kind} 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:${mid}\r\na=ice-ufrag:${ice}\r\na=ice-pwd:${ice}-password-long-enough\r\n${candidate}`;
const description = (ice: string, candidate = "") =>
  `v=0\r\na=group:BUNDLE 0 1\r\n${section("audio", 0, ice, candidate)}${section("video", 1, ice)}`;

test("a fragment names the ice session, one section and its candidates", () => {
  assert.equal(
    fragment(description("ours"), ["candidate:1 1 udp 1 192.0.2.1 4000 typ host", ""]),
    "a=ice-ufrag:ours\r\na=ice-pwd:ours-password-long-enough\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n" +
      "a=candidate:1 1 udp 1 192.0.2.1 4000 typ host\r\na=end-of-candidates\r\n",
  );
});

test("a restart's answer replaces credentials in every section and candidates once", () => {
  const before = description("old", "a=candidate:1 1 udp 1 192.0.2.7 5000 typ host\r\na=end-of-candidates\r\n");
  const restarted =
    "a=ice-ufrag:new\r\na=ice-pwd:new-password-long-enough\r\nm=audio 9 X 111\r\na=mid:0\r\na=candidate:2 1 udp 1 192.0.2.8 6000 typ host\r\n";
  const after = merged(before, restarted);
  assert.equal(after.match(/a=ice-ufrag:new/g)?.length, 2);
  assert.equal(after.match(/a=candidate:/g)?.length, 1);
  assert.ok(after.includes("a=mid:0\r\na=candidate:2") && !after.includes("old") && !after.includes("192.0.2.7"));
});
