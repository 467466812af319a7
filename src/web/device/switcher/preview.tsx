// The preview: the scene that a cut would take, laid out from its slots with the thumbnails that are here already. The box does
// not encode a second picture for it.

import type { State } from "../../common/contract.js";
import { Picture } from "../../common/picture.js";
import { cropOf, stacked } from "../../common/scenes.js";
import { hasPicture, signalWords } from "../../common/words.js";
import { pictures } from "../box.js";

const share = (value: number) => `${(value * 100).toFixed(3)}%`;

export function Preview({ box }: { box: State }) {
  const scene = box.scenes.find((one) => one.id === box.pvw.scene);
  const { width, height } = box.programme;
  return (
    <section class="bus preview" aria-label="Preview" data-testid="preview" data-scene={scene?.id ?? ""}>
      <div class="picture" style={{ aspectRatio: `${width} / ${height}` }}>
        {stacked(scene?.slots ?? []).map((slot, index) => {
          const input = box.inputs.find((one) => one.id === slot.source);
          const shown = input ? hasPicture(input.signal) : false;
          return (
            <div
              key={`${slot.source}-${index}`}
              class="slot"
              style={{
                left: share(slot.x_rel),
                top: share(slot.y_rel),
                width: share(slot.w_rel),
                height: share(slot.h_rel),
                opacity: String(slot.alpha ?? 1),
              }}
            >
              <Picture store={pictures} name={slot.source} label={input?.label ?? slot.source} crop={cropOf(slot)} />
              {shown ? null : (
                <span class="slate">
                  <b>{input ? signalWords(input.signal).words : "No such input"}</b>
                  <span>{input?.label ?? slot.source}</span>
                </span>
              )}
            </div>
          );
        })}
        <span class="flag pvw">PVW</span>
        <span class="what cut-off">{scene?.label ?? box.pvw.scene ?? "nothing on preview"}</span>
      </div>
    </section>
  );
}
