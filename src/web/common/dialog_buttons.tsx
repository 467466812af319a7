// The end of a dialog's form: the button that does it, and the way out.

import type { ComponentChildren, RefObject } from "preact";

export function DialogButtons(props: { dialog: RefObject<HTMLDialogElement>; testId: string; children: ComponentChildren }) {
  return (
    <div class="row">
      <button class="primary" type="submit" data-testid={props.testId}>
        {props.children}
      </button>
      <button type="button" onClick={() => props.dialog.current?.close()}>
        Cancel
      </button>
    </div>
  );
}
