// The programme: live by WHEP or HLS when it can be, else its thumbnail once a second, and it says which.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { State } from "../../common/contract.js";
import { watchFrames } from "../../common/frames.js";
import { Meter } from "../../common/meter.js";
import { Picture } from "../../common/picture.js";
import { watch } from "../../common/watch.js";
import { start, type Watching } from "../../common/watching.js";
import { level, pictures } from "../box.js";

const watching = signal<Watching>(start);
const muted = signal(true);
/** True while the video element really shows new frames. */
const showing = signal(false);

export function Programme({ box }: { box: State }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (!video.current) return;
    return watch({
      name: "programme",
      audio: true,
      video: video.current,
      onState(state) {
        watching.value = state;
        if (!state.on) showing.value = false;
      },
    });
  }, []);
  useEffect(() => (video.current ? watchFrames(video.current, (moving) => (showing.value = moving)) : undefined), []);

  const scene = box.scenes.find((one) => one.id === box.programme.scene);
  const { on, trying, why } = watching.value;
  const live = on !== null && showing.value;
  const how = on === "hls" ? "hls" : "webrtc";
  const listen = () => {
    muted.value = !muted.value;
    if (video.current) video.current.muted = muted.value;
  };
  return (
    <section class="bus programme" aria-label="Programme" data-testid="programme" data-live={live ? how : "thumbnail"}>
      <div class="picture" style={{ aspectRatio: `${box.programme.width} / ${box.programme.height}` }}>
        <Picture store={pictures} name="programme" label="Programme" />
        <video
          ref={video}
          class={live ? "" : "unseen"}
          muted
          autoplay
          playsinline
          data-testid="programme-video"
        />
        <span class="flag pgm">PGM</span>
        <span class="what cut-off">{scene?.label ?? box.programme.scene ?? "no scene"}</span>
        <span class="how" title={why ?? undefined}>
          {live ? (how === "hls" ? "Live (HLS)" : "Live") : trying ? "Thumbnail, connecting…" : "Thumbnail"}
        </span>
        <button class="small listen" disabled={!live} onClick={listen} aria-pressed={!muted.value} data-testid="listen">
          {muted.value ? "Listen" : "Mute"}
        </button>
      </div>
      <Meter level={level("programme")} label="Programme level" />
    </section>
  );
}
