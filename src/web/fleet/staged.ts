// Releases and rollouts as the server answers them, and what a rollout's bar shows. Pure.

export interface Release {
  version: string;
  channel: string;
  arch: string;
  size_bytes: number;
  changelog?: string | null;
  published: boolean;
  created_by: string;
  created_at: string;
}

export interface Rollout {
  id: string;
  version: string;
  tag?: string | null;
  channel: string;
  percent: number;
  abort_percent: number;
  at_once: number;
  state: string;
  reason?: string | null;
  devices: number;
  counts: { sent: number; succeeded: number; failed: number; unsupported: number; open: number };
  created_by: string;
  created_at: string;
}

/** What of the boxes that a rollout is for has come to what, in percent. */
export function shares(rollout: Rollout): { good: number; bad: number; open: number } {
  const of = (count: number) => Math.min(100, (100 * count) / Math.max(1, rollout.devices));
  const { succeeded, failed, unsupported, open } = rollout.counts;
  return { good: of(succeeded), bad: of(failed + unsupported), open: of(open) };
}
