// What a WHIP client says after its offer (RFC 9725, section 4.3; RFC 8840): candidates that come late, and ICE restarts. Pure.

/** The body of a PATCH: the ICE session that `description` speaks of, with these candidates (`candidate:...`, or "" for the end). */
export function fragment(description: string, candidates: readonly string[]): string {
  const first = (name: string) => description.match(new RegExp(`^${name}[^\\r\\n]*`, "m"))?.[0] ?? "";
  const lines = candidates.map((candidate) => (candidate ? `a=${candidate}` : "a=end-of-candidates"));
  return [first("a=ice-ufrag:"), first("a=ice-pwd:"), first("m="), first("a=mid:"), ...lines].join("\r\n") + "\r\n";
}

/** The answer with the ICE part of a restart's fragment in place of its own. */
export function merged(answer: string, restarted: string): string {
  const lines = restarted.split(/\r?\n/);
  const of = (name: string) => lines.find((line) => line.startsWith(name)) ?? name;
  const candidates = lines.filter((line) => line.startsWith("a=candidate:"));
  let placed = false;
  return answer
    .split(/\r?\n/)
    .filter((line) => line !== "" && !line.startsWith("a=candidate:") && line !== "a=end-of-candidates")
    .flatMap((line) => {
      if (line.startsWith("a=ice-ufrag:")) return [of("a=ice-ufrag:")];
      if (line.startsWith("a=ice-pwd:")) return [of("a=ice-pwd:")];
      if (!line.startsWith("a=mid:") || placed) return [line];
      placed = true;
      return [line, ...candidates];
    })
    .map((line) => `${line}\r\n`)
    .join("");
}
