// Sign-in.

import { signal } from "@preact/signals";
import { Problem, wordsFor } from "../common/problem.js";
import { ended, signIn } from "./session.js";

const busy = signal(false);
const failed = signal<string | null>(null);

async function submit(event: Event): Promise<void> {
  event.preventDefault();
  const form = new FormData(event.currentTarget as HTMLFormElement);
  busy.value = true;
  failed.value = null;
  try {
    await signIn(String(form.get("email") ?? "").trim(), String(form.get("password") ?? ""));
  } catch (error) {
    failed.value = error instanceof Problem && error.status === 401 ? "Email or password is wrong." : wordsFor(error);
  } finally {
    busy.value = false;
  }
}

export function Login() {
  return (
    <main class="login">
      <form class="panel stack" onSubmit={(event) => void submit(event)} data-testid="login">
        <h1>R58 fleet</h1>
        {ended.value && !failed.value ? <p class="muted">{ended.value}</p> : null}
        <label class="field">
          Email
          <input name="email" type="email" autocomplete="username" required autofocus data-testid="email" />
        </label>
        <label class="field">
          Password
          <input name="password" type="password" autocomplete="current-password" required data-testid="password" />
        </label>
        {failed.value ? (
          <p class="error" role="alert" data-testid="login-error">
            {failed.value}
          </p>
        ) : null}
        <button class="primary" type="submit" disabled={busy.value} data-testid="sign-in">
          {busy.value ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
