// A level meter from -60 to 0 dBFS. It writes to the element directly: levels come many times a second.

import { effect, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { meterRatio } from "./format.js";

export function Meter(props: { level: ReadonlySignal<number | null>; label: string }) {
  const meter = useRef<HTMLDivElement>(null);
  const bar = useRef<HTMLSpanElement>(null);
  useEffect(
    () =>
      effect(() => {
        const db = props.level.value;
        const ratio = meterRatio(db);
        if (bar.current) bar.current.style.transform = `scaleX(${1 - ratio})`;
        meter.current?.setAttribute("aria-valuenow", String(Math.round(db ?? -60)));
      }),
    [props.level],
  );
  return (
    <div ref={meter} class="meter" role="meter" aria-label={props.label} aria-valuemin={-60} aria-valuemax={0}>
      <span ref={bar} />
    </div>
  );
}
