// Calls that answer JSON, and failures that carry words: RFC 9457 problem documents become a `Problem`.

/** A failed call. `status` 0 means that no answer came at all. */
export class Problem extends Error {
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** Seconds that the server asks us to wait, from Retry-After. */
  readonly retryAfter: number | null;

  constructor(status: number, title: string, detail = "", retryAfter: number | null = null) {
    super(detail ? `${title}: ${detail}` : title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }

  /** The sentence to show: the detail when there is one, it says more than the title. */
  get words(): string {
    const words = this.detail || this.title;
    // A word becomes a sentence's beginning; the name of a key stays as it is.
    return /^[a-z]+[ ,]/.test(words) ? words.charAt(0).toUpperCase() + words.slice(1) : words;
  }
}

/** Seconds from a Retry-After header, which is either seconds or a date. */
export function parseRetryAfter(header: string | null, now: number): number | null {
  if (!header) return null;
  if (/^\d+$/.test(header.trim())) return Number(header);
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, Math.round((at - now) / 1000));
}

/** What an error response says, from its body and status. */
export function problemFrom(status: number, statusText: string, body: string, retryAfter: number | null): Problem {
  let title = statusText || `Error ${status}`;
  let detail = "";
  try {
    const json: unknown = JSON.parse(body);
    if (json && typeof json === "object") {
      const fields = json as Record<string, unknown>;
      if (typeof fields.title === "string" && fields.title) title = fields.title;
      if (typeof fields.detail === "string") detail = fields.detail;
    }
  } catch {
    // Not JSON: a proxy's page, or nothing. The status has to do.
  }
  return new Problem(status, title, detail, retryAfter);
}

/** fetch that throws a `Problem` for everything but 2xx. */
export async function send(url: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "Not reachable", "no answer from the server");
  }
  if (response.ok) return response;
  const body = await response.text().catch(() => "");
  const retryAfter = parseRetryAfter(response.headers.get("retry-after"), Date.now());
  throw problemFrom(response.status, response.statusText, body, retryAfter);
}

/** GET, or POST when there is a body, answering JSON. */
export async function json<T>(url: string, body?: unknown, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers);
  headers.set("accept", "application/json");
  if (body !== undefined) headers.set("content-type", "application/json");
  const response = await send(url, {
    method: body === undefined ? "GET" : "POST",
    ...init,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** What to say about anything that was thrown. */
export function wordsFor(error: unknown): string {
  if (error instanceof Problem) return error.words;
  if (error instanceof Error) return error.message;
  return String(error);
}
