// Thumbnails: one download and one decode per picture, however many canvases show it; only while one of them is visible.
//
// Pictures are decoded to bitmaps and drawn on canvases. That needs no `blob:` or `data:` in the content policy, carries a Bearer
// token where one is needed, and lets a preview crop and stack the same bitmaps that the tiles show.

import { signal, type Signal } from "@preact/signals";

export interface Frame {
  bitmap: ImageBitmap;
  /** ETag or sequence of this picture. */
  version: string;
  at: number;
}

/** There is no picture under this name yet. */
export class NoPicture extends Error {}

/** Gets a picture; null when it is the version that we have. */
export type Fetcher = (name: string, have: string | null, abort: AbortSignal) => Promise<{ version: string; blob: Blob } | null>;

interface Entry {
  frame: Signal<Frame | null>;
  watchers: number;
  busy: boolean;
  dirty: boolean;
  due: number;
  misses: number;
}

/** Downloads in a second, of all pictures together: a wall of boxes must not keep the server busy with itself. */
const MOST_A_SECOND = 15;

export class Pictures {
  private readonly entries = new Map<string, Entry>();
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly fetcher: Fetcher;
  private readonly period: number;

  /** `period`: milliseconds between looks at a visible picture; 0 means that `changed` tells when to look. */
  constructor(fetcher: Fetcher, period: number) {
    this.fetcher = fetcher;
    this.period = period;
    document.addEventListener("visibilitychange", () => this.tick());
  }

  frame(name: string): Signal<Frame | null> {
    return this.entry(name).frame;
  }

  /** Keeps a picture fresh until the returned function is called. */
  watch(name: string): () => void {
    const entry = this.entry(name);
    entry.watchers += 1;
    this.timer ??= setInterval(() => this.tick(), 250);
    this.tick();
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      entry.watchers -= 1;
      if ([...this.entries.values()].every((other) => other.watchers === 0)) {
        clearInterval(this.timer);
        this.timer = undefined;
      }
    };
  }

  /** The server has a new picture under this name. */
  changed(name: string): void {
    this.entry(name).dirty = true;
    this.tick();
  }

  /** Forgets everything, for instance at sign-out. */
  clear(): void {
    for (const entry of this.entries.values()) {
      entry.frame.value?.bitmap.close();
      entry.frame.value = null;
      entry.dirty = true;
    }
  }

  private entry(name: string): Entry {
    let entry = this.entries.get(name);
    if (!entry) {
      entry = { frame: signal(null), watchers: 0, busy: false, dirty: true, due: 0, misses: 0 };
      this.entries.set(name, entry);
    }
    return entry;
  }

  /** Pause between two downloads of a picture that keeps all of them within the limit, in milliseconds. */
  private pace(): number {
    let watched = 0;
    for (const entry of this.entries.values()) {
      if (entry.watchers > 0) watched += 1;
    }
    return (watched * 1_000) / MOST_A_SECOND;
  }

  private tick(): void {
    if (document.hidden) return;
    const now = performance.now();
    for (const [name, entry] of this.entries) {
      const wanted = this.period > 0 || entry.dirty;
      if (entry.watchers > 0 && !entry.busy && wanted && now >= entry.due) {
        void this.load(name, entry);
      }
    }
  }

  private async load(name: string, entry: Entry): Promise<void> {
    entry.busy = true;
    entry.dirty = false;
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), 8_000);
    try {
      const got = await this.fetcher(name, entry.frame.value?.version ?? null, abort.signal);
      if (got) {
        const bitmap = await createImageBitmap(got.blob);
        const old = entry.frame.value;
        entry.frame.value = { bitmap, version: got.version, at: Date.now() };
        old?.bitmap.close();
      }
      entry.misses = 0;
    } catch (error) {
      // No picture yet, or the box is away: the connection banner says so. Look again, ever less often; where pushes tell of new
      // pictures, wait for the push.
      entry.misses = Math.min(entry.misses + 1, 5);
      entry.dirty ||= !(error instanceof NoPicture);
    } finally {
      clearTimeout(limit);
      entry.busy = false;
      entry.due = performance.now() + (entry.misses > 0 ? 1_000 * (1 + entry.misses) : Math.max(this.period, this.pace()));
    }
  }
}

/** Pictures behind plain URLs with ETags: the browser's cache asks with If-None-Match and answers from itself on a 304. */
export function byUrl(url: (name: string) => string, headers?: () => Promise<Record<string, string>>): Fetcher {
  return async (name, have, abort) => {
    const response = await fetch(url(name), {
      cache: "no-cache",
      credentials: "same-origin",
      headers: (await headers?.()) ?? {},
      signal: abort,
    });
    if (response.status === 404) throw new NoPicture();
    if (!response.ok) throw new Error(`no picture: ${response.status}`);
    const version = response.headers.get("etag") ?? String(performance.now());
    if (version === have) {
      await response.body?.cancel();
      return null;
    }
    return { version, blob: await response.blob() };
  };
}
