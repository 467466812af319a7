// The banner that says the box is away, and since when.

import { useEffect } from "preact/hooks";
import { duration } from "../common/format.js";
import { link, now, state } from "./box.js";

export function LostBanner() {
  const { up, since, why, refused } = link.value;
  const seconds = Math.floor((now.value - since) / 1000);
  // A short reload of the stream is not worth a flash of red.
  const down = !up && (state.value ? seconds >= 2 : why !== null);
  useEffect(() => {
    document.body.dataset.link = down ? "down" : "up";
  }, [down]);
  if (!down) return null;
  return (
    <div class="banner" role="alert" data-testid="connection-lost">
      {refused ? "Signed out by the box: reload this page" : `Connection to the box lost for ${duration(seconds)}: what you see is old`}
      {why && !refused ? <span class="unseen">{why}</span> : null}
    </div>
  );
}
