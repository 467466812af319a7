// Releases by channel, and the rollouts that take them to boxes.

import { attempt } from "../common/toasts.js";
import type { Page } from "./contract.js";
import { Ago } from "./parts.js";
import { Failed, useRead } from "./read.js";
import { Rollouts } from "./rollouts.js";
import { api, change, mayAdminister } from "./session.js";
import type { Release, Rollout } from "./staged.js";
import { rolled } from "./store.js";

/** Milliseconds for which what stirs is gathered before rollouts are read again. */
const GATHER = 500;

export function Releases() {
  const read = async () => {
    const [releases, rollouts] = await Promise.all([api<Page<Release>>("/releases?page_size=200"), api<Page<Rollout>>("/rollouts?page_size=50")]);
    return { releases: releases.items, rollouts: rollouts.items };
  };
  const { found, failed, again } = useRead(read, "", { seen: rolled.value, gather: GATHER });
  const releases = found?.releases ?? [];
  const channels = [...new Set(releases.map((release) => release.channel))];
  const remove = (release: Release) => {
    if (!confirm(`Delete ${release.version} for ${release.arch}? Boxes that have it keep it.`)) return;
    const path = `/releases/${encodeURIComponent(release.version)}?arch=${encodeURIComponent(release.arch)}`;
    void attempt("Delete", () => change("DELETE", path)).then(again);
  };
  return (
    <main class="place-page">
      <h1>Releases</h1>
      <Failed words={failed} />
      {found === null && !failed ? <p class="muted pad">Loading…</p> : null}
      {found ? <Rollouts rollouts={found.rollouts} releases={releases} onMoved={again} /> : null}
      {found && releases.length === 0 ? (
        <p class="muted pad">
          No releases yet: <code>r58 ctl release create</code> enters one, <code>r58 ctl release publish</code> signs it.
        </p>
      ) : null}
      {channels.map((channel) => (
        <section class="panel stack" key={channel} aria-label={`Channel ${channel}`}>
          <h2>{channel}</h2>
          <Channel name={channel} releases={releases.filter((one) => one.channel === channel)} onRemove={remove} />
        </section>
      ))}
    </main>
  );
}

function Channel({ name, releases, onRemove }: { name: string; releases: Release[]; onRemove(release: Release): void }) {
  return (
    <table data-testid={`channel-${name}`}>
      <thead>
        <tr>
          <th scope="col">Version</th>
          <th scope="col">For</th>
          <th scope="col">Size</th>
          <th scope="col">Entered</th>
          <th scope="col">State</th>
          <th scope="col">
            <span class="unseen">Actions</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {releases.map((release) => (
          <tr key={`${release.version} ${release.arch}`}>
            <td data-name="Version">
              <b>{release.version}</b>
              {release.changelog ? <div class="muted">{release.changelog}</div> : null}
            </td>
            <td data-name="For">{release.arch}</td>
            <td data-name="Size">{`${(release.size_bytes / 1e6).toFixed(1)} MB`}</td>
            <td data-name="Entered" class="muted">
              <Ago at={release.created_at} /> by {release.created_by.replace(/^user:/, "")}
            </td>
            <td data-name="State">
              <span class={`badge ${release.published ? "good" : "idle"}`}>{release.published ? "published" : "not published"}</span>
            </td>
            <td>
              {mayAdminister.value ? (
                <div class="acts">
                  <button class="small" aria-label={`Delete ${release.version} for ${release.arch}`} onClick={() => onRemove(release)}>
                    Delete
                  </button>
                </div>
              ) : null}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
