// The order in which codecs are offered. Pure.

export interface Codec {
  mimeType: string;
  sdpFmtpLine?: string;
}

function rank(codec: Codec): number {
  const type = codec.mimeType.toLowerCase();
  const line = (codec.sdpFmtpLine ?? "").toLowerCase();
  if (type === "video/h264") {
    // Constrained Baseline in packetization mode 1 is what every phone encodes in hardware.
    const baseline = /profile-level-id=42/.test(line) ? 0 : 2;
    return baseline + (/packetization-mode=1/.test(line) ? 0 : 1);
  }
  if (type === "video/vp8") return 10;
  if (/^video\/(rtx|red|ulpfec|flexfec)/.test(type)) return type === "video/rtx" ? 20 : -1;
  return -1;
}

/** H.264, then VP8, with their retransmissions; nothing else, since the box decodes nothing else. */
export function videoPreference<C extends Codec>(codecs: readonly C[]): C[] {
  return codecs
    .map((codec, index) => ({ codec, index, rank: rank(codec) }))
    .filter((entry) => entry.rank >= 0)
    .sort((a, b) => a.rank - b.rank || a.index - b.index)
    .map((entry) => entry.codec);
}
