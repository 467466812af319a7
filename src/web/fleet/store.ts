// The open box, its commands and the stream of what the server pushes. Lists are loaded at each (re)connect of the stream; after that
// nothing is polled.

import { batch, signal } from "@preact/signals";
import { openEvents, type Link } from "../common/events.js";
import { NoPicture, Pictures } from "../common/pictures.js";
import { Problem, wordsFor } from "../common/problem.js";
import { alertsMoved, forgetAlerts, loadAlerts } from "./alerts.js";
import { withCommand } from "./commands.js";
import type { Card, Command, Detail, Page } from "./contract.js";
import { forgetRoll, idOf, loadRoll, pushed } from "./roll.js";
import { api, apiRaw, bearer, onStreamRefused } from "./session.js";

export const link = signal<Link>({ up: false, since: Date.now(), why: null, refused: false });
/** A clock for relative times; once a second. */
export const now = signal(Date.now());

export const openDevice = signal<string | null>(null);
export const detail = signal<Detail | null>(null);
export const detailError = signal<string | null>(null);
export const commands = signal<Command[]>([]);

export const pictures = new Pictures(async (name, have, abort) => {
  try {
    const response = await apiRaw(`/devices/${name.split("/").map(encodeURIComponent).join("/thumbnails/")}`, { signal: abort, cache: "no-cache" });
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

async function refreshDetail(id: string): Promise<void> {
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

function onEvent(name: string, data: string): void {
  switch (name) {
    case "hello":
      // We were too slow and missed something: everything is read anew.
      if ((JSON.parse(data) as { missed?: boolean }).missed) reload();
      break;
    case "device":
      receive(JSON.parse(data) as Card);
      break;
    case "command": {
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
  void loadRoll();
  void loadAlerts();
  if (openDevice.value) void loadDevice(openDevice.value);
}

/** Follows the fleet until the returned function is called. */
export function followFleet(): () => void {
  const ticking = setInterval(() => (now.value = Date.now()), 1_000);
  const close = openEvents({
    url: "/api/v1/events",
    headers: bearer,
    // The server says at least "still here" every fifteen seconds.
    silence: 45_000,
    onEvent,
    onLink(value) {
      link.value = value;
      if (value.up) reload();
    },
    onRefused: onStreamRefused,
  });
  return () => {
    close();
    clearInterval(ticking);
    forgetRoll();
    forgetAlerts();
    closeDevice();
    pictures.clear();
  };
}
