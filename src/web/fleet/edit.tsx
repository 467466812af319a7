// What operators know of a box, changed: its name, place, tags, notes, channel. And, for administrators, another token for it, and its end.

import { useState } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import type { Detail } from "./contract.js";
import { tagsOf } from "./filter.js";
import { Secret } from "./secret.js";
import { go, home } from "./router.js";
import { api, change, mayAdminister } from "./session.js";
import { refreshDetail } from "./store.js";

export function Edit({ box, id }: { box: Detail; id: string }) {
  const [token, setToken] = useState<string | null>(null);
  const path = `/devices/${encodeURIComponent(id)}`;
  const save = async (fields: FormData) => {
    const line = (name: string) => String(fields.get(name) ?? "").trim();
    const body = {
      name: line("name"),
      location: line("location") || null,
      tags: tagsOf(line("tags")),
      notes: line("notes") || null,
      update_channel: line("update_channel"),
    };
    await change("PATCH", path, body);
    await refreshDetail(id);
  };
  const rotate = async (fields: FormData) => {
    const made = await api<{ token: string }>(`${path}/rotate-token`, { overlap_seconds: Number(fields.get("overlap")) });
    setToken(made.token);
  };
  const end = async () => {
    await change("DELETE", path);
    go(home());
  };
  return (
    <>
      <div class="row">
        <FormDialog opens="Edit…" title={`Edit ${box.name}`} does="Save" openId="edit" doId="save" onDo={save}>
          <label class="field">
            Name
            <input name="name" required maxLength={200} defaultValue={box.name} autocomplete="off" />
          </label>
          <label class="field">
            Place
            <input name="location" maxLength={200} defaultValue={box.location ?? ""} autocomplete="off" />
          </label>
          <label class="field">
            Tags, with commas between them
            <input name="tags" maxLength={2000} defaultValue={(box.tags ?? []).join(", ")} autocomplete="off" />
          </label>
          <label class="field">
            Channel of its releases
            <input name="update_channel" required maxLength={200} defaultValue={box.update_channel ?? "stable"} autocomplete="off" />
          </label>
          <label class="field">
            Notes
            <textarea name="notes" rows={4} maxLength={4000} defaultValue={box.notes ?? ""} />
          </label>
        </FormDialog>
        {mayAdminister.value ? (
          <>
            <FormDialog opens="New token…" title={`A new token for ${box.name}`} does="Make" openId="new-token" doId="make-token" onDo={rotate}>
              <p class="muted">For a box that is set up by hand. One that is connected is told to fetch one itself: command rotate_token.</p>
              <label class="field">
                The present token stays good, until the new one is used,
                <select name="overlap">
                  <option value="86400">for a day</option>
                  <option value="604800">for a week</option>
                  <option value="0">not at all</option>
                </select>
              </label>
            </FormDialog>
            <FormDialog
              opens="Take out of service…"
              class="small danger"
              title={`Take ${box.name} out of service?`}
              does="Take out of service"
              openId="decommission"
              doId="confirm-decommission"
              onDo={end}
            >
              <p>Its token ends, its open commands are withdrawn. Its history stays. It comes back by a new enrolment only.</p>
            </FormDialog>
          </>
        ) : null}
      </div>
      {token ? <Secret what={`New token of ${box.name}`} text={token} onDone={() => setToken(null)} /> : null}
    </>
  );
}
