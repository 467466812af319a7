// Is a video really moving? Connected is not yet a picture, and a picture that stopped must not pass for a live one.

/** No new frame for so many seconds is a standstill. */
const STANDSTILL = 3;

/** Calls back whenever a video begins or ceases to show new frames, until the returned function is called. */
export function watchFrames(video: HTMLVideoElement, onMoving: (moving: boolean) => void): () => void {
  let shown = 0;
  let still = STANDSTILL;
  const timer = setInterval(() => {
    // A hidden page draws nothing, and that says nothing about the stream.
    if (document.hidden) return;
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    const moved = frames !== shown && (video.srcObject !== null || video.currentSrc !== "");
    shown = frames;
    const before = still < STANDSTILL;
    still = moved ? 0 : Math.min(STANDSTILL, still + 1);
    if (before !== still < STANDSTILL) onMoving(still < STANDSTILL);
  }, 1_000);
  const begin = () => {
    still = 0;
    onMoving(true);
  };
  const end = () => {
    still = STANDSTILL;
    onMoving(false);
  };
  video.addEventListener("playing", begin);
  video.addEventListener("emptied", end);
  return () => {
    clearInterval(timer);
    video.removeEventListener("playing", begin);
    video.removeEventListener("emptied", end);
  };
}
