// ICE servers as /api/turn-credentials answers them, and waiting for candidates within a bound.

/** What the box answers: one server as an object, or several as an array. */
export interface TurnAnswer {
  iceServers?: IceEntry | IceEntry[] | null;
  provider?: string | null;
  expiresAt?: string | null;
  stale?: boolean;
}

interface IceEntry {
  urls?: string | string[];
  url?: string;
  username?: string;
  credential?: string;
}

/** What an address is good for. With one of each kind a browser finds every way; more only make it slower (Firefox warns from five). */
function kindOf(url: string): string {
  if (/^stun/i.test(url)) return "stun";
  if (/^turns:/i.test(url)) return "turns";
  return /transport=tcp/i.test(url) ? "turn over tcp" : "turn over udp";
}

/** Both reply shapes as a browser wants them. Entries that would make the constructor throw are left out. Pure. */
export function iceServers(answer: TurnAnswer | null | undefined): RTCIceServer[] {
  const given = answer?.iceServers;
  const entries = (Array.isArray(given) ? given : given ? [given] : []).map((entry) => {
    const listed = entry.urls ?? entry.url ?? [];
    const credential = entry.username && entry.credential ? { username: entry.username, credential: entry.credential } : {};
    const urls = (Array.isArray(listed) ? listed : [listed])
      .filter((url) => /^(stuns?|turns?):/i.test(url))
      // Browsers block port 53; a request to it only costs time.
      .filter((url) => !/:53(\?|$)/.test(url))
      .filter((url) => kindOf(url) === "stun" || "username" in credential);
    return { urls, credential };
  });
  const best = new Map<string, string>();
  for (const url of entries.flatMap((entry) => entry.urls)) {
    const kind = kindOf(url);
    // Of several with TLS the one on 443 gets through the strictest firewalls.
    if (!best.has(kind) || (kind === "turns" && /:443(\?|$)/.test(url))) best.set(kind, url);
  }
  return entries
    .map(({ urls, credential }) => ({ urls: [...new Set(urls)].filter((url) => best.get(kindOf(url)) === url), ...credential }))
    .filter((server) => server.urls.length > 0);
}

/** The same from the Link headers of an answer to an offer (RFC 9725, section 4.6), which a browser gives as one text. Pure. */
export function linkedServers(header: string | null): RTCIceServer[] {
  const entries: IceEntry[] = [];
  for (const [, url, parameters] of (header ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+=(?:"(?:[^"\\]|\\.)*"|[^\s;,"]+))*)/g)) {
    const said: Record<string, string> = {};
    for (const [, name, quoted, plain] of (parameters ?? "").matchAll(/([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))/g)) {
      said[(name ?? "").toLowerCase()] = plain ?? (quoted ?? "").replace(/\\(.)/g, "$1");
    }
    if (url && said.rel === "ice-server") entries.push({ urls: [url], username: said.username, credential: said.credential });
  }
  return iceServers({ iceServers: entries });
}

export const hasTurn = (servers: readonly RTCIceServer[]): boolean =>
  servers.some((server) => [server.urls].flat().some((url) => /^turns?:/i.test(url)));

/** Is this candidate line a relayed one? */
export const isRelay = (candidate: string): boolean => / typ relay(\s|$)/.test(candidate);

/**
 * Resolves when gathering is complete, a relayed candidate is there, or the bound is over: 2 s, or 4 s when a TURN server was
 * given and has not answered yet. A guest behind a firewall that blocks UDP reaches it over TCP or TLS, which takes longer.
 */
export function gathered(peer: RTCPeerConnection, servers: readonly RTCIceServer[]): Promise<void> {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(finish, hasTurn(servers) ? 4_000 : 2_000);
    function finish() {
      clearTimeout(timer);
      peer.removeEventListener("icegatheringstatechange", onState);
      peer.removeEventListener("icecandidate", onCandidate);
      resolve();
    }
    function onState() {
      if (peer.iceGatheringState === "complete") finish();
    }
    function onCandidate(event: RTCPeerConnectionIceEvent) {
      if (!event.candidate || isRelay(event.candidate.candidate)) finish();
    }
    peer.addEventListener("icegatheringstatechange", onState);
    peer.addEventListener("icecandidate", onCandidate);
  });
}
