// What the keys and clicks do.

import type { Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

export function KeyHelp({ open, rehearsal }: { open: Signal<boolean>; rehearsal: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open.value]);
  return (
    <dialog ref={dialog} class="help" aria-label="Keys" onClose={() => (open.value = false)}>
      <h1>Keys and clicks</h1>
      <table>
        <tbody>
          <Row keys="1 … 9" what="put the n-th scene on preview" />
          <Row keys="space" what="cut: preview goes on air" />
          <Row keys="enter" what="mix: preview fades in over the chosen time" />
          <Row keys="click an input" what="take it at once, full" />
          <Row keys="shift or right click, or PVW" what="put the input on preview" />
          <Row keys="click a scene" what="put it on preview" />
          <Row keys="double click a scene" what="take it at once" />
          <Row keys="?" what="this help" />
        </tbody>
      </table>
      {rehearsal ? <p class="muted">This box allows rehearsals: each test input can be stalled, unplugged or made to panic.</p> : null}
      <form method="dialog">
        <button class="primary">Close</button>
      </form>
    </dialog>
  );
}

function Row({ keys, what }: { keys: string; what: string }) {
  return (
    <tr>
      <th scope="row">
        <kbd>{keys}</kbd>
      </th>
      <td>{what}</td>
    </tr>
  );
}
