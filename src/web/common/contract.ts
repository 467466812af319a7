// What the box answers on its HTTP face, as its pages read it. Everything that may be missing is optional: a page of one version
// has to stand in front of a box of another.

export type Tally = "programme" | "preview" | "none";

export interface Slot {
  source: string;
  source_type?: string;
  x_rel: number;
  y_rel: number;
  w_rel: number;
  h_rel: number;
  z?: number;
  alpha?: number;
  crop_left?: number;
  crop_right?: number;
  crop_top?: number;
  crop_bottom?: number;
  border_width?: number;
  border_color?: string;
}

export interface Scene {
  id: string;
  label: string;
  slots?: Slot[];
}

export interface Input {
  id: string;
  label: string;
  kind: "camera" | "guest" | string;
  signal: string;
  reason?: string | null;
  frames?: number;
  fps?: number;
  tally: Tally;
  level_db?: number | null;
  /** Why a capture device's sound is missing; empty when it is there, or none is configured. */
  sound?: string;
  /** Muted by the crew, in the programme. */
  muted?: boolean;
  /** Level in the programme, in dB; 0 as it comes. */
  gain_db?: number;
  /** Of the guest who sits there. */
  guest?: GuestReport | null;
}

/** One stream of a guest, over five seconds. */
export interface StreamVitals {
  loss_percent: number;
  recovered_percent: number;
  jitter_ms: number;
  bitrate_kbps: number;
}

/** How a guest's line and decoding are doing. */
export interface GuestReport {
  path?: string | null;
  /** Why it is seen, or is not: one sentence. */
  why: string;
  video?: StreamVitals | null;
  audio?: StreamVitals | null;
  round_trip_ms?: number | null;
  decoded_fps: number;
  width?: number | null;
  height?: number | null;
  codec?: string | null;
}

/** The encoder of the programme, and how many encoders run beside what the hardware can do (`most`: 0 is no limit). */
export interface Encoder {
  name: string;
  reason?: string;
  rejected?: unknown;
  sessions?: { hardware: number; most: number; software: number };
}

export interface State {
  device: { id: string; name: string; org?: string; version?: string };
  programme: {
    width: number;
    height: number;
    fps: number;
    frames: number;
    missed_slots: number;
    scene: string | null;
    viewers?: number;
    encoder?: Encoder | null;
  };
  pvw: { scene: string | null };
  transition: null | { kind: string; duration_ms?: number };
  inputs: Input[];
  scenes: Scene[];
  degradation: { level: number; reasons: string[] };
  fleet: { state: string; since?: string | null; last_error?: string | null };
  turn: { provider?: string | null; expires_at?: string | null; stale?: boolean; roads?: TurnRoad[] };
  identify: string | null;
  whep_inputs: boolean;
  rehearsal: boolean;
}

/** How the box itself reaches one TURN server. */
export interface TurnRoad {
  server: string;
  road: string;
  udp: string;
  udp_rtt_ms?: number | null;
  connections?: number;
  reconnects?: number;
  last_error?: string | null;
}

export interface ActorReport {
  name: string;
  kind?: string;
  state: string;
  essential?: boolean;
  restarts: number;
  last_cause?: string | null;
  uptime_seconds?: number;
  mailbox_depth?: number;
  detail?: unknown;
}

export interface Seat {
  id: string;
  label: string;
  token?: string;
  join_url?: string;
  state: "free" | "joining" | "waiting" | "live" | "silent" | string;
  /** Its guest waits to be let in. */
  waiting?: boolean;
  muted?: boolean;
  level_db?: number;
  /** The invitation by which its guest came. */
  invitation?: string;
  /** How the guest is connected: `host`, `srflx` or `relay`. */
  path?: string | null;
  /** By which road: `direct`, `turn` or `sfu`. */
  road?: string | null;
  session?: unknown;
}

export interface Invitation {
  id: string;
  seat: string;
  name: string;
  state: "open" | "in" | "expired" | "used" | "revoked" | "refused" | "removed" | string;
  expires_at: string;
  uses: "single" | "repeated" | string;
  road?: string;
  admit?: boolean;
  created_by?: string;
}

/** An invitation that was just made: its links are told once. */
export interface MadeInvitation extends Invitation {
  join_url: string;
  /** The same by way of the fleet server, from anywhere. */
  fleet_join_url?: string | null;
}

export interface MixerStatus {
  pgm?: string | null;
  pvw?: string | null;
  encoder?: Encoder;
  stats?: Record<string, unknown>;
}

/** Encoders that were tried and not taken: pairs or objects, whichever the server writes. */
export function rejectedEncoders(rejected: unknown): { name: string; why: string }[] {
  if (!Array.isArray(rejected)) return [];
  return rejected.flatMap((entry: unknown) => {
    if (Array.isArray(entry)) return [{ name: String(entry[0] ?? ""), why: String(entry[1] ?? "") }];
    if (entry && typeof entry === "object") {
      const fields = entry as Record<string, unknown>;
      return [{ name: String(fields.name ?? ""), why: String(fields.why ?? fields.reason ?? "") }];
    }
    return [];
  });
}
