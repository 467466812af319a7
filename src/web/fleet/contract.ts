// What the fleet server answers, as its dashboard reads it.

import type { ActorReport } from "../common/contract.js";

export type Role = "viewer" | "operator" | "admin";

export interface User {
  email: string;
  name?: string;
  role: Role;
}

export interface CardInput {
  id: string;
  label?: string;
  kind?: string;
  signal?: string;
  reason?: string | null;
  fps?: number;
  tally?: string;
}

export interface Card {
  id: string;
  device_id?: string;
  name: string;
  online: boolean;
  presence?: string;
  /** Why it is offline. */
  presence_reason?: string | null;
  last_seen?: string | null;
  status?: string;
  version?: string | null;
  cpu_percent?: number | null;
  mem_percent?: number | null;
  disk_free_gb?: number | null;
  disk_total_gb?: number | null;
  temperature_c?: number | null;
  degradation_level?: number | null;
  inputs?: CardInput[] | null;
  programme?: { fps?: number; frames?: number; missed_slots?: number; scene?: string | null } | null;
  /** What is wrong, in the box's words. */
  errors?: string[] | null;
  tags?: string[] | null;
  location?: string | null;
}

export interface Reported {
  ver?: number;
  ts?: string;
  config?: unknown;
  scenes?: { id: string; label: string }[];
  services?: string[];
  mixer?: { pgm?: string | null; pvw?: string | null };
  actors?: ActorReport[];
}

export interface Heartbeat {
  ts?: string;
  version?: string;
  uptime_seconds?: number;
  metrics?: { load_avg?: unknown };
  status?: Record<string, unknown>;
  boot_id?: string;
  boot_seq?: number;
  seq?: number;
  turn?: { provider?: string | null; expires_at?: string | null };
  outbox?: { pending?: number; dropped?: number };
  programme?: Card["programme"];
  interval_s?: number;
}

export interface Detail extends Card {
  notes?: string | null;
  update_channel?: string;
  target_version?: string | null;
  reported?: Reported | null;
  caps?: unknown;
  heartbeat?: Heartbeat | null;
  actors?: ActorReport[] | null;
}

export interface Step {
  state: string;
  ts?: string;
  reason?: string | null;
}

export interface Command {
  id: string;
  seq?: number;
  device_id: string;
  type: string;
  payload?: unknown;
  priority?: number;
  state: string;
  status?: string;
  attempts?: number;
  /** 0 to 1. */
  progress?: number | null;
  /** Cancelling was asked for; the box has the last word. */
  cancel_requested?: boolean;
  code?: string | null;
  reason?: string | null;
  result?: unknown;
  created_at?: string;
  expires_at?: string | null;
  finished_at?: string | null;
  created_by?: string | null;
  history?: Step[];
}

export interface Page<T> {
  items: T[];
  total?: number;
  has_more?: boolean;
  /** Where to go on, of a walk. */
  next_cursor?: string | null;
}

export interface Summary {
  /** In service. */
  total: number;
  /** `online`, `offline`, `unknown`, `decommissioned`. */
  states: Record<string, number>;
  tags: { tag: string; total: number; online: number }[];
}
