// Takes a guest in by one road after the other, as its link and the box allow (which and in which order: road.ts).

import { iceServers } from "../../common/ice.js";
import { Problem } from "../../common/problem.js";
import { answerFailure, failure, type Failure } from "./failure.js";
import { ask, type Standing } from "./follow.js";
import type { GuestLink } from "./link.js";
import { publishBy, type Publishing } from "./publish.js";
import { attempts, type Attempt } from "./road.js";

export interface PublishOptions {
  link: GuestLink;
  media: MediaStream;
  onConnected(): void;
  /** The connection was up and is lost. */
  onLost(): void;
  onFailed(failure: Failure): void;
}

/** Longest that the next road waits for the goodbye on the last one, in milliseconds. */
const GOODBYE_LIMIT = 2_000;

const within = (limit: number, what: Promise<void>) => Promise.race([what, new Promise<void>((resolve) => setTimeout(resolve, limit))]);

/** The road of the last time that this page was in. */
let worked: Attempt["by"] | null = null;

/** Answers how it stands with the guest. Without TURN it may still get in, so only a refusal ends it here. */
async function standing(link: GuestLink): Promise<Standing | null> {
  try {
    return await ask(link);
  } catch (error) {
    if (error instanceof Problem && (error.status === 401 || error.status === 403)) throw answerFailure(error.status, error.detail, null);
    if (error instanceof Problem && error.status === 0) throw failure("unreachable");
    return null;
  }
}

export function publish(options: PublishOptions): Publishing {
  let current: Publishing | null = null;
  let ended = false;
  let media = options.media;

  function attempt(servers: RTCIceServer[], plan: readonly Attempt[]): void {
    const [now, ...later] = plan;
    if (ended) return;
    if (!now) return options.onFailed(failure("no-route", "this link wants a way that the box does not have"));
    current = publishBy({
      link: options.link,
      media,
      servers,
      attempt: now,
      onConnected() {
        worked = now.by;
        options.onConnected();
      },
      onLost: options.onLost,
      onFailed(why, gone) {
        // The seat must be free before the next one asks for it.
        if (why.reason === "no-route" && later.length > 0) void within(GOODBYE_LIMIT, gone).then(() => attempt(servers, later));
        else if (!ended) options.onFailed(why);
      },
    });
  }

  standing(options.link).then(
    (known) => attempt(iceServers(known), attempts(known?.road, known?.sfu ?? false, worked)),
    (why: Failure) => !ended && options.onFailed(why),
  );

  return {
    end() {
      ended = true;
      return current?.end() ?? Promise.resolve();
    },
    replace(track) {
      media = new MediaStream([...media.getTracks().filter((one) => one.kind !== track.kind), track]);
      current?.replace(track);
    },
  };
}
