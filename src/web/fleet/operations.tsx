// What an operator can have a box do. Each button creates a command; what comes of it moves in the list below.

import { signal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { wordsFor } from "../common/problem.js";
import { toast } from "../common/toasts.js";
import { withCommand } from "./commands.js";
import type { Command, Detail } from "./contract.js";
import { api } from "./session.js";
import { commands } from "./store.js";

const busy = signal(false);

/** Minutes after which a command that no box took is not to be carried out any more. */
const LIFE_MINUTES = 60;

async function create(id: string, type: string, payload: unknown): Promise<string | null> {
  busy.value = true;
  try {
    const command = await api<Command>(`/devices/${encodeURIComponent(id)}/commands`, {
      type,
      payload,
      expires_at: new Date(Date.now() + LIFE_MINUTES * 60_000).toISOString(),
    });
    commands.value = withCommand(commands.value, command);
    return null;
  } catch (error) {
    return wordsFor(error);
  } finally {
    busy.value = false;
  }
}

async function run(id: string, type: string, payload: unknown): Promise<void> {
  const failed = await create(id, type, payload);
  if (failed) toast(`${type}: ${failed}`, "bad");
}

export function Operations({ box, id }: { box: Detail; id: string }) {
  const scenes = box.reported?.scenes ?? [];
  const services = box.reported?.services ?? [];
  const scene = useRef<HTMLSelectElement>(null);
  const service = useRef<HTMLSelectElement>(null);
  const picked = () => scene.current?.value ?? "";
  return (
    <section class="panel operations" aria-label="Operations">
      <h2>Do</h2>
      {box.online ? null : <p class="muted">This box is offline. A command waits for it for up to {LIFE_MINUTES} minutes.</p>}
      <div class="row">
        <select ref={scene} class="grow" aria-label="Scene" data-testid="scene" disabled={scenes.length === 0}>
          {scenes.length === 0 ? <option value="">no scenes reported</option> : null}
          {scenes.map((one) => (
            <option key={one.id} value={one.id}>
              {one.label}
              {one.id === box.reported?.mixer?.pgm ? " (on air)" : one.id === box.reported?.mixer?.pvw ? " (preview)" : ""}
            </option>
          ))}
        </select>
        <button data-testid="do-scene" disabled={busy.value || scenes.length === 0} onClick={() => void run(id, "scene", { scene: picked() })}>
          Preview
        </button>
        <button class="cut" data-testid="do-take" disabled={busy.value || scenes.length === 0} onClick={() => void run(id, "take", { scene: picked(), kind: "cut" })}>
          Cut
        </button>
        <button
          class="mix"
          data-testid="do-mix"
          disabled={busy.value || scenes.length === 0}
          onClick={() => void run(id, "take", { scene: picked(), kind: "mix", duration_ms: 500 })}
        >
          Mix
        </button>
      </div>
      <div class="row">
        <select ref={service} class="grow" aria-label="Service" data-testid="service" disabled={services.length === 0}>
          {services.length === 0 ? <option value="">no services reported</option> : null}
          {services.map((one) => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
        <button
          data-testid="do-restart"
          disabled={busy.value || services.length === 0}
          onClick={() => void run(id, "restart_service", { service: service.current?.value ?? "" })}
        >
          Restart service
        </button>
      </div>
      <div class="row">
        <button data-testid="do-identify" disabled={busy.value} onClick={() => void run(id, "identify", { seconds: 10 })}>
          Identify
        </button>
        <span class="grow" />
        <Reboot box={box} id={id} />
      </div>
    </section>
  );
}

function Reboot({ box, id }: { box: Detail; id: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  return (
    <>
      <button class="danger" data-testid="do-reboot" disabled={busy.value} onClick={() => dialog.current?.showModal()}>
        Reboot…
      </button>
      <dialog ref={dialog} aria-label="Reboot">
        <form
          ref={form}
          method="dialog"
          class="stack"
          onSubmit={(event) => {
            if ((event.submitter as HTMLButtonElement | null)?.value !== "reboot") return;
            const seconds = Number(new FormData(event.currentTarget).get("delay"));
            void run(id, "reboot", { delay_seconds: seconds });
          }}
        >
          <h1>Reboot {box.name}?</h1>
          <p>
            Its programme goes off the air until it is back.
            {box.reported?.mixer?.pgm ? ` Scene “${box.reported.mixer.pgm}” is on air now.` : ""}
          </p>
          <label class="field">
            When
            <select name="delay">
              <option value="0">at once</option>
              <option value="10">in 10 seconds</option>
              <option value="60">in one minute</option>
            </select>
          </label>
          <div class="row">
            <button class="danger" value="reboot" data-testid="confirm-reboot">
              Reboot
            </button>
            <button value="cancel" autofocus>
              Cancel
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
