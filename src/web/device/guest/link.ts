// What a guest's link says. Pure: `/join/{invitation}#{secret}`, at the box or at its fleet server, or the older
// `/guest_join?seat=..&token=..` of a seat that is always the same.

export interface GuestLink {
  /** The seat or the invitation, as it stands in addresses. */
  name: string;
  token: string;
  /** Made for one guest, who may have to wait until the crew lets it in. */
  invited: boolean;
  /** Reached by way of the fleet server, which has no live stream of the box's state. */
  afar: boolean;
}

export function readLink(place: { pathname: string; search: string; hash: string }): GuestLink | null {
  const joined = /^\/join\/([A-Za-z0-9._-]{1,128})$/.exec(place.pathname);
  if (joined) {
    const token = place.hash.replace(/^#/, "");
    return /^[0-9a-f]{32}$/.test(token) ? { name: joined[1]!, token, invited: true, afar: joined[1]!.includes(".") } : null;
  }
  const query = new URLSearchParams(place.search);
  const [name, token] = [query.get("seat") ?? "", query.get("token") ?? ""];
  return name && token ? { name, token, invited: false, afar: false } : null;
}

export const whipOf = (link: GuestLink): string => `/whip/${encodeURIComponent(link.name)}`;
export const stateOf = (link: GuestLink): string => `/guest/${encodeURIComponent(link.name)}`;
