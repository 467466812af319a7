// Open alerts and how many they are. What the server pushes says that something changed; the list itself is read anew, twice a
// second at most, so that a site that goes dark costs two requests and not two hundred.

import { computed, signal } from "@preact/signals";
import { wordsFor } from "../common/problem.js";
import { api } from "./session.js";

export type Severity = "info" | "warning" | "error" | "critical";

export const SEVERITIES: Severity[] = ["critical", "error", "warning", "info"];

export interface Alert {
  id: string;
  rule_id: string;
  rule_name: string;
  kind: string;
  severity: Severity;
  device_id: string;
  device_name: string;
  subject: string;
  state: string;
  detail: string;
  since: string;
  raised_at?: string | null;
  acknowledged_by?: string | null;
  note?: string | null;
  resolved_at?: string | null;
  resolution?: string | null;
  silenced_until?: string | null;
}

export interface AlertPage {
  items: Alert[];
  next_cursor?: string | null;
}

export interface AlertSummary {
  open: number;
  firing: number;
  critical: number;
  error: number;
  warning: number;
  info: number;
}

export const summary = signal<AlertSummary | null>(null);
export const open = signal<Alert[]>([]);
export const over = signal<Alert[]>([]);
export const isMore = signal(false);
export const failed = signal<string | null>(null);
/** Grows when silences, rules or receivers may have changed. */
export const turns = signal(0);
/** Grows when who is told may have changed; administrators alone hear of it. */
export const receiversMoved = signal(0);
/** The page is shown, so the lists are wanted. */
const watched = signal(false);

/** The worst first, then those that nobody took on, then the newest. Pure. */
export function inOrder(alerts: Alert[]): Alert[] {
  const rank = (alert: Alert) => SEVERITIES.indexOf(alert.severity) * 2 + (alert.state === "firing" && !alert.silenced_until ? 0 : 1);
  return [...alerts].sort((a, b) => rank(a) - rank(b) || b.id.localeCompare(a.id));
}

export const ordered = computed(() => inOrder(open.value));

/** How bad the worst is that nobody took on, for the mark in the navigation. Pure. */
export function worst(counts: AlertSummary | null): Severity | null {
  return SEVERITIES.find((severity) => (counts?.[severity] ?? 0) > 0) ?? null;
}

const MOST = 200;

export async function loadAlerts(): Promise<void> {
  try {
    summary.value = await api<AlertSummary>("/alerts/summary");
    if (!watched.value) return;
    const [now, before] = await Promise.all([
      api<AlertPage>(`/alerts?state=open&page_size=${MOST}`),
      api<AlertPage>("/alerts?state=resolved&page_size=20"),
    ]);
    open.value = now.items;
    isMore.value = Boolean(now.next_cursor);
    over.value = before.items;
    failed.value = null;
  } catch (error) {
    failed.value = wordsFor(error);
  }
}

let soon: ReturnType<typeof setTimeout> | undefined;

/** Something changed. */
export function alertsMoved(): void {
  soon ??= setTimeout(() => {
    soon = undefined;
    turns.value += 1;
    void loadAlerts();
  }, 500);
}

/** Keeps the lists for as long as the page is shown. */
export function watchAlerts(): () => void {
  watched.value = true;
  void loadAlerts();
  return () => {
    watched.value = false;
  };
}

export function forgetAlerts(): void {
  clearTimeout(soon);
  soon = undefined;
  summary.value = null;
  open.value = [];
  over.value = [];
}
