// Places: `/`, `/devices/{id}`, and those of `PLACES`. Links stay links, so that a middle click opens a tab.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export const path = signal(location.pathname);
/** What follows the path of the list, with its question mark; it stays while a box is open. */
export const query = signal("");

function arrived(): void {
  path.value = location.pathname;
  if (location.pathname === "/") query.value = location.search;
}
arrived();

addEventListener("popstate", arrived);

export function go(to: string): void {
  if (to !== location.pathname + location.search) history.pushState(null, "", to);
  arrived();
  scrollTo(0, 0);
}

/** Another query of the same place; in passing, it leaves no step to go back to. */
export function requery(to: string, inPassing: boolean): void {
  const address = location.pathname + to;
  if (inPassing) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  arrived();
}

/** The list as it was left. */
export const home = (): string => `/${query.value}`;

/** The device that a path names, or null. Pure. */
export function deviceOf(pathname: string): string | null {
  const found = /^\/devices\/([^/]+)\/?$/.exec(pathname);
  try {
    return found?.[1] ? decodeURIComponent(found[1]) : null;
  } catch {
    return null;
  }
}

/** Beside the boxes, in the order of the bar; `admin` for administrators only. */
export const PLACES = [
  { path: "/alerts", words: "Alerts", admin: false },
  { path: "/map", words: "Map", admin: false },
  { path: "/releases", words: "Releases", admin: false },
  { path: "/users", words: "Users", admin: true },
  { path: "/audit", words: "Audit", admin: true },
] as const;

export type Place = (typeof PLACES)[number]["path"];

/** The place beside the boxes that a path names, or null. Pure. */
export const placeOf = (pathname: string): Place | null => PLACES.find((place) => place.path === pathname.replace(/\/$/, ""))?.path ?? null;

interface LinkProps {
  to: string;
  class?: string;
  title?: string;
  /** Ids of what is heard after its words. */
  describedBy?: string;
  tabIndex?: number;
  current?: boolean;
  children: ComponentChildren;
}

export function Link(props: LinkProps) {
  return (
    <a
      href={props.to}
      class={props.class}
      title={props.title}
      aria-describedby={props.describedBy}
      tabIndex={props.tabIndex}
      aria-current={props.current ? "page" : undefined}
      onClick={(event) => {
        if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        go(props.to);
      }}
    >
      {props.children}
    </a>
  );
}
