// The crew's page: programme and preview, scenes, inputs with tally, guests. One screen at a desk, one column on a phone.

import "../../common/base.css";
import "../device.css";
import "./tiles.css";
import "./switcher.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import { sceneForDigit } from "../../common/scenes.js";
import { Toasts } from "../../common/toasts.js";
import { followBox, link, scenes, state } from "../box.js";
import { LostBanner } from "../lost.js";
import { Controls } from "./controls.js";
import { Guests } from "./guests.js";
import { KeyHelp } from "./help.js";
import { actionFor } from "./keys.js";
import { cut, mix, preview } from "./mixer.js";
import { Preview } from "./preview.js";
import { Programme } from "./programme.js";
import { Scenes } from "./scenes.js";
import { Strip } from "./strip.js";
import { Tile } from "./tile.js";

const helpOpen = signal(false);

function onKey(event: KeyboardEvent): void {
  const target = event.target instanceof HTMLElement ? event.target : null;
  const action = actionFor(event, target?.tagName ?? "", target?.matches(":focus-visible") ?? false);
  if (!action || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  switch (action.do) {
    case "preview": {
      const scene = sceneForDigit(action.digit, scenes.value);
      if (scene) void preview(scene.id);
      break;
    }
    case "cut":
      target?.blur();
      void cut();
      break;
    case "mix":
      target?.blur();
      void mix();
      break;
    case "help":
      helpOpen.value = true;
      break;
    case "close":
      target?.blur();
  }
}

/** A button pressed by mouse or finger gives the focus back, so that the next space is a cut and not the same button again. */
function onClick(event: MouseEvent): void {
  const pressed = event.target instanceof Element ? event.target.closest("button") : null;
  if (event.detail > 0 && pressed && !pressed.closest("dialog")) pressed.blur();
}

function Switcher() {
  useEffect(() => {
    addEventListener("keydown", onKey);
    addEventListener("click", onClick);
    return () => {
      removeEventListener("keydown", onKey);
      removeEventListener("click", onClick);
    };
  }, []);
  const box = state.value;
  useEffect(() => {
    if (box) document.title = `${box.device.name} · R58 switcher`;
  }, [box?.device.name]);

  if (!box) {
    return (
      <main class="waiting">
        <LostBanner />
        <p class="muted">{link.value.why ? "The box does not answer." : "Connecting to the box…"}</p>
        <Toasts />
      </main>
    );
  }
  return (
    <div class="switcher">
      <LostBanner />
      <Strip box={box} onHelp={() => (helpOpen.value = true)} />
      <main>
        <section class="stage" aria-label="Programme and preview">
          <Programme box={box} />
          <div class="side">
            <Preview box={box} />
            <Controls box={box} />
            <Scenes box={box} />
          </div>
        </section>
        <section class="tiles" aria-label="Inputs">
          {box.inputs.map((input) => (
            <Tile key={input.id} box={box} input={input} />
          ))}
        </section>
        <Guests box={box} />
      </main>
      <KeyHelp open={helpOpen} rehearsal={box.rehearsal} />
      <Toasts />
    </div>
  );
}

followBox();
render(<Switcher />, document.getElementById("app")!);
