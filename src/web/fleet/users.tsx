// People and API keys of the organization, for its administrators.

import { useState } from "preact/hooks";
import { FormDialog } from "../common/form_dialog.js";
import { attempt } from "../common/toasts.js";
import type { Page, Role } from "./contract.js";
import { Ago } from "./parts.js";
import { Failed, useRead } from "./read.js";
import { Secret } from "./secret.js";
import { api, change, mayAdminister, user as me } from "./session.js";
import { peopled, useChanges } from "./store.js";

/** Milliseconds for which changes are gathered before the lists are read again. */
const GATHER = 300;

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
  return mayAdminister.value ? <Accounts /> : <main class="place-page">Only administrators look after users.</main>;
}

function Accounts() {
  const [secret, setSecret] = useState<{ what: string; text: string } | null>(null);
  const read = async () => {
    const [people, keys] = await Promise.all([api<Page<Person>>("/users?page_size=200"), api<Page<Key>>("/api-keys?page_size=200")]);
    return { people: people.items, keys: keys.items };
  };
  useChanges();
  const { found, failed, again: load } = useRead(read, "", { seen: peopled.value, gather: GATHER });
  const people = found?.people ?? null;
  const keys = found?.keys ?? [];

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
      <h1>Users and keys</h1>
      <Failed words={failed} />
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
                        <button class="small" aria-label={`New password for ${person.email}`} onClick={() => void reset(person)} data-testid="reset">
                          New password
                        </button>
                        {own ? null : (
                          <>
                            <button
                              class="small"
                              aria-label={`Switch ${person.is_active ? "off" : "on"} ${person.email}`}
                              onClick={() => void patch(person, "Switch", { is_active: !person.is_active })}
                            >
                              {person.is_active ? "Switch off" : "Switch on"}
                            </button>
                            <button class="small" aria-label={`Delete ${person.email}`} onClick={() => remove(person)}>
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
                      <button class="small" aria-label={`Delete the key ${key.name}`} onClick={() => revoke(key)}>
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

function AddUser({ onMade }: { onMade(): Promise<void> }) {
  const add = async (fields: FormData) => {
    await api("/users", Object.fromEntries(fields));
    await onMade();
  };
  return (
    <FormDialog opens="Add a user" title="Add a user" does="Add" openId="add-user" doId="create-user" onDo={add}>
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
        First password, at least ten characters
        <input name="password" type="password" required minLength={10} maxLength={256} autocomplete="new-password" />
      </label>
    </FormDialog>
  );
}

function AddKey({ onMade }: { onMade(key: string): void }) {
  const add = async (fields: FormData) => {
    const days = Number(fields.get("days"));
    const body = {
      name: fields.get("name"),
      scopes: fields.getAll("scope"),
      ...(days > 0 ? { expires_at: new Date(Date.now() + days * 86_400_000).toISOString() } : {}),
    };
    onMade((await api<{ key: string }>("/api-keys", body)).key);
  };
  return (
    <FormDialog opens="Make a key" title="Make an API key" does="Make" openId="add-key" doId="create-key" onDo={add}>
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
    </FormDialog>
  );
}
