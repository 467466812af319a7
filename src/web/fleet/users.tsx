// People and API keys of the organization, for its administrators.

import { useEffect, useRef, useState } from "preact/hooks";
import { copyText } from "../common/copy.js";
import { wordsFor } from "../common/problem.js";
import { attempt, toast } from "../common/toasts.js";
import { DialogButtons } from "../common/dialog_buttons.js";
import type { Page, Role } from "./contract.js";
import { Ago } from "./parts.js";
import { api, change, mayAdminister, user as me } from "./session.js";

interface Person {
  id: string;
  email: string;
  name: string;
  role: Role;
  is_active: boolean;
  last_login_at?: string | null;
}

interface Key {
  id: string;
  name: string;
  scopes: string[];
  created_by: string;
  created_at: string;
  expires_at?: string | null;
  last_used_at?: string | null;
}

const ROLES: [Role, string][] = [
  ["viewer", "Viewer: reads"],
  ["operator", "Operator: also acts on boxes"],
  ["admin", "Administrator: everything"],
];

/** Areas of an API key, and whether there is anything to write. */
const AREAS: [string, boolean][] = [
  ["devices", true],
  ["telemetry", true],
  ["commands", true],
  ["config", true],
  ["releases", true],
  ["guests", true],
  ["bundles", true],
  ["logs", true],
  ["alerts", true],
  ["audit", true],
  ["events", false],
  ["metrics", false],
  ["enrolment", true],
  ["users", true],
];

