// How a guest's line is doing, in one short line for the crew. Pure.

import type { GuestReport, Seat } from "./contract.js";

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

/** What it means that the box's own path to a guest is of this kind (RFC 8445, section 5.1.1). */
const PATHS: Record<string, string> = { host: "same network", srflx: "direct", prflx: "direct", relay: "through a TURN relay" };

/** By which road a guest who is in comes; empty while that is not known. */
export function roadOf(seat: Pick<Seat, "state" | "path" | "road">): string {
  if (seat.state !== "live") return "";
  if (seat.road === "sfu") return "through the SFU";
  return seat.path ? (PATHS[seat.path] ?? seat.path) : "";
}
