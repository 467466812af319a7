// A stream at full rate over its still picture, and how it comes, in a word.

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { watchFrames } from "./frames.js";
import { watch } from "./watch.js";
import { start, type Watching } from "./watching.js";
import type { WhepDoor } from "./whep.js";

export function LiveVideo({ name, door }: { name: string; door?: WhepDoor }) {
  const video = useRef<HTMLVideoElement>(null);
  const watching = useMemo(() => signal<Watching>(start), []);
  const moving = useMemo(() => signal(false), []);
  useEffect(() => {
    if (!video.current) return;
    const onState = (state: Watching) => (watching.value = state);
    // HLS is at the box only.
    return watch({ name, door, ways: { whep: true, hls: !door }, audio: false, video: video.current, onState });
  }, [name, door?.url]);
  useEffect(() => (video.current ? watchFrames(video.current, (now) => (moving.value = now)) : undefined), []);
  const { on, trying, why } = watching.value;
  const live = on !== null && moving.value;
  return (
    <>
      <video ref={video} class={`over ${live ? "" : "unseen"}`} muted autoplay playsinline />
      <span class="how">{live ? (on === "hls" ? "Live (HLS)" : "Live") : on || trying ? "Connecting…" : (why ?? "No live picture")}</span>
    </>
  );
}
