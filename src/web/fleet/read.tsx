// What a place reads: once when it opens, again when it is told to, and some time after something stirred. What was read last stays on
// the screen meanwhile; an answer that another one has overtaken is passed over.

import { useEffect, useRef, useState } from "preact/hooks";
import { wordsFor } from "../common/problem.js";

export interface Read<T> {
  /** Null until the first answer. */
  found: T | null;
  /** Why the last question had no answer. */
  failed: string | null;
  again(): Promise<void>;
}

export interface Stir {
  /** Another one when what was read may have changed. */
  seen: number | string;
  /** Milliseconds for which what stirs is gathered. */
  gather: number;
}

/** Reads anew from the start when `key` is another one. */
export function useRead<T>(read: () => Promise<T>, key = "", stir?: Stir): Read<T> {
  const [found, setFound] = useState<T | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const latest = useRef(read);
  /** Questions so far, and the latest whose answer counts: an older one that comes later is passed over. */
  const asked = useRef(0);
  const answered = useRef(0);
  latest.current = read;

  const again = async (): Promise<void> => {
    const mine = ++asked.current;
    const counts = () => mine > answered.current;
    try {
      const answer = await latest.current();
      if (!counts()) return;
      answered.current = mine;
      setFound(answer);
      setFailed(null);
    } catch (error) {
      if (!counts()) return;
      answered.current = mine;
      setFailed(wordsFor(error));
    }
  };

  useEffect(() => {
    void again();
    return () => {
      // Nothing that was asked before counts any more.
      answered.current = asked.current;
    };
  }, [key]);
  useStir(stir, () => void again());
  return { found, failed, again };
}

/** Runs something some time after it stirred. */
export function useStir(stir: Stir | undefined, run: () => void): void {
  const latest = useRef(run);
  latest.current = run;
  const waiting = useRef<ReturnType<typeof setTimeout>>();
  const seen = useRef(stir?.seen);
  useEffect(() => {
    if (stir === undefined || stir.seen === seen.current) return;
    seen.current = stir.seen;
    waiting.current ??= setTimeout(() => {
      waiting.current = undefined;
      latest.current();
    }, stir.gather);
  }, [stir?.seen]);
  useEffect(() => () => clearTimeout(waiting.current), []);
}

/** Why something is not here. */
export function Failed({ words }: { words: string | null }) {
  return words === null ? null : (
    <p class="error" role="alert">
      {words}
    </p>
  );
}
