// Support bundles of the open box: made there, sent here, downloaded, deleted.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { expiry } from "../common/format.js";
import { wordsFor } from "../common/problem.js";
import { attempt } from "../common/toasts.js";
import type { Page } from "./contract.js";
import { type Bundle, bundleMood, bytes, isUnderway } from "./records.js";
import { api, apiRaw } from "./session.js";
import { commands, now } from "./store.js";

/** While one is on its way it is looked at this often, in milliseconds. */
const LOOK_EVERY = 2_000;

const bundles = signal<Bundle[]>([]);
const failed = signal<string | null>(null);

export function Bundles({ id }: { id: string }) {
  const path = `/devices/${encodeURIComponent(id)}/bundles`;
  const load = async () => {
    try {
      bundles.value = (await api<Page<Bundle>>(`${path}?page_size=20`)).items ?? [];
      failed.value = null;
    } catch (error) {
      failed.value = wordsFor(error);
    }
  };
  // A command `bundle` that moves moves its bundle; the upload is seen by looking.
  const moved = commands.value.filter((command) => command.type === "bundle").map((command) => `${command.id}${command.state}`).join();
  const underway = bundles.value.some(isUnderway);
  useEffect(() => {
    bundles.value = [];
  }, [id]);
  useEffect(() => {
    void load();
    if (!underway) return;
    const timer = setInterval(() => void load(), LOOK_EVERY);
    return () => clearInterval(timer);
  }, [id, moved, underway]);

  const make = () =>
    attempt("Support bundle", async () => {
      await api<Bundle>(path, {});
      await load();
    });
  const remove = (bundle: Bundle) =>
    attempt("Delete", async () => {
      await apiRaw(`/bundles/${encodeURIComponent(bundle.id)}`, { method: "DELETE" });
      await load();
    });
  return (
    <section class="panel" aria-label="Support bundles" data-testid="bundles">
      <div class="row">
        <h2>Support bundles</h2>
        <span class="grow" />
        <button class="small" onClick={() => void make()} data-testid="make-bundle">
          Make one
        </button>
      </div>
      {failed.value ? <p class="muted">{failed.value}</p> : null}
      {bundles.value.length === 0 && !failed.value ? <p class="muted">None. One holds log, configuration and state of the box, without secrets.</p> : null}
      <ul class="commands" aria-live="polite" aria-label="Bundles, newest first" tabIndex={0}>
        {bundles.value.map((bundle) => (
          <li key={bundle.id} data-testid={`bundle-${bundle.id}`} data-state={bundle.state}>
            <div class="row">
              <span class="mono cut-off">{bundle.created_at?.slice(0, 19).replace("T", " ")}</span>
              <span class="muted">{bytes(bundle.size_bytes)}</span>
              <span class="grow" />
              {isUnderway(bundle) && typeof bundle.progress === "number" ? (
                <progress value={bundle.progress} max={1} aria-label={`${bundle.state}, ${Math.round(bundle.progress * 100)} %`} />
              ) : null}
              <span class={`badge ${bundleMood(bundle.state)}`}>{bundle.state}</span>
              {bundle.state === "ready" ? (
                <>
                  <span class="muted">{expiry(bundle.expires_at, now.value)}</span>
                  <button class="small primary" onClick={() => void attempt("Download", () => download(bundle))} data-testid={`download-${bundle.id}`}>
                    Download
                  </button>
                </>
              ) : null}
              <button class="small danger" onClick={() => void remove(bundle)}>
                Delete
              </button>
            </div>
            {bundle.error ? <p class="muted">{bundle.error}</p> : null}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The token travels in a header, so the browser's own download cannot be used. */
async function download(bundle: Bundle): Promise<void> {
  const answer = await apiRaw(`/bundles/${encodeURIComponent(bundle.id)}/download`, {});
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = `r58-${bundle.device_id}-${bundle.id}.tar.gz`;
  link.click();
  // After the browser has taken it up.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
