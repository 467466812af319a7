// The programme: live by WHEP when it can be, else its thumbnail once a second, and it says which.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { State } from "../../common/contract.js";
import { watchFrames } from "../../common/frames.js";
import { Meter } from "../../common/meter.js";
import { Picture } from "../../common/picture.js";
import { watchWhep, type WhepState } from "../../common/whep.js";
import { level, pictures } from "../box.js";

const stream = signal<MediaStream | null>(null);
const whep = signal<{ state: WhepState; why: string | null }>({ state: "connecting", why: null });
const muted = signal(true);
/** True while the video element really shows new frames. */
const showing = signal(false);

export function Programme({ box }: { box: State }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(
    () =>
      watchWhep({
        name: "programme",
        audio: true,
        onStream: (value) => {
          stream.value = value;
          if (!value) showing.value = false;
        },
        onState: (state, why) => (whep.value = { state, why }),
      }),
    [],
  );
  useEffect(() => (video.current ? watchFrames(video.current, (moving) => (showing.value = moving)) : undefined), []);
  useEffect(() => {
    const element = video.current;
    if (!element) return;
    element.srcObject = stream.value;
    if (stream.value) void element.play().catch(() => undefined);
  }, [stream.value]);

  const scene = box.scenes.find((one) => one.id === box.programme.scene);
  const live = stream.value !== null && showing.value;
  const listen = () => {
    muted.value = !muted.value;
    if (video.current) video.current.muted = muted.value;
  };
  return (
    <section class="bus programme" aria-label="Programme" data-testid="programme" data-live={live ? "webrtc" : "thumbnail"}>
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
        <span class="how" title={whep.value.why ?? undefined}>
          {live ? "Live" : whep.value.state === "connecting" ? "Thumbnail, connecting…" : "Thumbnail"}
        </span>
        <button class="small listen" disabled={!live} onClick={listen} aria-pressed={!muted.value} data-testid="listen">
          {muted.value ? "Listen" : "Mute"}
        </button>
      </div>
      <Meter level={level("programme")} label="Programme level" />
    </section>
  );
}
