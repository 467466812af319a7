// Camera and microphone of a guest: asking, choosing, measuring the level, noticing a device that goes away.

import { rmsDb } from "../../common/format.js";
import { failure, mediaFailure, type Failure } from "./failure.js";

export interface Choice {
  camera: string;
  microphone: string;
}

const video = (camera: string): MediaTrackConstraints => ({
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
  ...(camera ? { deviceId: { exact: camera } } : { facingMode: "user" }),
});

const audio = (microphone: string): MediaTrackConstraints => ({
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
  ...(microphone ? { deviceId: { exact: microphone } } : {}),
});

/** Asks for both; throws a `Failure` with the words for what is wrong. */
export async function openMedia(choice: Choice): Promise<MediaStream> {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) throw failure("insecure");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: video(choice.camera), audio: audio(choice.microphone) });
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    if (name === "OverconstrainedError" && (choice.camera || choice.microphone)) {
      // The remembered device is gone: take whatever there is.
      return openMedia({ camera: "", microphone: "" });
    }
    throw mediaFailure(name, await missing(), name === "NotReadableError" ? await busy() : "camera");
  }
}

async function missing(): Promise<"camera" | "microphone" | null> {
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  if (!devices.some((device) => device.kind === "videoinput")) return "camera";
  if (!devices.some((device) => device.kind === "audioinput")) return "microphone";
  return null;
}

/** Which of the two cannot be opened: the camera alone is tried. */
async function busy(): Promise<"camera" | "microphone"> {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true });
    closeMedia(stream);
    return "microphone";
  } catch {
    return "camera";
  }
}

export function closeMedia(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
}

/** Calls back when a device goes away while it is used. */
export function onDeviceLost(stream: MediaStream, lost: (failure: Failure) => void): void {
  for (const track of stream.getTracks()) track.onended = () => lost(failure("device-lost"));
}

export interface Devices {
  cameras: { id: string; label: string }[];
  microphones: { id: string; label: string }[];
}

export async function listDevices(): Promise<Devices> {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const of = (kind: MediaDeviceKind, word: string) =>
    devices
      .filter((device) => device.kind === kind && device.deviceId)
      .map((device, index) => ({ id: device.deviceId, label: device.label || `${word} ${index + 1}` }));
  return { cameras: of("videoinput", "Camera"), microphones: of("audioinput", "Microphone") };
}

/** Measures the microphone ten times a second until the returned function is called. */
export function measure(stream: MediaStream, onLevel: (db: number) => void): () => void {
  if (stream.getAudioTracks().length === 0) return () => undefined;
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(rmsDb(samples));
  }, 100);
  // Phones start audio only after a touch.
  const resume = () => void context.resume().catch(() => undefined);
  addEventListener("pointerdown", resume);
  return () => {
    clearInterval(timer);
    removeEventListener("pointerdown", resume);
    void context.close().catch(() => undefined);
  };
}
