// The audit log as it is shown: asked for by a filter, newest first, longer at both ends. Pure.

export interface Change {
  seq: number;
  at: string;
  actor: string;
  action: string;
  target: string;
  detail?: string | null;
  hash: string;
}

export interface Changes {
  items: Change[];
  has_more: boolean;
  next_cursor?: string;
}

export interface Filter {
  actor: string;
  action: string;
  target: string;
  since: string;
  until: string;
}

export const ALL: Filter = { actor: "", action: "", target: "", since: "", until: "" };

/** The query of a list. A day in the form is the whole of that day here, wherever the server stands. Pure. */
export function auditQuery(filter: Filter, cursor: string | null): string {
  const params = new URLSearchParams({ limit: "100" });
  for (const key of ["actor", "action", "target"] as const) if (filter[key].trim()) params.set(key, filter[key].trim());
  const day = (text: string, more: number) => {
    const [year = 0, month = 1, date = 1] = text.split("-").map(Number);
    return new Date(year, month - 1, date + more).toISOString();
  };
  if (filter.since) params.set("since", day(filter.since, 0));
  if (filter.until) params.set("until", day(filter.until, 1));
  if (cursor) params.set("cursor", cursor);
  return `?${params}`;
}

/** Changes that are shown, and where they go on. */
export interface Listed {
  items: Change[];
  cursor: string | null;
}

const listed = (page: Changes): Listed => ({ items: page.items, cursor: page.has_more ? (page.next_cursor ?? null) : null });

/** What is shown with the newest page on top of it; that page alone where it does not reach what is shown. Pure. */
export function withNewest(held: Listed | null, page: Changes): Listed {
  const top = held?.items[0]?.seq ?? 0;
  if (held === null || !page.items.some((change) => change.seq <= top)) return listed(page);
  return { ...held, items: [...page.items.filter((change) => change.seq > top), ...held.items] };
}

export const anew = (_: Listed | null, page: Changes): Listed => listed(page);

/** With the next page below it, unless the same came before. */
export const onward = (held: Listed | null, page: Changes): Listed => {
  const last = held?.items.at(-1)?.seq ?? Infinity;
  return { ...listed(page), items: [...(held?.items ?? []), ...page.items.filter((change) => change.seq < last)] };
};
