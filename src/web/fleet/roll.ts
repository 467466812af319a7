// The boxes of the fleet, as far as they are here. Up to some thousands all of them are, and everything is sorted out here; of a
// larger fleet those that are wanted come page by page as they are looked at, and the server sorts out and counts.

import { batch, computed, effect, signal, untracked, type Signal } from "@preact/signals";
import { wordsFor } from "../common/problem.js";
import type { Card, Page, Summary } from "./contract.js";
import { byName, byServer, expected, matches, serverMatches, totals, totalsOf } from "./filter.js";
import { query, requery } from "./router.js";
import { api } from "./session.js";
import { isWithin, onward, START, type Walk } from "./walk.js";
import { fromQuery, pagePath, toQuery, type Wanted } from "./wanted.js";

/** So many boxes are all held; ten pages. */
const ALL = 2_000;
/** From the last key of a search to the question (milliseconds). */
const TYPED = 250;
/** Counts of a large fleet are asked for at most this often, and only when something moved (milliseconds). */
const COUNT_AGAIN = 10_000;

export const loaded = signal(false);
export const loadError = signal<string | null>(null);
/** Another page is under way. */
export const loading = signal(false);
export const wanted = computed(() => fromQuery(query.value));

const summary = signal<Summary | null>(null);
/** All boxes are here. */
export const whole = computed(() => (summary.value?.total ?? 0) <= ALL);

/** Boxes on the screen: of a large fleet only these are pushed. */
export const inSight = signal<readonly string[]>([]);

/** One signal for each card, so that a heartbeat draws one card again and not a thousand. */
const cards = new Map<string, Signal<Card>>();
const generation = signal(0);
const walk = signal<Walk>(START);
const all = computed(() => {
  generation.value;
  return [...cards.values()].map((card) => card.value);
});

export const idOf = (card: Card): string => card.id ?? card.device_id ?? "";
export const cardSignal = (id: string): Signal<Card> | undefined => cards.get(id);

/** Ids in order, as one string: a list is drawn again only when a box comes, goes or changes sides. */
const order = computed(() => {
  const [isWanted, compare] = whole.value ? [matches, byName] : [serverMatches, byServer];
  return all.value
    .filter((card) => isWanted(card, wanted.value))
    .sort(compare)
    .map((card) => card.id)
    .join("\n");
});
export const shown = computed(() => (order.value === "" ? [] : order.value.split("\n")));
export const counts = computed(() => (whole.value || !summary.value ? totals(all.value) : totalsOf(summary.value)));
/** How many are wanted, those that have not come included; null when nobody has counted them. */
export const wantedCount = computed(() => {
  if (whole.value || walk.value.done) return shown.value.length;
  return summary.value ? expected(wanted.value, summary.value) : null;
});
export const isThereMore = computed(() => !walk.value.done);

export interface TagCount {
  tag: string;
  total: number;
}

/** Tags to choose from, by name. */
export const tags = computed<TagCount[]>(() => {
  const counted = new Map<string, number>();
  if (whole.value) for (const card of all.value) for (const tag of card.tags ?? []) counted.set(tag, (counted.get(tag) ?? 0) + 1);
  else for (const { tag, total } of summary.value?.tags ?? []) counted.set(tag, total);
  return [...counted].map(([tag, total]) => ({ tag, total })).sort((a, b) => a.tag.localeCompare(b.tag));
});

/** Wants other boxes, or wants them otherwise; what is being typed leaves no steps behind. */
export function want(change: Partial<Wanted>): void {
  requery(toQuery({ ...wanted.value, ...change }), "search" in change);
}

function put(card: Card): void {
  const id = idOf(card);
  const known = cards.get(id);
  if (known) known.value = { ...known.value, ...card };
  else {
    cards.set(id, signal({ ...card, id }));
    generation.value += 1;
  }
}

/** Each walk has a number: what comes for an earlier one is passed over. */
let walks = 0;
/** What the last walk was through. */
let walked = "";
/** A walk begins anew; it goes on by itself as far as it must. */
let reading = false;
let under: Promise<void> | null = null;

async function page(number: number, found: Set<string> | null): Promise<void> {
  const here = walk.value;
  loading.value = true;
  try {
    const answer = await api<Page<Card>>(pagePath(whole.value ? null : wanted.value, here.cursor));
    if (number !== walks) return;
    batch(() => {
      for (const card of answer.items) {
        found?.add(idOf(card));
        put(card);
      }
      walk.value = onward(here, answer);
      loaded.value = true;
      loadError.value = null;
    });
  } catch (error) {
    if (number === walks) loadError.value = wordsFor(error);
  } finally {
    if (number === walks) loading.value = false;
  }
}

/** Fetches the next page, unless it is under way or there is none. */
export function more(): Promise<void> {
  if (walk.value.done || !loaded.value || reading) return Promise.resolve();
  under ??= page(walks, null).finally(() => (under = null));
  return under;
}

/** Begins anew and goes as far as before. What is shown stays until what replaces it is here. */
export async function loadRoll(): Promise<void> {
  const number = ++walks;
  const before = pagePath(wanted.value, null) === walked ? Math.min(cards.size, ALL) : 0;
  walked = pagePath(wanted.value, null);
  try {
    const counted = await api<Summary>("/devices/summary");
    if (number !== walks) return;
    summary.value = counted;
  } catch (error) {
    if (number === walks) loadError.value = wordsFor(error);
    return;
  }
  const found = new Set<string>();
  walk.value = START;
  reading = true;
  do await page(number, found);
  while (number === walks && !walk.value.done && loadError.value === null && (whole.value || found.size < before));
  if (number === walks) reading = false;
  if (number !== walks || loadError.value !== null) return;
  for (const id of cards.keys()) if (!found.has(id)) cards.delete(id);
  generation.value += 1;
}

export function forgetRoll(): void {
  walks += 1;
  cards.clear();
  walk.value = START;
  summary.value = null;
  generation.value += 1;
  loaded.value = false;
}

let counting: ReturnType<typeof setTimeout> | undefined;

function countAgain(): void {
  counting ??= setTimeout(async () => {
    counting = undefined;
    try {
      summary.value = await api<Summary>("/devices/summary");
    } catch {
      // The next push asks again.
    }
  }, COUNT_AGAIN);
}

/** Boxes changed that are not on the screen. */
export function othersMoved(): void {
  if (!whole.value) countAgain();
}

/** Takes in what the server pushed. */
export function pushed(news: Iterable<Card>): void {
  for (const card of news) {
    if (card.status === "decommissioned") {
      if (cards.delete(idOf(card))) generation.value += 1;
    } else if (cards.has(idOf(card)) || whole.value || (isWithin(walk.value, card) && serverMatches(card, wanted.value))) put(card);
  }
  if (!whole.value) countAgain();
}

/** What the server sorts out begins anew when something else is wanted. */
let asked = "";
let typing: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  const path = pagePath(wanted.value, null);
  untracked(() => {
    if (path === asked) return;
    asked = path;
    clearTimeout(typing);
    if (loaded.value && !whole.value) typing = setTimeout(() => void loadRoll(), TYPED);
  });
});
