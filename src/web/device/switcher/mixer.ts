// What the crew does to the mixer. Pages never show what was asked for: tally and scenes come back with the next state.

import { signal } from "@preact/signals";
import { json } from "../../common/problem.js";
import { attempt } from "../../common/toasts.js";

/** Duration of a mix in milliseconds. */
export const mixDuration = signal(500);
export const durations = [250, 500, 1_000, 2_000];

export const preview = (scene: string) =>
  attempt("Preview", () => json("/api/mixer/set_scene", { scene }));

export const cut = () => attempt("Cut", () => json("/api/mixer/transition", { kind: "cut" }));

export const mix = () =>
  attempt("Mix", () => json("/api/mixer/transition", { kind: "mix", duration_ms: mixDuration.value }));

export const take = (scene: string) => attempt("Take", () => json("/api/mixer/take", { scene, kind: "cut" }));

export const rehearse = (input: string, fault: string) =>
  attempt("Rehearsal", () => json(`/api/cameras/${encodeURIComponent(input)}/rehearse`, { fault }));
