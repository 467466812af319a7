// Which boxes are wanted, and how they are shown: kept in the address, so that it can be sent, bookmarked and gone back to. Pure.

import type { Filter } from "./filter.js";

/** Pictures, or one line a box. */
export type View = "cards" | "list";

export interface Wanted {
  filter: Filter;
  tag: string | null;
  search: string;
  /** Left to the size of the fleet unless chosen. */
  view: View | null;
}

/** Boxes of a page when the server is asked; the most that it gives. */
export const PAGE = 200;

const FILTERS: readonly string[] = ["online", "offline", "trouble"];

/** Reads the query of an address; what it does not know is passed over. */
export function fromQuery(query: string): Wanted {
  const params = new URLSearchParams(query);
  const status = params.get("status") ?? "";
  const view = params.get("view");
  return {
    filter: FILTERS.includes(status) ? (status as Filter) : "all",
    tag: params.get("tag") || null,
    search: params.get("search") ?? "",
    view: view === "cards" || view === "list" ? view : null,
  };
}

/** The same as the query of an address: empty, or with its question mark. */
export function toQuery(wanted: Wanted): string {
  const params = new URLSearchParams();
  if (wanted.filter !== "all") params.set("status", wanted.filter);
  if (wanted.tag) params.set("tag", wanted.tag);
  if (wanted.search.trim()) params.set("search", wanted.search.trim());
  if (wanted.view) params.set("view", wanted.view);
  return params.size > 0 ? `?${params}` : "";
}

/** The next page of a walk through all boxes, or through those that are wanted; what the server cannot sort out is left out. */
export function pagePath(wanted: Wanted | null, cursor: string | null): string {
  const params = new URLSearchParams({ limit: String(PAGE) });
  if (wanted?.filter === "online" || wanted?.filter === "offline") params.set("status", wanted.filter);
  if (wanted?.tag) params.set("tag", wanted.tag);
  if (wanted?.search.trim()) params.set("search", wanted.search.trim());
  if (cursor) params.set("cursor", cursor);
  return `/devices?${params}`;
}

/** The stream of everything. */
export const EVENTS = "/api/v1/events";
/** Boxes that a stream can name. */
const NAMED = 400;

/**
 * The stream of some boxes, or of all with null, and of changes where these are read; boxes beyond what can be named are left to the
 * next reading.
 */
export function eventsPath(ids: readonly string[] | null, changes = false): string {
  const named = ids === null ? [] : [`devices=${[...new Set(ids)].slice(0, NAMED).sort().map(encodeURIComponent).join(",")}`];
  const asked = [...named, ...(changes ? ["changes=true"] : [])];
  return asked.length === 0 ? EVENTS : `${EVENTS}?${asked.join("&")}`;
}

/** Whether a stream speaks of every box. */
export const isOfAll = (path: string): boolean => !path.includes("devices=");
