// Searching, filtering, counting and ordering of cards. Pure.

import type { Card } from "./contract.js";

export type Filter = "all" | "online" | "offline" | "trouble";

/** Somebody should look: degraded, hot, full, or an input of its own without a picture. */
export function inTrouble(card: Card): boolean {
  if (!card.online) return false;
  if ((card.degradation_level ?? 0) > 0) return true;
  if ((card.errors ?? []).length > 0) return true;
  if ((card.temperature_c ?? 0) >= 85) return true;
  if (typeof card.disk_free_gb === "number" && card.disk_free_gb < 10) return true;
  return (card.inputs ?? []).some((input) => input.kind !== "guest" && !!input.signal && !["live", "starting", "frozen"].includes(input.signal.toLowerCase()));
}

export function matches(card: Card, filter: Filter, search: string): boolean {
  if (filter === "online" && !card.online) return false;
  if (filter === "offline" && card.online) return false;
  if (filter === "trouble" && !inTrouble(card)) return false;
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [card.name, card.id, card.device_id, card.location, card.version, ...(card.tags ?? [])].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

export interface Totals {
  all: number;
  online: number;
  offline: number;
  trouble: number;
}

export function totals(cards: Iterable<Card>): Totals {
  const sum: Totals = { all: 0, online: 0, offline: 0, trouble: 0 };
  for (const card of cards) {
    sum.all += 1;
    if (card.online) sum.online += 1;
    else sum.offline += 1;
    if (inTrouble(card)) sum.trouble += 1;
  }
  return sum;
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** By name as people count: box 2 before box 10. The order never depends on what moves, so that cards stay where they are. */
export function byName(a: Card, b: Card): number {
  return collator.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
}
