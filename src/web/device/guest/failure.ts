// Why a guest is not in, in words for somebody who has never heard of WebRTC. Pure.

export type Reason =
  | "camera-refused"
  | "no-camera"
  | "no-microphone"
  | "camera-busy"
  | "microphone-busy"
  | "device-lost"
  | "insecure"
  | "bad-link"
  | "expired"
  | "used"
  | "withdrawn"
  | "refused"
  | "removed"
  | "seat-taken"
  | "no-route"
  | "unreachable"
  | "not-accepted"
  | "busy"
  | "lost";

export interface Failure {
  reason: Reason;
  title: string;
  advice: string;
  /** Seconds after which trying again makes sense by itself. */
  retryAfter: number | null;
}

const words: Record<Reason, [string, string]> = {
  "camera-refused": [
    "Camera refused",
    "This page may not use your camera and microphone. Tap the lock or camera sign beside the address, allow both, then try again.",
  ],
  "no-camera": ["No camera found", "Connect a camera, or open this link on a phone, then try again."],
  "no-microphone": ["No microphone found", "Connect a microphone or a headset, then try again."],
  "camera-busy": ["The camera is in use", "Another program or tab holds the camera. Close it, then try again."],
  "microphone-busy": ["The microphone is in use", "Another program or a phone call holds the microphone. Close it, then try again."],
  "device-lost": ["Camera or microphone disconnected", "It was unplugged or taken by another program. Connect it again, then try again."],
  insecure: [
    "This page is not secure",
    "Browsers give the camera only to addresses that begin with https. Ask the crew for the https link.",
  ],
  "bad-link": ["This link is not valid", "It may be old, or cut off. Ask the crew for a new link."],
  expired: ["This invitation has expired", "Ask the crew for a new link."],
  used: ["This invitation has been used", "It was for one guest, who has left. Ask the crew for a new link."],
  withdrawn: ["This invitation was withdrawn", "Ask the crew whether you are expected."],
  refused: ["The crew has not let you in", "Ask the crew whether you are expected."],
  removed: ["You are not in the programme any more", "The crew has taken you out. Thank you for being there."],
  "seat-taken": ["This seat is taken", "Somebody is in the programme with this link right now."],
  "no-route": [
    "No route to the box",
    "The box answered, but picture and sound found no way through the network. Try another network, for instance mobile data instead of Wi-Fi, and tell the crew.",
  ],
  unreachable: ["The box does not answer", "Check your internet connection. If it works, the box may be off: tell the crew."],
  "not-accepted": ["The box did not accept this browser", "Try a current version of Chrome, Safari, Edge or Firefox."],
  busy: ["The box is busy", "It cannot take one more guest at the moment. Try again soon."],
  lost: ["Connection lost", "The connection to the box was lost and did not come back. Try again."],
};

/** Reasons that no second attempt with this link cures. */
const final: Reason[] = ["bad-link", "expired", "used", "withdrawn", "refused", "removed"];

export const isFinal = (reason: Reason): boolean => final.includes(reason);

export function failure(reason: Reason, detail = "", retryAfter: number | null = null): Failure {
  const [title, advice] = words[reason];
  return { reason, title, advice: detail ? `${advice} (${detail})` : advice, retryAfter };
}

/** What getUserMedia's error means. `lacks` says which device does not exist; `busy` which one could not be opened alone. */
export function mediaFailure(name: string, lacks: "camera" | "microphone" | null, busy: "camera" | "microphone"): Failure {
  switch (name) {
    case "NotAllowedError":
    case "PermissionDeniedError":
      return failure("camera-refused");
    case "SecurityError":
    case "TypeError":
      return failure("insecure");
    case "NotFoundError":
    case "DevicesNotFoundError":
    case "OverconstrainedError":
      return failure(lacks === "microphone" ? "no-microphone" : "no-camera");
    default:
      return failure(busy === "microphone" ? "microphone-busy" : "camera-busy");
  }
}

/** Words of the box for an invitation that opens nothing any more. */
const putOff: [string, Reason][] = [
  ["has expired", "expired"],
  ["been used", "used"],
  ["withdrawn", "withdrawn"],
  ["not let you in", "refused"],
  ["taken you out", "removed"],
];

/** What the status of POST /whip/{seat} means. */
export function answerFailure(status: number, detail: string, retryAfter: number | null): Failure {
  if (status === 0 || status === 502 || status === 504) return failure("unreachable");
  if (status === 403) return failure(putOff.find(([words]) => detail.includes(words))?.[1] ?? "bad-link");
  if (status === 401 || status === 404) return failure("bad-link");
  if (status === 409) {
    const after = retryAfter ?? 10;
    return failure("seat-taken", [detail, `free again at the earliest in ${after} s`].filter(Boolean).join("; "), after);
  }
  if (status === 429 || status === 503) return failure("busy", detail, retryAfter);
  return failure("not-accepted", detail || `error ${status}`);
}
