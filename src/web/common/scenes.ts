// Scenes as the pages use them: which scene is "this input full", which one a digit means, where a slot lies. Pure.

import type { Scene, Slot } from "./contract.js";

const covers = (slot: Slot) => slot.x_rel <= 0.001 && slot.y_rel <= 0.001 && slot.w_rel >= 0.999 && slot.h_rel >= 0.999;

/** The scene that shows one input alone and full, if there is one. */
export function fullSceneOf(input: string, scenes: readonly Scene[]): Scene | undefined {
  return scenes.find((scene) => {
    const slots = scene.slots ?? [];
    const slot = slots[0];
    return slots.length === 1 && slot !== undefined && slot.source === input && covers(slot);
  });
}

/** Digit "1" to "9" means the n-th scene of the list. */
export function sceneForDigit(digit: string, scenes: readonly Scene[]): Scene | undefined {
  return /^[1-9]$/.test(digit) ? scenes[Number(digit) - 1] : undefined;
}

/** The digit that previews this scene, or an empty string. */
export function digitOf(scene: Scene | undefined, scenes: readonly Scene[]): string {
  const index = scene ? scenes.findIndex((other) => other.id === scene.id) : -1;
  return index >= 0 && index < 9 ? String(index + 1) : "";
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Slots back to front, as the compositor stacks them. */
export function stacked(slots: readonly Slot[]): Slot[] {
  return slots
    .map((slot, index) => ({ slot, index }))
    .sort((a, b) => (a.slot.z ?? 0) - (b.slot.z ?? 0) || a.index - b.index)
    .map(({ slot }) => slot);
}

const share = (crop: number | undefined) => Math.min(0.95, Math.max(0, crop ?? 0));

/** The part of the source that a slot shows, as shares of the source's width and height. */
export function cropOf(slot: Slot): Box {
  const left = share(slot.crop_left);
  const top = share(slot.crop_top);
  return {
    left,
    top,
    width: Math.max(0.05, 1 - left - share(slot.crop_right)),
    height: Math.max(0.05, 1 - top - share(slot.crop_bottom)),
  };
}
