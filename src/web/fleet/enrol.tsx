// A one-time enrolment code for a new box.

import { signal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { copyText } from "../common/copy.js";
import { expiry } from "../common/format.js";
import { wordsFor } from "../common/problem.js";
import { toast } from "../common/toasts.js";
import { DialogButtons } from "../common/dialog_buttons.js";
import { api } from "./session.js";
import { now } from "./store.js";

const made = signal<{ code: string; expires_at: string } | null>(null);
const failed = signal<string | null>(null);

async function create(event: Event): Promise<void> {
  event.preventDefault();
  const form = new FormData(event.currentTarget as HTMLFormElement);
  const note = String(form.get("note") ?? "").trim();
  try {
    made.value = await api("/enrolment-codes", { expires_in_seconds: Number(form.get("life")), ...(note ? { note } : {}) });
    failed.value = null;
  } catch (error) {
    failed.value = wordsFor(error);
  }
}

export function Enrol() {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = () => {
    made.value = null;
    failed.value = null;
    dialog.current?.showModal();
  };
  return (
    <>
      <button class="small" onClick={open} data-testid="enrol">
        Enrol a box
      </button>
      <dialog ref={dialog} aria-label="Enrol a box">
        {made.value ? (
          <div class="stack">
            <h1>Enrolment code</h1>
            <p class="code mono" data-testid="enrolment-code">
              {made.value.code}
            </p>
            <p class="muted">Good for one box; {expiry(made.value.expires_at, now.value)}. It is shown only now.</p>
            <pre>{`[device.link]\nfleet_url = "${location.origin}"\nenrolment_code = "${made.value.code}"`}</pre>
            <div class="row">
              <button
                class="primary"
                onClick={() => void copyText(made.value?.code ?? "").then((copied) => toast(copied ? "Code copied" : "Copy it by hand", copied ? "good" : ""))}
              >
                Copy code
              </button>
              <button onClick={() => dialog.current?.close()}>Done</button>
            </div>
          </div>
        ) : (
          <form class="stack" onSubmit={(event) => void create(event)}>
            <h1>Enrol a box</h1>
            <label class="field">
              Valid for
              <select name="life">
                <option value="3600">one hour</option>
                <option value="86400">one day</option>
                <option value="604800">one week</option>
              </select>
            </label>
            <label class="field">
              Note
              <input name="note" maxLength={120} placeholder="which box, where" />
            </label>
            {failed.value ? (
              <p class="error" role="alert">
                {failed.value}
              </p>
            ) : null}
            <DialogButtons dialog={dialog} testId="create-code">
              Create code
            </DialogButtons>
          </form>
        )}
      </dialog>
    </>
  );
}
