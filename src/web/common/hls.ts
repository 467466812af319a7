// Plays one stream of the box by HLS: with Media Source Extensions where there are any, else by the browser itself.

import type HlsPlayer from "hls.js/light";

/** From the beginning to the first picture that moves, in milliseconds: the box starts an encoder first, and waits for a segment. */
const PLAY_LIMIT = 15_000;

const native = (): boolean => document.createElement("video").canPlayType("application/vnd.apple.mpegurl") !== "";
const sources = (): boolean => {
  // iPhones have had it since 17.1 under another name.
  const source = (globalThis as { ManagedMediaSource?: typeof MediaSource }).ManagedMediaSource ?? globalThis.MediaSource;
  return source !== undefined && source.isTypeSupported('video/mp4; codecs="avc1.42c01f,opus"');
};

export const canHls = (): boolean => sources() || native();

/** Keeps playing into `video` until the returned function is called; `onDown` is called once at most. */
export function playHls(video: HTMLVideoElement, url: string, onUp: () => void, onDown: (why: string) => void): () => void {
  let player: HlsPlayer | null = null;
  let ended = false;
  const limit = setTimeout(() => fail("HLS does not play"), PLAY_LIMIT);
  const onPlaying = () => {
    clearTimeout(limit);
    if (!ended) onUp();
  };
  const onError = () => player || fail("HLS does not play");
  video.addEventListener("playing", onPlaying);
  video.addEventListener("error", onError);

  function stop(): void {
    if (ended) return;
    ended = true;
    clearTimeout(limit);
    video.removeEventListener("playing", onPlaying);
    video.removeEventListener("error", onError);
    player?.destroy();
    if (video.getAttribute("src") !== null) {
      video.removeAttribute("src");
      video.load();
    }
  }
  function fail(why: string): void {
    if (ended) return;
    stop();
    onDown(why);
  }

  async function begin(): Promise<void> {
    if (!sources()) {
      video.src = url;
    } else {
      // Loaded when it is needed: most viewers never do.
      const { default: Hls } = await import("hls.js/light");
      if (ended) return;
      let recovered = 0;
      // Its worker would be a script from a blob, which the pages' policy forbids; fragmented MP4 is passed on as it is anyway.
      player = new Hls({ enableWorker: false, lowLatencyMode: true, backBufferLength: 10, maxLiveSyncPlaybackRate: 1.1 });
      player.on(Hls.Events.ERROR, (_, data) => {
        if (!data.fatal) return;
        // A decoder that stumbled comes back by itself; the third time it does not.
        if (data.type === Hls.ErrorTypes.MEDIA_ERROR && recovered++ < 2) player?.recoverMediaError();
        else fail(data.response?.code ? `HLS: the box answers ${data.response.code}` : "HLS: connection lost");
      });
      player.loadSource(url);
      player.attachMedia(video);
    }
    await video.play().catch(() => undefined);
  }
  begin().catch(() => fail("HLS could not be loaded"));
  return stop;
}
