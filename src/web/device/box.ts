// The box's state as its pages hold it: pushed by /api/events, never polled, never guessed.

import { computed, signal, type Signal } from "@preact/signals";
import type { State } from "../common/contract.js";
import { openEvents, type Link } from "../common/events.js";
import { byUrl, Pictures } from "../common/pictures.js";

export const state = signal<State | null>(null);
export const link = signal<Link>({ up: false, since: Date.now(), why: null, refused: false });
/** A clock for relative times; once a second. */
export const now = signal(Date.now());
export const scenes = computed(() => state.value?.scenes ?? []);

const levels = new Map<string, Signal<number | null>>();

/** Level of an input or of the programme in dBFS. */
export function level(id: string): Signal<number | null> {
  let one = levels.get(id);
  if (!one) levels.set(id, (one = signal(null)));
  return one;
}

export const pictures = new Pictures(byUrl((name) => `/api/thumbnails/${encodeURIComponent(name)}`), 1_000);

/** Levels come five times a second, and the box says at least something every fifteen seconds. */
const SILENCE = 20_000;

/** A box that is only just up may not have everything to tell yet. */
function whole(given: Partial<State>): State {
  return {
    ...given,
    device: given.device ?? { id: "", name: "R58" },
    programme: given.programme ?? { width: 1280, height: 720, fps: 0, frames: 0, missed_slots: 0, scene: null },
    pvw: given.pvw ?? { scene: null },
    transition: given.transition ?? null,
    inputs: given.inputs ?? [],
    scenes: given.scenes ?? [],
    degradation: { level: given.degradation?.level ?? 0, reasons: given.degradation?.reasons ?? [] },
    fleet: given.fleet ?? { state: "off" },
    turn: given.turn ?? {},
    identify: given.identify ?? null,
    whep_inputs: given.whep_inputs ?? true,
    rehearsal: given.rehearsal ?? false,
  };
}

export function followBox(): () => void {
  setInterval(() => (now.value = Date.now()), 1_000);
  return openEvents({
    url: "/api/events",
    silence: SILENCE,
    onLink: (value) => (link.value = value),
    onEvent(name, data) {
      if (name === "state") state.value = whole(JSON.parse(data) as Partial<State>);
      else if (name === "levels") {
        for (const [id, db] of Object.entries(JSON.parse(data) as Record<string, number | null>)) level(id).value = db;
      }
    },
  });
}
