// Searching, filtering, counting and ordering of boxes. Pure.

import { sentence } from "../common/format.js";
import type { Card, Summary } from "./contract.js";
import type { Wanted } from "./wanted.js";

export type Filter = "all" | "online" | "offline" | "trouble";

const FINE = ["live", "starting", "frozen"];

/** Why somebody should look, each in a few words: degraded, hot, full, or an input of its own without a picture. */
export function troubles(card: Card): string[] {
  if (!card.online) return [];
  const found = [...(card.errors ?? [])];
  if ((card.degradation_level ?? 0) > 0) found.push(`load level ${card.degradation_level}`);
  if ((card.temperature_c ?? 0) >= 85) found.push(`${Math.round(card.temperature_c ?? 0)} °C`);
  if (typeof card.disk_free_gb === "number" && card.disk_free_gb < 10) found.push(`${Math.floor(card.disk_free_gb)} GB free`);
  for (const input of card.inputs ?? []) {
    if (input.kind !== "guest" && input.signal && !FINE.includes(input.signal.toLowerCase())) {
      found.push(`${input.label ?? input.id}: ${sentence(input.signal).toLowerCase()}`);
    }
  }
  // A box may say itself what its inputs say.
  return [...new Set(found)];
}

export const inTrouble = (card: Card): boolean => troubles(card).length > 0;

function isOn(card: Card, filter: Filter): boolean {
  switch (filter) {
    case "online":
      return card.online;
    case "offline":
      return !card.online;
    case "trouble":
      return inTrouble(card);
    default:
      return true;
  }
}

/** Whether a box is wanted, where all boxes are here: every word of the search, in any field. */
export function matches(card: Card, wanted: Wanted): boolean {
  if (!isOn(card, wanted.filter)) return false;
  if (wanted.tag && !(card.tags ?? []).includes(wanted.tag)) return false;
  const words = wanted.search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [card.name, card.id, card.location, card.version, ...(card.tags ?? [])].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Whether the server would have found it: it looks for the whole search in one field. */
export function serverMatches(card: Card, wanted: Wanted): boolean {
  if (card.status === "decommissioned" || !isOn(card, wanted.filter)) return false;
  if (wanted.tag && !(card.tags ?? []).includes(wanted.tag)) return false;
  const search = wanted.search.trim().toLowerCase();
  return [card.id, card.name, card.location ?? "", ...(card.tags ?? [])].some((field) => field.toLowerCase().includes(search));
}

export interface Totals {
  all: number;
  online: number;
  offline: number;
  /** Not known where not all boxes are here. */
  trouble: number | null;
}

export function totals(cards: Iterable<Card>): Totals {
  const sum = { all: 0, online: 0, offline: 0, trouble: 0 };
  for (const card of cards) {
    sum.all += 1;
    if (card.online) sum.online += 1;
    else sum.offline += 1;
    if (inTrouble(card)) sum.trouble += 1;
  }
  return sum;
}

export function totalsOf(summary: Summary): Totals {
  const online = summary.states.online ?? 0;
  return { all: summary.total, online, offline: summary.total - online, trouble: null };
}

/** How many boxes are wanted, as far as the counts of the server say. */
export function expected(wanted: Wanted, summary: Summary): number | null {
  if (wanted.search.trim() || wanted.filter === "trouble") return null;
  const tag = wanted.tag === null ? null : summary.tags.find((one) => one.tag === wanted.tag);
  if (tag === undefined) return null;
  const [total, online] = tag ? [tag.total, tag.online] : [summary.total, summary.states.online ?? 0];
  return wanted.filter === "all" ? total : wanted.filter === "online" ? online : total - online;
}

/** Tags from a line with commas between them, each once. */
export const tagsOf = (line: string): string[] => [...new Set(line.split(",").map((tag) => tag.trim()).filter(Boolean))];

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** By name as people count: box 2 before box 10. The order never depends on what moves, so that boxes stay where they are. */
export function byName(a: Card, b: Card): number {
  return collator.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
}

/** As the server walks: by name, letter by letter. Where boxes come page by page, those that follow are not put before these. */
export function byServer(a: Card, b: Card): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.id === b.id ? 0 : a.id < b.id ? -1 : 1;
}
