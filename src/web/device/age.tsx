// How old a thumbnail is, once it is old enough to mislead: under load the box makes them more rarely.

import { now, pictures } from "./box.js";

/** Seconds after which a picture that should come once a second is called old. */
const OLD = 4;

export function Age({ name }: { name: string }) {
  const frame = pictures.frame(name).value;
  const seconds = frame ? Math.floor((now.value - frame.at) / 1000) : 0;
  if (seconds < OLD) return null;
  return <span class="how">{seconds} s old</span>;
}
