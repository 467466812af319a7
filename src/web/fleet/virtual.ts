// Which rows of a long list are drawn. Pure.

export interface Span {
  /** Index of the first row that is drawn. */
  first: number;
  /** Index after the last one. */
  end: number;
}

/** Rows drawn beyond each edge, so that a quick scroll does not show the ground. */
const BEYOND = 8;

/** The rows in a window of `height` whose upper edge is at `top`, all in pixels; rows are all `row` high. */
export function spanOf(top: number, height: number, row: number, count: number): Span {
  if (row <= 0 || count <= 0) return { first: 0, end: 0 };
  const first = Math.min(Math.max(0, Math.floor(top / row) - BEYOND), count);
  return { first, end: Math.min(count, Math.ceil((top + height) / row) + BEYOND) };
}

/** Where a key takes one from a row; null when it is no key for that. `page` are the rows of a window. */
export function rowAfter(key: string, row: number, page: number, count: number): number | null {
  const to = { ArrowDown: row + 1, ArrowUp: row - 1, PageDown: row + page, PageUp: row - page, Home: 0, End: count - 1 }[key];
  return to === undefined || count === 0 ? null : Math.min(count - 1, Math.max(0, to));
}

/** How far a window must be scrolled so that a row is wholly in it. */
export function scrollFor(index: number, top: number, height: number, row: number): number {
  if (index * row < top) return index * row;
  return Math.max(top, (index + 1) * row - height);
}