export function Users() {
  const [people, setPeople] = useState<Person[] | null>(null);
  const [keys, setKeys] = useState<Key[]>([]);
  const [failed, setFailed] = useState<string | null>(null);
  const [secret, setSecret] = useState<{ what: string; text: string } | null>(null);

  async function load(): Promise<void> {
    try {
      const [persons, held] = await Promise.all([api<Page<Person>>("/users?page_size=200"), api<Page<Key>>("/api-keys?page_size=200")]);
      setPeople(persons.items);
      setKeys(held.items);
      setFailed(null);
    } catch (error) {
      setFailed(wordsFor(error));
    }
  }

  useEffect(() => void load(), []);
  if (!mayAdminister.value) return <main class="place-page">Only administrators look after users.</main>;

  const patch = (person: Person, what: string, body: unknown) =>
    attempt(what, () => change("PATCH", `/users/${encodeURIComponent(person.id)}`, body)).then(load);
  const reset = (person: Person) =>
    attempt("New password", async () => {
      const made = await api<{ password?: string }>(`/users/${encodeURIComponent(person.id)}/reset-password`, {});
      if (made.password) setSecret({ what: `New password of ${person.email}`, text: made.password });
    }).then(load);
  const remove = (person: Person) => {
    if (confirm(`Delete ${person.email}? What this account did stays in the audit log.`)) {
      void attempt("Delete", () => change("DELETE", `/users/${encodeURIComponent(person.id)}`)).then(load);
    }
  };
  const revoke = (key: Key) => {
    if (confirm(`Delete the key ${key.name}? What uses it stops working at once.`)) {
      void attempt("Delete", () => change("DELETE", `/api-keys/${encodeURIComponent(key.id)}`)).then(load);
    }
  };
  return (
    <main class="place-page">
      {failed ? (
        <p class="error" role="alert">
          {failed}
        </p>
      ) : null}
      {secret ? <Secret {...secret} onDone={() => setSecret(null)} /> : null}
      <section class="panel stack">
        <div class="row spread">
          <h2>Users</h2>
          <AddUser onMade={load} />
        </div>
        {people === null ? (
          <p class="muted">Loading…</p>
        ) : (
          <table data-testid="users">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Address</th>
                <th scope="col">Role</th>
                <th scope="col">Signed in</th>
                <th scope="col">
                  <span class="unseen">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {people.map((person) => {
                const own = person.email === me.value?.email;
                return (
                  <tr key={person.id} class={person.is_active ? "" : "off"} data-testid={`user-${person.email}`}>
                    <td data-name="Name">{person.name}</td>
                    <td data-name="Address">
                      {person.email}
                      {person.is_active ? null : <span class="badge idle">switched off</span>}
                    </td>
                    <td data-name="Role">
                      <select
                        aria-label={`Role of ${person.email}`}
                        value={person.role}
                        disabled={own}
                        onChange={(event) => void patch(person, "Role", { role: event.currentTarget.value })}
                      >
                        {ROLES.map(([role, words]) => (
                          <option key={role} value={role}>
                            {words}
                          </option>
                        ))}
                      </select>
                    </td>
                    <td data-name="Signed in" class="muted">
                      {person.last_login_at ? <Ago at={person.last_login_at} /> : "never"}
                    </td>
                    <td>
                      <div class="acts">
                        <button class="small" onClick={() => void reset(person)} data-testid="reset">
                          New password
                        </button>
                        {own ? null : (
                          <>
                            <button class="small" aria-pressed={!person.is_active} onClick={() => void patch(person, "Switch", { is_active: !person.is_active })}>
                              {person.is_active ? "Switch off" : "Switch on"}
                            </button>
                            <button class="small" onClick={() => remove(person)}>
                              Delete
                            </button>
                          </>
                        )}
                      </div>
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        )}
      </section>
      <section class="panel stack">
        <div class="row spread">
          <h2>API keys</h2>
          <AddKey onMade={(text) => { setSecret({ what: "New API key", text }); void load(); }} />
        </div>
        {keys.length === 0 ? (
          <p class="muted">None. A key acts for its maker, with the lesser of its scopes and the maker's role.</p>
        ) : (
          <table data-testid="keys">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Scopes</th>
                <th scope="col">Made by</th>
                <th scope="col">Last used</th>
                <th scope="col">
                  <span class="unseen">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {keys.map((key) => (
                <tr key={key.id}>
                  <td data-name="Name">{key.name}</td>
                  <td data-name="Scopes" class="mono">
                    {key.scopes.join(" ")}
                  </td>
                  <td data-name="Made by">{key.created_by}</td>
                  <td data-name="Last used" class="muted">
                    {key.last_used_at ? <Ago at={key.last_used_at} /> : "never"}
                    {key.expires_at ? `, until ${new Date(key.expires_at).toLocaleDateString()}` : ""}
                  </td>
                  <td>
                    <div class="acts">
                      <button class="small" onClick={() => revoke(key)}>
                        Delete
                      </button>
                    </div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </section>
    </main>
  );
}

/** Shown once: the server keeps a hash only. */
function Secret({ what, text, onDone }: { what: string; text: string; onDone(): void }) {
  return (
    <section class="panel stack" role="status" data-testid="secret">
      <h2>{what}</h2>
      <p class="code mono">{text}</p>
      <p class="muted">It is shown only now.</p>
      <div class="row">
        <button class="primary" onClick={() => void copyText(text).then((copied) => toast(copied ? "Copied" : "Copy it by hand", copied ? "good" : ""))}>
          Copy
        </button>
        <button onClick={onDone}>Done</button>
      </div>
    </section>
  );
}

function AddUser({ onMade }: { onMade(): Promise<void> }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const add = async (event: Event) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const fields = Object.fromEntries(new FormData(form));
    if (await attempt("Add a user", () => api("/users", fields))) {
      form.reset();
      dialog.current?.close();
      await onMade();
    }
  };
  return (
    <>
      <button class="small" onClick={() => dialog.current?.showModal()} data-testid="add-user">
        Add a user
      </button>
      <dialog ref={dialog} aria-label="Add a user">
        <form class="stack" onSubmit={(event) => void add(event)}>
          <h1>Add a user</h1>
          <label class="field">
            Name
            <input name="name" required maxLength={200} autocomplete="off" />
          </label>
          <label class="field">
            E-mail address
            <input name="email" type="email" required maxLength={200} autocomplete="off" />
          </label>
          <label class="field">
            Role
            <select name="role">
              {ROLES.map(([role, words]) => (
                <option key={role} value={role}>
                  {words}
                </option>
              ))}
            </select>
          </label>
          <label class="field">
            First password
            <input name="password" type="password" required minLength={8} autocomplete="new-password" />
          </label>
          <DialogButtons dialog={dialog} testId="create-user">
            Add
          </DialogButtons>
        </form>
      </dialog>
    </>
  );
}

function AddKey({ onMade }: { onMade(key: string): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const add = async (event: Event) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const fields = new FormData(form);
    const days = Number(fields.get("days"));
    const body = {
      name: fields.get("name"),
      scopes: fields.getAll("scope"),
      ...(days > 0 ? { expires_at: new Date(Date.now() + days * 86_400_000).toISOString() } : {}),
    };
    await attempt("Make a key", async () => {
      const made = await api<{ key: string }>("/api-keys", body);
      form.reset();
      dialog.current?.close();
      onMade(made.key);
    });
  };
  return (
    <>
      <button class="small" onClick={() => dialog.current?.showModal()} data-testid="add-key">
        Make a key
      </button>
      <dialog ref={dialog} aria-label="Make an API key">
        <form class="stack" onSubmit={(event) => void add(event)}>
          <h1>Make an API key</h1>
          <label class="field">
            Name
            <input name="name" required maxLength={200} placeholder="what uses it" autocomplete="off" />
          </label>
          <label class="field">
            Good for
            <select name="days">
              <option value="90">90 days</option>
              <option value="365">a year</option>
              <option value="0">ever</option>
            </select>
          </label>
          <fieldset>
            <legend>What it may do</legend>
            <div class="scopes">
              {AREAS.flatMap(([area, writes]) =>
                (writes ? ["read", "write"] : ["read"]).map((right) => (
                  <label key={area + right} class="row">
                    <input type="checkbox" name="scope" value={`${area}:${right}`} /> {area} {right}
                  </label>
                )),
              )}
            </div>
          </fieldset>
          <DialogButtons dialog={dialog} testId="create-key">
            Make
          </DialogButtons>
        </form>
      </dialog>
    </>
  );
}
