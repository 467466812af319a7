// All boxes at a glance, a cell each, grouped by place or tag: colour and shape say how a box is. A canvas a group, so that a
// hundred thousand boxes are drawn in an instant; the groups are walked by Tab and their boxes by the arrow keys, and the counts
// and the list say the same in words.

import { useEffect, useRef, useState } from "preact/hooks";
import { counted, layout, sizeFor, step, type Grid, type StateGroup, type States } from "./cells.js";
import { Failed, useRead } from "./read.js";
import { go } from "./router.js";
import { api } from "./session.js";
import { whole } from "./roll.js";
import { pushedStates, stirred } from "./store.js";

/** Of a large fleet the map is read anew when something moved, at most this often (milliseconds); a small one is pushed. */
const ANEW = 10_000;

/** No canvas may be taller than some browsers draw, in their pixels. */
const TALLEST = 16_000;

const LOOKS: Record<string, { words: string; paint(context: CanvasRenderingContext2D, x: number, y: number, size: number): void }> = {
  o: {
    words: "online",
    paint(context, x, y, size) {
      context.fillStyle = "#34c77b";
      context.fillRect(x, y, size, size);
    },
  },
  t: {
    words: "strained by load, heat or disk",
    paint(context, x, y, size) {
      context.fillStyle = "#ffb930";
      context.beginPath();
      context.moveTo(x + size / 2, y);
      context.lineTo(x + size, y + size);
      context.lineTo(x, y + size);
      context.fill();
    },
  },
  f: {
    words: "offline",
    paint(context, x, y, size) {
      context.strokeStyle = "#ff453a";
      context.lineWidth = Math.max(1, size / 5);
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + size, y + size);
      context.moveTo(x + size, y);
      context.lineTo(x, y + size);
      context.stroke();
    },
  },
  u: {
    words: "never seen",
    paint(context, x, y, size) {
      context.strokeStyle = "#6d7a89";
      context.lineWidth = 1;
      context.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
    },
  },
};

export function StateMap() {
  const [by, setBy] = useState<"place" | "tag">("place");
  // A small fleet is pushed; of a large one the map is read anew when something moved.
  const stir = { seen: whole.value ? 0 : stirred.value, gather: ANEW };
  const { found: states, failed } = useRead(() => api<States>(`/devices/states?by=${by}`), by, stir);

  // What was pushed since is laid over what was read.
  const pushed = pushedStates.value;
  const groups = states?.groups ?? [];
  const counts = counted(groups, pushed);
  const total = counts.o + counts.t + counts.f + counts.u;
  const { width, height } = useWindow();
  const size = sizeFor(total, groups.length, width, height);
  return (
    <main class="place-page wide">
      <div class="row spread">
        <h1>Map of states</h1>
        <div class="views" role="group" aria-label="Group by">
          {(["place", "tag"] as const).map((one) => (
            <button key={one} class="small" aria-pressed={by === one} onClick={() => setBy(one)} data-testid={`by-${one}`}>
              {one === "place" ? "By place" : "By tag"}
            </button>
          ))}
        </div>
      </div>
      <Failed words={failed} />
      {states === null ? null : (
        <p class="key" role="status" data-testid="map-counts">
          {(["o", "t", "f", "u"] as const).map((letter) => (
            <span key={letter}>
              <Sample letter={letter} />
              <b>{counts[letter].toLocaleString("en")}</b> {LOOKS[letter]?.words}
            </span>
          ))}
        </p>
      )}
      {states?.truncated ? <p class="muted">Only the first 200,000 boxes are shown.</p> : null}
      {states === null && !failed ? <p class="muted">Loading…</p> : null}
      {groups.map((group) => (
        <Group key={group.name} group={group} by={by} pushed={pushed} size={size} />
      ))}
    </main>
  );
}

/** The window's size, in pixels. */
function useWindow(): { width: number; height: number } {
  const measure = () => ({ width: innerWidth, height: innerHeight });
  const [size, setSize] = useState(measure);
  useEffect(() => {
    const onResize = () => setSize(measure());
    addEventListener("resize", onResize);
    return () => removeEventListener("resize", onResize);
  }, []);
  return size;
}

function Sample({ letter }: { letter: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (context) LOOKS[letter]?.paint(context, 4, 4, 28);
  }, [letter]);
  return <canvas ref={canvas} width={36} height={36} aria-hidden="true" />;
}

function Group({ group, by, pushed, size }: { group: StateGroup; by: "place" | "tag"; pushed: ReadonlyMap<string, string>; size: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState<number | null>(null);
  const grid: Grid = layout(group.ids.length, width, size);
  const stateOf = (index: number): string => pushed.get(group.ids[index] ?? "") ?? group.states[index] ?? "u";

  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const watch = new ResizeObserver(() => setWidth(element.clientWidth));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || width === 0) return;
    const ratio = Math.min(devicePixelRatio || 1, TALLEST / grid.height);
    element.width = Math.round(width * ratio);
    element.height = Math.round(grid.height * ratio);
    context.scale(ratio, ratio);
    for (let index = 0; index < group.ids.length; index += 1) {
      const x = (index % grid.columns) * grid.pitch;
      const y = Math.floor(index / grid.columns) * grid.pitch;
      LOOKS[stateOf(index)]?.paint(context, x + 1, y + 1, size - 1);
      if (index === at) {
        context.strokeStyle = "#ffffff";
        context.lineWidth = 2;
        context.strokeRect(x, y, grid.pitch, grid.pitch);
      }
    }
  }, [group, pushed, width, size, at]);

  const counts = counted([group], pushed);
  const words = `${counts.o} online, ${counts.t} strained, ${counts.f} offline, ${counts.u} never seen`;
  const name = group.name || (by === "place" ? "Without a place" : "Without a tag");
  const pointed = (event: MouseEvent): number | null => {
    const index = Math.floor(event.offsetY / grid.pitch) * grid.columns + Math.floor(event.offsetX / grid.pitch);
    return event.offsetX < grid.columns * grid.pitch && index >= 0 && index < group.ids.length ? index : null;
  };
  const open = (index: number | null) => {
    const id = index === null ? undefined : group.ids[index];
    if (id) go(`/devices/${encodeURIComponent(id)}`);
  };
  const told = at === null ? "" : `${group.ids[at]}: ${LOOKS[stateOf(at)]?.words}`;
  return (
    <section class="state-group" aria-label={name}>
      <h2>
        {name} <span class="muted">{words}</span>
        <span class="muted" aria-live="polite">
          {told}
        </span>
      </h2>
      <canvas
        ref={canvas}
        style={{ height: `${grid.height}px` }}
        tabIndex={0}
        role="application"
        aria-roledescription="map of boxes"
        aria-label={`${name}, ${group.ids.length} boxes: ${words}. Arrow keys walk, Enter opens.`}
        data-testid={`map-${group.name}`}
        onMouseMove={(event) => setAt(pointed(event))}
        onMouseLeave={() => setAt(null)}
        onClick={(event) => open(pointed(event))}
        onBlur={() => setAt(null)}
        onKeyDown={(event) => {
          if (event.key === "Enter") return open(at);
          const to = step(event.key, at, grid.columns, group.ids.length);
          if (to === null) return;
          event.preventDefault();
          setAt(to);
        }}
      />
    </section>
  );
}
