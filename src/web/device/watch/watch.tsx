// The page of a viewer from outside: one stream, as large as the window, by WHEP or HLS, and it says which.

import "../../common/base.css";
import "./watch.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { watchFrames } from "../../common/frames.js";
import { watch } from "../../common/watch.js";
import { start, type Watching } from "../../common/watching.js";

const name = decodeURIComponent(location.pathname.split("/").pop() ?? "");
const query = new URLSearchParams(location.search);
const token = query.get("token");
/** `?via=hls` or `?via=whep` allows one way only: for screens behind a proxy, and to see whether it works. */
const via = query.get("via");

const state = signal<Watching>(start);
const moving = signal(false);
const muted = signal(true);

function words(): string {
  const { on, trying, why } = state.value;
  if (on && moving.value) return on === "whep" ? "Live" : "Live, some seconds behind (HLS)";
  if (trying === "hls") return "Connecting by HLS…";
  if (trying === "whep" || on) return "Connecting…";
  return why ? `${why}. Trying again.` : "Connecting…";
}

function Watch() {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const element = video.current;
    if (!element) return;
    const ways = { whep: via !== "hls", hls: via !== "whep" };
    const stop = watch({ name, token, audio: true, video: element, ways, onState: (value) => (state.value = value) });
    const unwatch = watchFrames(element, (now) => (moving.value = now));
    return () => {
      stop();
      unwatch();
    };
  }, []);
  const listen = () => {
    muted.value = !muted.value;
    if (video.current) video.current.muted = muted.value;
  };
  const live = state.value.on !== null && moving.value;
  return (
    <main class="watch" data-testid="watch" data-way={state.value.on ?? "none"} data-live={live ? "yes" : "no"}>
      <video ref={video} class={live ? "" : "unseen"} muted autoplay playsinline data-testid="watch-video" />
      <div class="bar">
        <span class={`how ${live ? "live" : ""}`} role="status" title={state.value.why ?? undefined}>
          {words()}
        </span>
        <button disabled={!live} onClick={listen} aria-pressed={!muted.value} data-testid="listen">
          {muted.value ? "Listen" : "Mute"}
        </button>
        <button disabled={!live} onClick={() => void video.current?.requestFullscreen?.().catch(() => undefined)}>
          Full screen
        </button>
      </div>
    </main>
  );
}

const app = document.getElementById("app");
document.title = `${name} · R58`;
if (app) render(<Watch />, app);
