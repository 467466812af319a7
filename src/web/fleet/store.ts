// The open box, its commands and the stream of what the server pushes. Lists are loaded at each (re)connect of the stream; after that
// nothing is polled.

import { batch, computed, effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { openEvents, type Link } from "../common/events.js";
import { NoPicture, Pictures } from "../common/pictures.js";
import { Problem, wordsFor } from "../common/problem.js";
import { alertsMoved, forgetAlerts, loadAlerts, receiversMoved } from "./alerts.js";
import { letterOf } from "./cells.js";
import { withCommand } from "./commands.js";
import type { Card, Command, Detail, Page } from "./contract.js";
import { EVENTS, eventsPath, isOfAll } from "./wanted.js";
import { forgetRoll, idOf, inSight, loadRoll, othersMoved, pushed, whole } from "./roll.js";
import { api, apiRaw, bearer, mayAdminister, onStreamRefused } from "./session.js";

export const link = signal<Link>({ up: false, since: Date.now(), why: null, refused: false });
/** A clock for relative times; once a second. */
export const now = signal(Date.now());

/** Letters of boxes that were pushed since the stream opened, for the map of states. */
export const pushedStates = signal<ReadonlyMap<string, string>>(new Map());
/** Moves whenever commands or boxes did, for places that read what follows from them. */
export const stirred = signal(0);

/** Moves whenever a rollout or a release did, or a command, which may be one of a rollout. */
export const rolled = signal(0);

/** Moves whenever somebody signed in, or users or keys changed. */
export const peopled = signal(0);
/** Moves whenever the audit log got another change. */
export const noted = signal(0);
/** Places on the screen that show changes: only while there is one are these pushed. */
const followers = signal(0);

/** Has changes pushed for as long as the place is shown. */
export function useChanges(): void {
  useEffect(() => {
    followers.value += 1;
    return () => void (followers.value -= 1);
  }, []);
}

function changesMissed(): void {
  peopled.value += 1;
  noted.value += 1;
  receiversMoved.value += 1;
}

export const openDevice = signal<string | null>(null);
export const detail = signal<Detail | null>(null);
export const detailError = signal<string | null>(null);
export const commands = signal<Command[]>([]);

export const pictures = new Pictures(async (name, have, abort) => {
  try {
    const response = await apiRaw(`/devices/${name.split("/").map(encodeURIComponent).join("/thumbnails/")}`, { signal: abort, cache: "no-cache" });
    if (response.status === 204) throw new NoPicture();
    const version = response.headers.get("etag") ?? String(performance.now());
    return version === have ? null : { version, blob: await response.blob() };
  } catch (error) {
    throw error instanceof Problem && error.status === 404 ? new NoPicture() : error;
  }
}, 0);

export const pictureName = (device: string, name: string): string => `${device}/${name}`;

export async function loadDevice(id: string): Promise<void> {
  try {
    const [device, list] = await Promise.all([
      api<Detail>(`/devices/${encodeURIComponent(id)}`),
      api<Page<Command> | Command[]>(`/devices/${encodeURIComponent(id)}/commands`),
    ]);
    if (openDevice.value !== id) return;
    detail.value = device;
    const items = Array.isArray(list) ? list : list.items;
    commands.value = [...items].sort((a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? "") || (b.seq ?? 0) - (a.seq ?? 0));
    detailError.value = null;
  } catch (error) {
    if (openDevice.value === id) detailError.value = wordsFor(error);
  }
}

export function closeDevice(): void {
  openDevice.value = null;
  detail.value = null;
  detailError.value = null;
  commands.value = [];
}

let refreshing: ReturnType<typeof setTimeout> | undefined;

/** A card push says that the device has something new: its details follow, at most every two seconds. */
function refreshSoon(id: string): void {
  refreshing ??= setTimeout(() => {
    refreshing = undefined;
    if (openDevice.value === id) void refreshDetail(id);
  }, 2_000);
}

export async function refreshDetail(id: string): Promise<void> {
  try {
    const device = await api<Detail>(`/devices/${encodeURIComponent(id)}`);
    if (openDevice.value === id) detail.value = device;
  } catch {
    // The card itself has arrived; the details come with the next push.
  }
}

/** Cards that came in and are not shown yet. */
const incoming = new Map<string, Card>();
let flushing: ReturnType<typeof setTimeout> | undefined;

/** Milliseconds for which cards are gathered: totals and order of a large fleet are then worked out five times a second at most. */
const GATHER = 200;

function receive(card: Card): void {
  incoming.set(idOf(card), card);
  flushing ??= setTimeout(() => {
    flushing = undefined;
    batch(() => {
      stirred.value += 1;
      pushedStates.value = new Map([...pushedStates.value, ...[...incoming].map(([id, one]) => [id, letterOf(one)] as const)]);
      pushed(incoming.values());
      for (const one of incoming.values()) {
        if (detail.value && openDevice.value === idOf(one)) {
          detail.value = { ...detail.value, ...one };
          refreshSoon(idOf(one));
        }
      }
    });
    incoming.clear();
  }, GATHER);
}

/** Kinds of changes that the page of users shows. */
const PEOPLE = ["user", "api_key", "sign_in"];

function onEvent(name: string, data: string): void {
  switch (name) {
    case "hello":
      // We were too slow and missed something: everything is read anew.
      if ((JSON.parse(data) as { missed?: boolean }).missed) reload();
      break;
    case "moved":
      stirred.value += 1;
      rolled.value += 1;
      othersMoved();
      break;
    case "device":
      receive(JSON.parse(data) as Card);
      break;
    case "rollout":
    case "release":
      rolled.value += 1;
      break;
    case "changed": {
      const { kind } = JSON.parse(data) as { kind: string };
      if (PEOPLE.includes(kind)) peopled.value += 1;
      if (kind === "alert_receiver") receiversMoved.value += 1;
      if (kind !== "sign_in") noted.value += 1;
      break;
    }
    case "command": {
      stirred.value += 1;
      rolled.value += 1;
      const command = JSON.parse(data) as Command;
      if (command.device_id === openDevice.value) commands.value = withCommand(commands.value, command);
      break;
    }
    case "alert":
    case "alerts":
      alertsMoved();
      break;
    case "thumbnail": {
      const { device_id: device, name: of } = JSON.parse(data) as { device_id: string; name: string };
      pictures.changed(pictureName(device, of));
    }
  }
}

function reload(): void {
  pushedStates.value = new Map();
  stirred.value += 1;
  rolled.value += 1;
  changesMissed();
  void loadRoll();
  void loadAlerts();
  if (openDevice.value) void loadDevice(openDevice.value);
}

/** What is asked to be pushed: of a small fleet everything, of a large one what is on the screen. */
const address = computed(() =>
  eventsPath(whole.value ? null : [...inSight.value, ...(openDevice.value ? [openDevice.value] : [])], followers.value > 0 && mayAdminister.value),
);
/** A list that is scrolled asks when it comes to rest (milliseconds). */
const RESTED = 400;

interface Stream {
  url: string;
  up: boolean;
  close(): void;
}

/** Opens a stream, in place of the one `before` as soon as it is up. */
function follow(url: string, before: Stream | null): Stream {
  const stream: Stream = { url, up: false, close: () => undefined };
  const close = openEvents({
    url,
    headers: bearer,
    // The server says at least "still here" every fifteen seconds.
    silence: 45_000,
    onEvent,
    onLink(value) {
      // One that is opened while nothing is up does not make the loss a new one.
      const lost = link.value.why !== null && !link.value.up && !value.up;
      link.value = lost ? { ...value, since: link.value.since } : value;
      stream.up = value.up;
      if (!value.up) return;
      // One that takes over from another that is up has missed nothing of what that one told, and the boxes it names are told at
      // once; but of changes it tells from now on.
      const took = before !== null && before.up && (isOfAll(before.url) || !isOfAll(url));
      before?.close();
      before = null;
      if (took) changesMissed();
      else reload();
    },
    onRefused: onStreamRefused,
  });
  stream.close = () => {
    before?.close();
    close();
  };
  return stream;
}

/** Follows the fleet until the returned function is called. */
export function followFleet(): () => void {
  const ticking = setInterval(() => (now.value = Date.now()), 1_000);
  let stream = follow(EVENTS, null);
  let resting: ReturnType<typeof setTimeout> | undefined;
  const unwatch = effect(() => {
    const url = address.value;
    clearTimeout(resting);
    if (url !== stream.url) resting = setTimeout(() => (stream = follow(url, stream)), RESTED);
  });
  return () => {
    unwatch();
    clearTimeout(resting);
    stream.close();
    clearInterval(ticking);
    forgetRoll();
    forgetAlerts();
    closeDevice();
    pictures.clear();
  };
}
