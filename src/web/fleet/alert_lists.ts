// Silences, rules and receivers as the server has them, and what is said of them and sent about them. What thinks is pure.

import { signal } from "@preact/signals";
import type { Severity } from "./alerts.js";
import type { Page } from "./contract.js";
import { api } from "./session.js";

export interface Silence {
  id: string;
  rule_id?: string | null;
  device_id?: string | null;
  tag?: string | null;
  all: boolean;
  reason: string;
  created_by: string;
  starts_at: string;
  ends_at: string;
  active: boolean;
}

export interface Rule {
  id: string;
  kind: string;
  name: string;
  threshold?: number | null;
  clear_threshold?: number | null;
  for_seconds: number;
  severity: Severity;
  tag?: string | null;
  device_id?: string | null;
  receiver_ids?: string[] | null;
  enabled: boolean;
}

export interface Receiver {
  id: string;
  name: string;
  kind: string;
  url?: string | null;
  addresses?: string[] | null;
  min_severity: Severity;
  enabled: boolean;
}

export const silences = signal<Silence[]>([]);
export const rules = signal<Rule[]>([]);
export const receivers = signal<Receiver[]>([]);

export const one = (place: string, id: string): string => `${place}/${encodeURIComponent(id)}`;

/** A list of two hundred at most: an organization has no more rules or receivers, and of silences the latest. */
export async function read<T>(place: string, into: { value: T[] }): Promise<void> {
  into.value = (await api<Page<T>>(`${place}?page_size=200`)).items;
}

/** What a threshold of a kind is measured in, and whether less is worse; kinds that are not here have none. */
export const UNITS: Record<string, { unit: string; below?: boolean }> = {
  disk: { unit: "GB free", below: true },
  temperature: { unit: "°C" },
  restarts: { unit: "restarts within an hour" },
  clock: { unit: "s off" },
};

export const KINDS: Record<string, string> = {
  offline: "a box is offline",
  disk: "little space on its disk",
  temperature: "it is hot",
  input_lost: "an input is lost",
  guest_failing: "a guest has no picture",
  restarts: "it restarts again and again",
  clock: "its clock is wrong",
};

/** "less than 5 GB free for 60 s, until 6; boxes with the tag tour". Pure. */
export function condition(rule: Rule, boxName = (id: string) => id): string {
  const measure = UNITS[rule.kind];
  const what = measure ? `${measure.below ? "less than " : ""}${rule.threshold} ${measure.unit}${measure.below ? "" : " or more"}` : (KINDS[rule.kind] ?? rule.kind);
  const until = measure && rule.clear_threshold != null ? `, until ${rule.clear_threshold}` : "";
  const held = rule.for_seconds > 0 ? ` for ${rule.for_seconds} s` : "";
  const whom = [rule.device_id && boxName(rule.device_id), rule.tag && `boxes with the tag ${rule.tag}`].filter(Boolean).join(", of ");
  return `${what}${held}${until}${whom ? `; ${whom}` : ""}`;
}

/** What a form says; empty fields are absent. */
export type Said = Record<string, string | undefined>;

/**
 * A rule as it is sent, new or changed from `before`: what is empty is said to be none. Where it clears follows a threshold that was
 * moved alone. Pure.
 */
export function ruleBody(said: Said, receiver_ids: string[], enabled: boolean, before: Rule | null): Partial<Rule> {
  const number = (name: string) => (said[name] === undefined ? undefined : Number(said[name]));
  const [threshold, clear] = [number("threshold"), number("clear_threshold")];
  const alone = before !== null && threshold !== before.threshold && clear === before.clear_threshold;
  const measured = UNITS[said.kind ?? ""] ? { threshold, clear_threshold: alone ? undefined : clear } : {};
  return {
    ...measured,
    name: said.name,
    for_seconds: Number(said.for_seconds ?? 0),
    severity: said.severity as Severity,
    tag: said.tag ?? null,
    device_id: said.device_id ?? null,
    receiver_ids: receiver_ids.length > 0 ? receiver_ids : null,
    enabled,
  };
}

/** A silence as it is sent. A moment is what `datetime-local` has, in the time of whoever sits there. Pure. */
export function silenceBody(said: Said): object {
  const moment = (name: string) => (said[name] === undefined ? undefined : new Date(said[name]).toISOString());
  const whom = said.whom === "device" ? { device_id: said.which } : said.whom === "tag" ? { tag: said.which } : {};
  const all = said.whom === "all" && !said.rule_id ? { all: true } : {};
  return { ...whom, ...all, rule_id: said.rule_id, reason: said.reason, starts_at: moment("from"), ends_at: moment("until") };
}

/** A moment as `datetime-local` wants it. Pure. */
export function localMoment(at: Date): string {
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Silences that are in force or yet to come, the next to end first. Pure. */
export function standing(all: Silence[], now: number): Silence[] {
  return all.filter((silence) => Date.parse(silence.ends_at) > now).sort((a, b) => Date.parse(a.ends_at) - Date.parse(b.ends_at));
}

export const ruleName = (id: string): string => rules.value.find((rule) => rule.id === id)?.name ?? "a rule";

/** What the fields of a form hold. */
export function said(form: FormData): Said {
  const fields = [...form.entries()].map(([name, value]) => [name, String(value).trim() || undefined]);
  return Object.fromEntries(fields) as Said;
}
