// Which key does what. Pure: the page hands in the event's fields and acts on the answer.

export type KeyAction =
  | { do: "preview"; digit: string }
  | { do: "cut" }
  | { do: "mix" }
  | { do: "help" }
  | { do: "close" }
  | null;

export interface Key {
  key: string;
  code?: string;
  repeat?: boolean;
  ctrlKey?: boolean;
  metaKey?: boolean;
  altKey?: boolean;
}

/**
 * `tag` is the focused element's tag. Keys typed into a field belong to the field. Space and Enter cut and mix even when a button
 * has the focus: after a click on a scene the button keeps it, and a crew member's next space must be the cut. `keyboardFocus`
 * is true when the focus got there by Tab: then both keys press the button, as people who do not use a mouse expect.
 */
export function actionFor(key: Key, tag: string, keyboardFocus: boolean): KeyAction {
  if (key.ctrlKey || key.metaKey || key.altKey) return null;
  if (["INPUT", "TEXTAREA", "SELECT"].includes(tag)) return key.key === "Escape" ? { do: "close" } : null;
  const pressesButton = ["BUTTON", "A", "SUMMARY"].includes(tag) && keyboardFocus;
  if (/^[1-9]$/.test(key.key)) return { do: "preview", digit: key.key };
  // French and Czech rows give digits only with shift: the place of the key counts too.
  const place = /^(?:Digit|Numpad)([1-9])$/.exec(key.code ?? "");
  if (place?.[1]) return { do: "preview", digit: place[1] };
  switch (key.key) {
    case " ":
      return pressesButton || key.repeat ? null : { do: "cut" };
    case "Enter":
      return pressesButton || key.repeat ? null : { do: "mix" };
    case "?":
    case "h":
      return { do: "help" };
    case "Escape":
      return { do: "close" };
    default:
      return null;
  }
}
