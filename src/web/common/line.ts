// How a guest's line is doing, in one short line for the crew. Pure.

import type { GuestReport } from "./contract.js";

const FINE = ["Pictures arrive and are decoded.", "The guest came with sound alone, which arrives and is decoded."];

/** The numbers while all is well; otherwise the sentence that says why the guest is black. */
export function lineOf(report: GuestReport): string {
  if (!FINE.includes(report.why)) return report.why;
  const stream = report.video ?? report.audio;
  const kbps = (report.video?.bitrate_kbps ?? 0) + (report.audio?.bitrate_kbps ?? 0);
  const parts = [
    report.video ? `${Math.round(report.decoded_fps)} fps` : "sound only",
    kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps} kbit/s`,
    stream && stream.loss_percent > 0 ? `${stream.loss_percent.toFixed(1)} % lost` : "",
    stream ? `jitter ${Math.round(stream.jitter_ms)} ms` : "",
    report.round_trip_ms == null ? "" : `round trip ${Math.round(report.round_trip_ms)} ms`,
  ];
  return parts.filter((part) => part).join(" · ");
}
