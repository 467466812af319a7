// Where the cells of the map of states stand, and how they are counted and walked. Pure.

import type { Card } from "./contract.js";
import { inTrouble } from "./filter.js";

export interface StateGroup {
  name: string;
  ids: string[];
  /** A letter for each id: `o` online, `t` online and in trouble, `f` offline, `u` never seen. */
  states: string;
}

export interface States {
  groups: StateGroup[];
  truncated: boolean;
}

export interface Grid {
  columns: number;
  /** From one cell to the next. */
  pitch: number;
  height: number;
}

export type Counts = Record<"o" | "t" | "f" | "u", number>;

/** Cells of `size` in a canvas of `width`, all in pixels, with one between them. */
export function layout(count: number, width: number, size: number): Grid {
  const pitch = size + 1;
  const columns = Math.max(1, Math.floor(width / pitch));
  return { columns, pitch, height: Math.max(1, Math.ceil(count / columns)) * pitch };
}

const SIZES = [56, 40, 28, 20, 14, 9, 6];
/** Part of a window that cells and the names of their groups may fill before cells become smaller. */
const FILLED = 0.6;
/** Height of a group's name, in pixels. */
const HEAD = 40;

/** The largest cells with which so many in so many groups fit a window, in pixels: to be seen from afar, and to be hit by a finger. */
export function sizeFor(count: number, groups: number, width: number, height: number): number {
  const least = count > 20_000 ? 6 : count > 2_000 ? 9 : 14;
  const area = (size: number) => count * (size + 1) ** 2 + groups * (HEAD + size / 2) * width;
  return SIZES.find((size) => size > least && area(size) <= FILLED * width * height) ?? least;
}

/** The letter of a box that was pushed. */
export function letterOf(card: Card): string {
  if (card.online) return inTrouble(card) ? "t" : "o";
  return card.presence === "unknown" ? "u" : "f";
}

/** How many are in which state, what was pushed laid over what was read. */
export function counted(groups: readonly StateGroup[], pushed: ReadonlyMap<string, string>): Counts {
  const counts: Counts = { o: 0, t: 0, f: 0, u: 0 };
  for (const group of groups) {
    for (let index = 0; index < group.ids.length; index += 1) {
      const letter = pushed.get(group.ids[index] ?? "") ?? group.states[index] ?? "u";
      if (letter in counts) counts[letter as keyof Counts] += 1;
    }
  }
  return counts;
}

/** Where a key takes one from a cell; null when it is no key for that. The first key enters at the first cell. */
export function step(key: string, at: number | null, columns: number, count: number): number | null {
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const to = key === "Home" ? 0 : key === "End" ? count - 1 : by === undefined ? null : at === null ? 0 : at + by;
  return to === null || count === 0 ? null : Math.min(count - 1, Math.max(0, to));
}
