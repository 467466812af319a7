// One input: picture, tally, what its signal is in words, its level. A click takes it; shift or right click previews it.

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Input, State } from "../../common/contract.js";
import { LiveVideo } from "../../common/live.js";
import { Meter } from "../../common/meter.js";
import { Picture } from "../../common/picture.js";
import { digitOf, fullSceneOf } from "../../common/scenes.js";
import { toast } from "../../common/toasts.js";
import { hasPicture, isLive, signalReason, signalWords } from "../../common/words.js";
import { Age } from "../age.js";
import { level, pictures } from "../box.js";
import { preview, rehearse, take } from "./mixer.js";

const tallyWords = { programme: "on air", preview: "on preview", none: "" };

export function Tile({ box, input }: { box: State; input: Input }) {
  const full = fullSceneOf(input.id, box.scenes);
  const digit = digitOf(full, box.scenes);
  const { words, mood } = signalWords(input.signal);
  const live = isLive(input.signal);
  const shown = hasPicture(input.signal);
  const why = signalReason(input.signal, input.reason);
  const watching = useMemo(() => signal(false), []);
  const canWatch = box.whep_inputs && shown;

  const run = (act: (scene: string) => unknown) => {
    if (full) act(full.id);
    else toast(`No scene shows ${input.label} alone`, "bad");
  };
  const onClick = (event: MouseEvent) => run(event.shiftKey ? preview : take);
  const onContextMenu = (event: MouseEvent) => {
    event.preventDefault();
    run(preview);
  };

  return (
    <article
      class={`tile ${input.tally}`}
      data-testid={`input-${input.id}`}
      data-tally={input.tally}
      data-signal={input.signal}
      aria-label={`${input.label}, ${words}${tallyWords[input.tally] ? `, ${tallyWords[input.tally]}` : ""}`}
    >
      <button
        class="face"
        onClick={onClick}
        onContextMenu={onContextMenu}
        aria-label={`Take ${input.label}`}
        title="Click: take. Shift or right click: preview."
      >
        <span class="picture">
          <Picture store={pictures} name={input.id} label={input.label} class={shown ? "" : "old"} />
          {watching.value && canWatch ? <LiveVideo name={input.id} /> : shown ? <Age name={input.id} /> : null}
          {shown ? null : (
            <span class={`slate ${mood}`}>
              <b>{words}</b>
              {why ? <span>{why}</span> : null}
            </span>
          )}
          {input.signal === "waiting" && input.tally === "none" ? <span class="flag pvw">WAITS</span> : null}
          {input.tally !== "none" ? (
            <span class={`flag ${input.tally === "programme" ? "pgm" : "pvw"}`}>{input.tally === "programme" ? "ON AIR" : "NEXT"}</span>
          ) : null}
        </span>
      </button>
      <Meter level={level(input.id)} label={`${input.label} level`} />
      <div class="caption">
        {digit ? <kbd>{digit}</kbd> : null}
        <b class="cut-off grow">{input.label}</b>
        {live && input.sound ? (
          <span class="signal bad" title={input.sound}>
            no sound
          </span>
        ) : null}
        {input.muted ? <span class="signal warn">muted</span> : null}
        <span class={`signal ${mood}`}>{live ? `${Math.round(input.fps ?? 0)} fps` : words}</span>
      </div>
      <div class="actions">
        <button class="small next" onClick={() => run(preview)} aria-label={`Preview ${input.label}`} data-testid={`preview-${input.id}`}>
          PVW
        </button>
        <button
          class="small"
          aria-pressed={watching.value}
          disabled={!canWatch && !watching.value}
          onClick={() => (watching.value = !watching.value)}
          data-testid={`live-${input.id}`}
          title={box.whep_inputs ? "Live picture of this input on this page" : "Live input pictures are off: the box is saving its processor"}
        >
          Live
        </button>
        {box.rehearsal ? <Rehearsal input={input} /> : null}
      </div>
    </article>
  );
}

const faults: [string, string, string][] = [
  ["unplug", "Pull cable", "The input is gone, as if its cable was pulled, until it is plugged in again"],
  ["stall", "Stall", "Frames stop without an error; the input is opened anew after some seconds"],
  ["panic", "Panic", "The input's actor panics and is rebuilt by its supervisor"],
  ["none", "Plug", "Back to normal: frames go on, the cable is in"],
];

function Rehearsal({ input }: { input: Input }) {
  if (input.kind === "guest") return null;
  return (
    <details class="rehearsal">
      <summary>Rehearse</summary>
      <div role="group" aria-label={`Rehearse a fault of ${input.label}`}>
        {faults.map(([fault, words, title]) => (
          <button key={fault} class="small" title={title} data-testid={`rehearse-${input.id}-${fault}`} onClick={(event) => {
              event.currentTarget.closest("details")?.removeAttribute("open");
              void rehearse(input.id, fault);
            }}
          >
            {words}
          </button>
        ))}
      </div>
    </details>
  );
}
