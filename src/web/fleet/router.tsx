// Two places: `/` and `/devices/{id}`. Links stay links, so that a middle click opens a tab.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export const path = signal(location.pathname);

addEventListener("popstate", () => (path.value = location.pathname));

export function go(to: string): void {
  if (to !== location.pathname) history.pushState(null, "", to);
  path.value = to;
  scrollTo(0, 0);
}

/** The device that a path names, or null. Pure. */
export function deviceOf(pathname: string): string | null {
  const found = /^\/devices\/([^/]+)\/?$/.exec(pathname);
  try {
    return found?.[1] ? decodeURIComponent(found[1]) : null;
  } catch {
    return null;
  }
}

export function Link(props: { to: string; class?: string; label?: string; children: ComponentChildren }) {
  return (
    <a
      href={props.to}
      class={props.class}
      aria-label={props.label}
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
