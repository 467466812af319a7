// A button, and the dialog with a form that it opens. What is filled in is made anew each time; Escape and Cancel leave, and the focus
// goes back to the button. Why something was refused is said in the dialog: what lies behind it is neither seen nor heard.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { DialogButtons } from "./dialog_buttons.js";
import { wordsFor } from "./problem.js";

interface Props {
  /** On the button that opens. */
  opens: string;
  title: string;
  /** On the button that does it. */
  does: string;
  openId: string;
  doId: string;
  class?: string;
  wide?: boolean;
  disabled?: boolean;
  /** Why it is disabled. */
  why?: string;
  /** For ears, where several buttons have the same words. */
  label?: string;
  /** The dialog closes when it is done, and says what is thrown. */
  onDo(fields: FormData): Promise<unknown>;
  children: ComponentChildren;
}

export function FormDialog(props: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<string | null>(null);
  useLayoutEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
  }, [open]);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy) return;
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setFailed(null);
    try {
      await props.onDo(fields);
      dialog.current?.close();
    } catch (error) {
      setFailed(wordsFor(error));
    } finally {
      setBusy(false);
    }
  };
  const begin = () => {
    setFailed(null);
    setOpen(true);
  };
  return (
    <>
      <button
        type="button"
        class={props.class ?? "small"}
        disabled={props.disabled}
        title={props.disabled ? props.why : undefined}
        aria-label={props.label}
        onClick={begin}
        data-testid={props.openId}
      >
        {props.opens}
      </button>
      <dialog ref={dialog} class={props.wide ? "wide" : ""} aria-label={props.title} onClose={() => setOpen(false)}>
        {open ? (
          <form class="stack" onSubmit={(event) => void submit(event)} aria-busy={busy}>
            <h2 class="title">{props.title}</h2>
            {props.children}
            {failed ? (
              <p class="error" role="alert">
                {failed}
              </p>
            ) : null}
            <DialogButtons dialog={dialog} testId={props.doId}>
              {props.does}
            </DialogButtons>
          </form>
        ) : null}
      </dialog>
    </>
  );
}
