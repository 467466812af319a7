// Scene buttons: a click puts the scene on preview, a double click takes it. Each shows its layout in small.

import type { Scene, State } from "../../common/contract.js";
import { digitOf, stacked } from "../../common/scenes.js";
import { preview, take } from "./mixer.js";

export function Scenes({ box }: { box: State }) {
  return (
    <section class="scenes" aria-label="Scenes">
      {box.scenes.map((scene) => {
        const onAir = scene.id === box.programme.scene;
        const next = scene.id === box.pvw.scene;
        const digit = digitOf(scene, box.scenes);
        return (
          <button
            key={scene.id}
            class={`scene ${onAir ? "pgm" : ""} ${next ? "pvw" : ""}`}
            data-testid={`scene-${scene.id}`}
            data-tally={onAir ? "programme" : next ? "preview" : "none"}
            aria-keyshortcuts={digit || undefined}
            aria-label={`${scene.label}${onAir ? ", on programme" : ""}${next ? ", on preview" : ""}`}
            onClick={() => void preview(scene.id)}
            onDblClick={() => void take(scene.id)}
            title={`Click: preview${digit ? ` (key ${digit})` : ""}. Double click: take.`}
          >
            <Layout scene={scene} />
            <span class="name">{scene.label}</span>
            {digit ? <kbd>{digit}</kbd> : null}
          </button>
        );
      })}
    </section>
  );
}

function Layout({ scene }: { scene: Scene }) {
  return (
    <svg class="layout" viewBox="0 0 32 18" aria-hidden="true">
      <rect width="32" height="18" rx="1.5" class="back" />
      {stacked(scene.slots ?? []).map((slot, index) => (
        <rect
          key={index}
          class="front"
          x={slot.x_rel * 32 + 0.6}
          y={slot.y_rel * 18 + 0.6}
          width={Math.max(0.5, slot.w_rel * 32 - 1.2)}
          height={Math.max(0.5, slot.h_rel * 18 - 1.2)}
          rx="0.8"
        />
      ))}
    </svg>
  );
}
