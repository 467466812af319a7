// A password, key or token that is shown once: the server keeps a hash only.

import { copyText } from "../common/copy.js";
import { toast } from "../common/toasts.js";

export function Secret({ what, text, onDone }: { what: string; text: string; onDone(): void }) {
  const copy = async () => {
    const copied = await copyText(text);
    toast(copied ? "Copied" : "Copy it by hand", copied ? "good" : "");
  };
  return (
    <section class="panel stack" role="status" aria-label={what} data-testid="secret">
      <h2>{what}</h2>
      <p class="code mono">{text}</p>
      <p class="muted">It is shown only now.</p>
      <div class="row">
        <button class="primary" onClick={() => void copy()}>
          Copy
        </button>
        <button onClick={onDone}>Done</button>
      </div>
    </section>
  );
}
