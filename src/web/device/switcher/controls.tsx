// CUT and MIX: big enough for a thumb in the dark.

import type { State } from "../../common/contract.js";
import { cut, durations, mix, mixDuration } from "./mixer.js";

export function Controls({ box }: { box: State }) {
  const mixing = box.transition !== null;
  return (
    <div class="controls" role="group" aria-label="Transition">
      <button class="go cut" data-testid="cut" aria-keyshortcuts="Space" onClick={() => void cut()}>
        CUT
        <kbd>space</kbd>
      </button>
      <button class={`go mix ${mixing ? "moving" : ""}`} data-testid="mix" aria-keyshortcuts="Enter" onClick={() => void mix()}>
        {mixing ? "MIXING" : "MIX"}
        <kbd>enter</kbd>
      </button>
      <div class="durations" role="radiogroup" aria-label="Mix duration">
        {durations.map((ms) => (
          <button
            key={ms}
            role="radio"
            class="small"
            aria-checked={mixDuration.value === ms}
            onClick={() => (mixDuration.value = ms)}
          >
            {ms / 1000} s
          </button>
        ))}
      </div>
    </div>
  );
}
