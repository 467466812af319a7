// The actor tree as a table: whatever needs eyes first, then the essential ones, then by name.

import type { ActorReport } from "./contract.js";
import { duration } from "./format.js";
import { actorMood } from "./words.js";

const urgency: Record<string, number> = { degraded: 0, backoff: 1, stopped: 2, starting: 3 };

/** The order in which actors are shown. */
export function inOrder(actors: readonly ActorReport[]): ActorReport[] {
  return [...actors].sort(
    (a, b) =>
      (urgency[a.state] ?? 9) - (urgency[b.state] ?? 9) ||
      Number(b.essential ?? false) - Number(a.essential ?? false) ||
      a.name.localeCompare(b.name, "en", { numeric: true }),
  );
}

export function Actors({ actors }: { actors: readonly ActorReport[] }) {
  if (actors.length === 0) return <p class="muted">No actors reported.</p>;
  const full = actors.some((actor) => actor.uptime_seconds !== undefined);
  return (
    <div class="actors" role="region" aria-label="Actors" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th>Actor</th>
            <th>State</th>
            <th class="number">Restarts</th>
            {full ? <th class="number">Up</th> : null}
            {full ? <th class="number">Mailbox</th> : null}
            <th>Last cause</th>
          </tr>
        </thead>
        <tbody>
          {inOrder(actors).map((actor) => (
            <tr key={actor.name} data-testid={`actor-${actor.name}`} data-state={actor.state}>
              <td>
                <b>{actor.name}</b>
                {actor.essential ? <span class="essential" title="The box restarts itself when this one cannot be kept up"> essential</span> : null}
              </td>
              <td>
                <span class={`badge ${actorMood(actor.state)}`}>{actor.state}</span>
              </td>
              <td class={`number ${actor.restarts > 0 ? "some" : "muted"}`}>{actor.restarts}</td>
              {full ? <td class="number">{duration(actor.uptime_seconds)}</td> : null}
              {full ? <td class="number">{actor.mailbox_depth ?? "–"}</td> : null}
              <td class="cause">
                {actor.last_cause ?? ""}
                {actor.detail ? <div class="faint">{typeof actor.detail === "string" ? actor.detail : JSON.stringify(actor.detail)}</div> : null}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
