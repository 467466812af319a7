// Small parts that cards and the device page share.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { ago, percent } from "../common/format.js";
import { LiveVideo } from "../common/live.js";
import { Picture } from "../common/picture.js";
import { hasPicture, signalWords } from "../common/words.js";
import type { Card, CardInput } from "./contract.js";
import { bearer } from "./session.js";
import { now, pictureName, pictures } from "./store.js";

/** A component of its own, so that only this text is drawn again each second. */
export function Ago({ at }: { at: string | null | undefined }) {
  return <time dateTime={at ?? ""}>{ago(at, now.value)}</time>;
}

export function Online({ card }: { card: Card }) {
  return (
    <span class={`badge ${card.online ? "good" : card.presence === "unknown" ? "idle" : "bad"}`} data-testid="online" data-online={String(card.online)} title={absence(card)}>
      {card.online ? "online" : card.status === "decommissioned" ? "decommissioned" : card.presence === "unknown" ? "never seen" : card.presence_reason === "rebooting" ? "rebooting" : "offline"}
    </span>
  );
}

/** A share in use with the limits of the governor: amber from 70, red from 85. */
export function Bar(props: { name: string; value: number | null | undefined; text?: string }) {
  const value = typeof props.value === "number" ? Math.min(100, Math.max(0, props.value)) : null;
  const mood = value === null ? "" : value >= 85 ? "bad" : value >= 70 ? "warn" : "";
  return (
    <div class={`bar ${mood}`}>
      <span class="muted">{props.name}</span>
      <div role="meter" aria-label={props.name} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(value ?? 0)}>
        <span style={{ transform: `scaleX(${(value ?? 0) / 100})` }} />
      </div>
      <span class="value">{props.text ?? percent(value)}</span>
    </div>
  );
}

const absences: Record<string, string> = {
  lwt: "its connection broke",
  stopped: "it was stopped",
  rebooting: "it is rebooting",
  silent: "its heartbeats stopped",
  decommissioned: "it was taken out of service",
};

/** Why a box is not there, in words; empty when it is. */
export function absence(card: Card): string {
  if (card.online) return "";
  if (card.presence === "unknown") return "it has not connected yet";
  return absences[card.presence_reason ?? ""] ?? "not connected";
}

export function Degradation({ level }: { level: number | null | undefined }) {
  if (!level) return null;
  return <span class={`badge ${level === 1 ? "warn" : "bad"}`}>load level {level}</span>;
}

export function Thumb(props: { device: string; name: string; label: string; class?: string; children?: ComponentChildren }) {
  return (
    <div class={`picture ${props.class ?? ""}`}>
      <Picture store={pictures} name={pictureName(props.device, props.name)} label={props.label} />
      {props.children}
    </div>
  );
}

/** A picture that can be watched live: carried over the broker, because nobody can connect to the box itself. */
export function LiveThumb(props: { device: string; name: string; label: string; of: string; can: boolean; class?: string; children?: ComponentChildren }) {
  const { device, name, label, of, can } = props;
  const watching = useMemo(() => signal(false), []);
  const door = useMemo(
    () => ({ url: `/whep/${encodeURIComponent(device)}/${encodeURIComponent(name)}`, headers: bearer, servers: null }),
    [device, name],
  );
  const live = watching.value && can;
  return (
    <div class={`picture ${props.class ?? ""}`}>
      <Picture store={pictures} name={pictureName(device, name)} label={label} />
      {live ? <LiveVideo name={name} door={door} /> : null}
      {props.children}
      <button
        class="small watch"
        aria-pressed={live}
        aria-label={`Watch ${of} live`}
        disabled={!can}
        onClick={() => (watching.value = !watching.value)}
        data-testid={`live-${name}`}
      >
        Live
      </button>
    </div>
  );
}

export function InputThumb({ device, input, large, away }: { device: string; input: CardInput; large?: boolean; away?: boolean }) {
  const live = hasPicture(input.signal) && !away;
  // Of a box that is away nobody knows more than that.
  const { words, mood } = away ? { words: "Not connected", mood: "idle" } : signalWords(input.signal);
  const label = input.label ?? input.id;
  const picture = { device, name: input.id, label: `${label}, ${words}`, class: live ? "" : "old" };
  const slate = live ? null : <span class={`no ${mood}`}>{large ? words : ""}</span>;
  return (
    <div class={`input ${input.tally ?? "none"}`} title={`${label}: ${input.reason || words}`} data-testid={`input-${input.id}`} data-signal={input.signal}>
      {large ? <LiveThumb {...picture} of={label} can={live}>{slate}</LiveThumb> : <Thumb {...picture}>{slate}</Thumb>}
      <span class="name cut-off">
        <i class={mood} aria-hidden="true" />
        {label}
        {large && live && typeof input.fps === "number" ? <span class="muted"> {Math.round(input.fps)} fps</span> : null}
      </span>
    </div>
  );
}
