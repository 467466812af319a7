// The status strip: what a technical director looks at once a minute, in words.

import type { State } from "../../common/contract.js";
import { figure, expiry } from "../../common/format.js";
import { degradationWords, fleetWords, turnWords } from "../../common/words.js";
import { now } from "../box.js";

export function Strip({ box, onHelp }: { box: State; onHelp: () => void }) {
  const { programme, fleet, turn, degradation } = box;
  const fleetState = fleetWords(fleet.state);
  const load = degradationWords(degradation.level);
  const relay = turnWords(turn.provider, turn.stale);
  return (
    <header class="strip">
      <h1 class="cut-off">{box.device.name}</h1>
      <dl>
        <Item name="Programme" value={`${figure(programme.fps, 1)} fps`} mood={programme.fps < 1 ? "bad" : ""} />
        <Item
          name="Missed"
          value={String(programme.missed_slots)}
          mood={programme.missed_slots > 0 ? "warn" : ""}
          title="Frame slots of the programme's clock that stayed empty since start"
        />
        <Item name="Encoder" value={programme.encoder?.name ?? "–"} title={programme.encoder?.reason} />
        <Item name="Viewers" value={String(programme.viewers ?? 0)} />
        <Item name="Fleet" value={fleetState.words} mood={fleetState.mood} title={fleet.last_error ?? undefined} />
        <Item
          name="TURN"
          value={relay.words}
          mood={relay.mood === "good" ? "" : relay.mood}
          title={turn.expires_at ? `credentials: ${expiry(turn.expires_at, now.value)}` : "guests behind strict firewalls may not get in"}
        />
        <Item
          name="Load"
          value={load.words}
          mood={degradation.level > 0 ? load.mood : ""}
          title={degradation.reasons.join(", ") || undefined}
        />
      </dl>
      <nav class="row" aria-label="Pages">
        <button class="small plain" onClick={onHelp} title="Keys" aria-keyshortcuts="?">
          Keys
        </button>
        <a href="/status">Status</a>
      </nav>
      {degradation.level > 0 && degradation.reasons.length > 0 ? (
        <p class="reasons">
          {load.words}: {degradation.reasons.join(", ")}
        </p>
      ) : null}
      {box.identify ? <p class="reasons identify">Identifying: {box.identify}</p> : null}
    </header>
  );
}

function Item(props: { name: string; value: string; mood?: string; title?: string }) {
  return (
    <div class={props.mood ?? ""} title={props.title}>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
    </div>
  );
}
