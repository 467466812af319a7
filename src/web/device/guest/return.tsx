// What the guest is sent back: the programme, small, with everybody's sound but its own (N-1). Its own voice never comes back, and
// its microphone cancels what its loudspeaker plays.

import { useEffect, useRef, useState } from "preact/hooks";
import { watch } from "../../common/watch.js";
import { boxDoor } from "../../common/whep.js";
import { stateOf, type GuestLink } from "./link.js";

export function Return({ link }: { link: GuestLink }) {
  const video = useRef<HTMLVideoElement>(null);
  const [up, setUp] = useState(false);
  const [silent, setSilent] = useState(false);
  useEffect(() => {
    if (!video.current) return;
    const name = `return-${link.name}`;
    return watch({
      name,
      door: boxDoor(name, link.token, stateOf(link)),
      audio: true,
      video: video.current,
      ways: { whep: true, hls: false },
      onState: (state) => setUp(state.on === "whep"),
    });
  }, [link.name, link.token]);
  return (
    <figure class="return" data-testid="return" data-up={up} hidden={!up}>
      <video ref={video} playsInline muted={silent} aria-label="The programme" />
      <figcaption>
        <span class="muted">The programme, without your own voice</span>
        <button class="small" onClick={() => setSilent(!silent)} data-testid="return-sound">
          {silent ? "Turn sound on" : "Turn sound off"}
        </button>
      </figcaption>
    </figure>
  );
}
