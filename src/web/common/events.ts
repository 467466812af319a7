// Server-sent events over fetch: like EventSource, but it can carry a Bearer token, tells why it is down, notices a connection
// that went silent, and comes back with full jitter.

import { createParser } from "eventsource-parser";
import { backoff } from "./backoff.js";
import { Problem, send, wordsFor } from "./problem.js";

export type Link = { up: boolean; since: number; why: string | null; refused: boolean };

export interface EventsOptions {
  url: string;
  /** Asked before each attempt, so that a refreshed token is used. */
  headers?: () => Promise<Record<string, string>> | Record<string, string>;
  credentials?: RequestCredentials;
  /** Reconnect when nothing at all, comments included, came for so long (milliseconds). 0: never. */
  silence: number;
  onEvent(name: string, data: string): void;
  onLink(link: Link): void;
  /** Answer true to stop for good (for instance when the token is not accepted any more). */
  onRefused?(problem: Problem): boolean;
}

/** Opens the stream and keeps it open until the returned function is called. */
export function openEvents(options: EventsOptions): () => void {
  let stopped = false;
  let attempt = 0;
  let abort = new AbortController();
  let wake: (() => void) | null = null;

  /** Up or down, and since when: another attempt that fails is no new loss. */
  let was: { up: boolean; since: number } | null = null;
  const link = (up: boolean, why: string | null, refused = false) => {
    if (was?.up !== up) was = { up, since: Date.now() };
    options.onLink({ up, since: was.since, why, refused });
  };

  async function once(): Promise<void> {
    abort = new AbortController();
    const signal = abort.signal;
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    let silent = false;
    const heard = () => {
      clearTimeout(watchdog);
      if (options.silence > 0) {
        watchdog = setTimeout(() => {
          silent = true;
          abort.abort();
        }, options.silence);
      }
    };
    try {
      heard();
      const headers = { accept: "text/event-stream", ...(await options.headers?.()) };
      const response = await send(options.url, {
        headers,
        signal,
        cache: "no-store",
        credentials: options.credentials ?? "same-origin",
      });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      if (!reader) throw new Problem(0, "No stream", "this browser cannot read a stream");
      link(true, null);
      const parser = createParser({
        onEvent(event) {
          attempt = 0;
          options.onEvent(event.event ?? "message", event.data);
        },
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Problem(0, "Closed", "the server closed the connection");
        heard();
        parser.feed(value);
      }
    } catch (error) {
      if (silent) throw new Problem(0, "Silent", "the server went silent");
      throw error;
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }

  async function run(): Promise<void> {
    while (!stopped) {
      try {
        await once();
      } catch (error) {
        if (stopped) return;
        const refused = error instanceof Problem && (error.status === 401 || error.status === 403);
        link(false, wordsFor(error), refused);
        if (refused && options.onRefused?.(error as Problem)) return;
      }
      const pause = backoff(attempt++, Math.random());
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      wake = null;
    }
  }

  // A phone that comes out of the pocket, or a cable that is back, should not wait for the timer.
  const hurry = () => wake?.();
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);

  void run();
  return () => {
    stopped = true;
    abort.abort();
    wake?.();
    removeEventListener("online", hurry);
    document.removeEventListener("visibilitychange", hurry);
  };
}
