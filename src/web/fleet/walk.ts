// How far a walk through the boxes of a large fleet has come. Pure.

import type { Card, Page } from "./contract.js";
import { byServer } from "./filter.js";

export interface Walk {
  /** Where it goes on; null at its beginning. */
  cursor: string | null;
  /** All that is wanted has come. */
  done: boolean;
  /** The last box that came. */
  last: Card | null;
}

export const START: Walk = { cursor: null, done: false, last: null };

/** After another page of it. */
export function onward(walk: Walk, page: Page<Card>): Walk {
  const cursor = page.next_cursor ?? null;
  return { cursor, done: !page.has_more || cursor === null, last: page.items.at(-1) ?? walk.last };
}

/** Whether a box that was not asked for has its place in what came so far; one further on comes with its page. */
export const isWithin = (walk: Walk, card: Card): boolean => walk.done || (walk.last !== null && byServer(card, walk.last) <= 0);
