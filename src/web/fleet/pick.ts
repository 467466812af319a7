// Choosing one box out of any number, by what is typed. Pure.

import type { Card, Page } from "./contract.js";

/** A box that can be chosen. */
export interface Choice {
  id: string;
  name: string;
  location?: string | null;
  online?: boolean;
}

/** Boxes of a page. */
export const CHOICES = 20;

/** The next page of the boxes that fit. */
export function choicesPath(text: string, cursor: string | null): string {
  const params = new URLSearchParams({ limit: String(CHOICES) });
  if (text.trim()) params.set("search", text.trim());
  if (cursor) params.set("cursor", cursor);
  return `/devices?${params}`;
}

export interface Found {
  /** What was typed. */
  text: string;
  items: Choice[];
  /** Where it goes on, or null. */
  cursor: string | null;
}

/** With another page of it, each box once. */
export function further(found: Found | null, text: string, page: Page<Card>): Found {
  const before = found?.text === text ? found.items : [];
  const known = new Set(before.map((one) => one.id));
  const items = page.items.map(({ id, name, location, online }) => ({ id, name, location, online })).filter((one) => !known.has(one.id));
  return { text, items: [...before, ...items], cursor: page.has_more ? (page.next_cursor ?? null) : null };
}

/** The one that was typed in full: by its identifier, or by a name that no other of them has. */
export function meant(text: string, found: Found | null): Choice | null {
  const typed = text.trim();
  if (found === null || typed === "" || found.text !== typed) return null;
  const named = found.items.filter((one) => one.name.toLowerCase() === typed.toLowerCase());
  return found.items.find((one) => one.id === typed) ?? (named.length === 1 && found.cursor === null ? (named[0] ?? null) : null);
}

/** Why what was typed is no choice; empty when it is one, or when none is needed. */
export function refusal(text: string, chosen: Choice | null, found: Found | null, required: boolean): string {
  const typed = text.trim();
  if (chosen !== null) return "";
  if (typed === "") return required ? "Choose a box." : "";
  const none = found?.text === typed && found.items.length === 0;
  return none ? `There is no box “${typed}”.` : `“${typed}” is no box yet: choose one from the list.`;
}

/** How many fit, for ears. */
export function toldOf(found: Found | null): string {
  if (found === null) return "";
  const count = found.items.length;
  return `${count} ${count === 1 ? "box" : "boxes"}${found.cursor === null ? "" : ", and more further down"}`;
}

/** Where a key takes one in a list of `count` from `active` (-1: nowhere yet); null when it is no key for that. */
export function activeAfter(key: string, active: number, count: number): number | null {
  const to = { ArrowDown: active + 1, ArrowUp: active < 0 ? count - 1 : active - 1, PageDown: active + 8, PageUp: active - 8 }[key];
  return to === undefined || count === 0 ? null : Math.min(count - 1, Math.max(0, to));
}
