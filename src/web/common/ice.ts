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

/** Browsers ask ever more slowly with many servers, so no more than these are used (RFC 8445 pacing; Firefox warns from five). */
const MAX_URLS = 4;

/** Both reply shapes as a browser wants them. Entries that would make the constructor throw are left out. Pure. */
export function iceServers(answer: TurnAnswer | null | undefined): RTCIceServer[] {
  const given = answer?.iceServers;
  const entries = Array.isArray(given) ? given : given ? [given] : [];
  const servers: RTCIceServer[] = [];
  let count = 0;
  for (const entry of entries) {
    const listed = entry.urls ?? entry.url ?? [];
    const urls = (Array.isArray(listed) ? listed : [listed])
      .filter((url) => /^(stuns?|turns?):/i.test(url))
      // Browsers block port 53; a request to it only costs time.
      .filter((url) => !/:53(\?|$)/.test(url))
      .filter((url) => /^stun/i.test(url) || (!!entry.username && !!entry.credential))
      .slice(0, Math.max(0, MAX_URLS - count));
    if (urls.length === 0) continue;
    count += urls.length;
    servers.push(
      entry.username && entry.credential
        ? { urls, username: entry.username, credential: entry.credential }
        : { urls },
    );
  }
  return servers;
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
