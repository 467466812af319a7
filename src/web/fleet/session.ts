// Who is signed in. Tokens live in memory only: a reload signs out, and nothing is left on a shared machine.

import { computed, signal } from "@preact/signals";
import { json, Problem, send } from "../common/problem.js";
import type { Role, User } from "./contract.js";

interface Tokens {
  access_token: string;
  expires_in: number;
  refresh_token?: string;
}

export const user = signal<User | null>(null);
/** Why the last session ended, when it was not by choice. */
export const ended = signal<string | null>(null);

let tokens: Tokens | null = null;
let renewing: Promise<void> | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

const rank: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };
const may = (role: Role) => computed(() => (user.value ? (rank[user.value.role] ?? 0) >= rank[role] : false));
export const mayOperate = may("operator");
export const mayAdminister = may("admin");

export async function signIn(email: string, password: string): Promise<void> {
  keep(await json<Tokens>("/api/v1/auth/login", { email, password }));
  ended.value = null;
  user.value = await api<User>("/auth/me");
}

export function signOut(why: string | null = null): void {
  clearTimeout(timer);
  // A session that ends by choice ends on the server too.
  if (tokens?.refresh_token && why === null) {
    void json("/api/v1/auth/logout", { refresh_token: tokens.refresh_token }).catch(() => undefined);
  }
  tokens = null;
  user.value = null;
  ended.value = why;
}

function keep(next: Tokens): void {
  tokens = next;
  clearTimeout(timer);
  // Renewed with a fifth of its life left; a laptop that slept through that renews at the first 401.
  timer = setTimeout(() => void renew().catch(() => undefined), Math.max(10, next.expires_in * 0.8) * 1_000);
}

/** One renewal at a time: a refresh token is good for one use. */
function renew(): Promise<void> {
  renewing ??= (async () => {
    const old = tokens;
    if (!old) throw new Problem(401, "Signed out");
    try {
      keep(
        await json<Tokens>(
          "/api/v1/auth/refresh",
          { refresh_token: old.refresh_token ?? "" },
        ),
      );
    } catch (error) {
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) signOut("Your session has ended. Sign in again.");
      throw error;
    }
  })().finally(() => (renewing = null));
  return renewing;
}

export function bearer(): Record<string, string> {
  return tokens ? { authorization: `Bearer ${tokens.access_token}` } : {};
}

/** Runs a request with the token; renews it once when it is not accepted. */
async function authorized<T>(run: () => Promise<T>): Promise<T> {
  const used = tokens;
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401 || !tokens) throw error;
    // Another call may have renewed it while this one was under way.
    if (tokens === used) await renew();
    return run();
  }
}

/** A call under /api/v1 that answers JSON. */
export function api<T>(path: string, body?: unknown): Promise<T> {
  return authorized(() => json<T>(`/api/v1${path}`, body, { headers: bearer() }));
}

/** One that changes something other than by POST with a body. */
export function change<T>(method: "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
  return authorized(() => json<T>(`/api/v1${path}`, body, { method, headers: bearer() }));
}

export function apiRaw(path: string, init: RequestInit): Promise<Response> {
  return authorized(() => send(`/api/v1${path}`, { ...init, headers: { ...bearer() } }));
}

/** Called when the event stream is refused: renews the token, and answers whether to give up. */
export function onStreamRefused(): boolean {
  void renew().catch(() => undefined);
  return user.value === null;
}
