// Boxes as a list, one line each, however many there are: only those in sight are drawn. Arrow keys walk, Enter opens.

import { memo } from "preact/compat";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { diskPercent, figure, percent, sentence } from "../common/format.js";
import { signalWords } from "../common/words.js";
import type { Card } from "./contract.js";
import { troubles } from "./filter.js";
import { absence, Ago, Online } from "./parts.js";
import { cardSignal, inSight } from "./roll.js";
import { Link } from "./router.js";
import { rowAfter, scrollFor, spanOf } from "./virtual.js";

/** Where the list was left, for whoever comes back from a box. */
let leftAt = 0;
/** The box that was opened from it. */
let leftFor: string | null = null;

export function List(props: { ids: string[]; total: number | null; onNearEnd(): void }) {
  const { ids } = props;
  const frame = useRef<HTMLDivElement>(null);
  const ruler = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ height: 600, row: 44 });
  const [top, setTop] = useState(leftAt);
  const [active, setActive] = useState(() => Math.max(0, ids.indexOf(leftFor ?? "")));
  // Who comes back stands where they were.
  const wantsFocus = useRef(leftFor !== null && ids.includes(leftFor));
  const span = spanOf(top, size.height, size.row, ids.length);

  useLayoutEffect(() => {
    const box = frame.current;
    const line = ruler.current;
    if (!box || !line) return;
    // The height of a row is the style sheet's: a phone has two lines, a wall large letters.
    const measure = () => setSize({ height: box.clientHeight, row: Math.max(1, line.offsetHeight) });
    measure();
    box.scrollTop = leftAt;
    const watch = new ResizeObserver(measure);
    watch.observe(box);
    watch.observe(line);
    return () => watch.disconnect();
  }, []);

  const seen = ids.slice(span.first, span.end).join("\n");
  useEffect(() => {
    inSight.value = seen === "" ? [] : seen.split("\n");
  }, [seen]);
  useEffect(() => {
    leftFor = null;
    return () => void (inSight.value = []);
  }, []);

  const end = span.end >= ids.length;
  useEffect(() => {
    if (end) props.onNearEnd();
  }, [end, ids.length]);

  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    const link = frame.current?.querySelector<HTMLElement>(`[data-row="${active}"] a`);
    if (!link) return;
    wantsFocus.current = false;
    link.focus({ preventScroll: true });
  });

  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(size.height / size.row) - 1);
    const to = rowAfter(event.key, active, page, ids.length);
    const box = frame.current;
    if (to === null || !box) return;
    event.preventDefault();
    wantsFocus.current = true;
    box.scrollTop = scrollFor(to, box.scrollTop, size.height, size.row);
    setTop(box.scrollTop);
    setActive(to);
  };

  // Tab comes to the row that was walked to, or to the first one in sight.
  const reachable = active >= span.first && active < span.end ? active : Math.min(ids.length - 1, Math.ceil(top / size.row));
  return (
    <div class="roll" data-testid="roll">
      <div class="roll-head line muted" aria-hidden="true">
        <span class="name">Box</span>
        <span class="state">State</span>
        <span class="inputs-of">Inputs</span>
        <span class="cpu">CPU</span>
        <span class="mem">Memory</span>
        <span class="disk">Disk free</span>
        <span class="version">Version</span>
        <span class="place">Place and tags</span>
        <span class="seen">Last seen</span>
      </div>
      <div
        class="roll-frame"
        ref={frame}
        onScroll={(event) => {
          leftAt = event.currentTarget.scrollTop;
          setTop(leftAt);
        }}
        onKeyDown={onKey}
      >
        <div class="line ruler" ref={ruler} aria-hidden="true" />
        <div role="list" aria-label="Boxes" class="roll-rows" style={{ height: `${ids.length * size.row}px` }}>
          {ids.slice(span.first, span.end).map((id, offset) => {
            const index = span.first + offset;
            return (
              <div
                key={id}
                role="listitem"
                aria-posinset={index + 1}
                aria-setsize={props.total ?? -1}
                class="at"
                data-row={index}
                style={{ transform: `translateY(${index * size.row}px)` }}
                onFocusIn={() => setActive(index)}
                onClick={() => (leftFor = id)}
              >
                <Line id={id} tabIndex={index === reachable ? 0 : -1} />
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}

/** What the pointer is told, line by line. */
const hover = (card: Card): string =>
  [card.name, absence(card), ...troubles(card), ...(card.inputs ?? []).map((input) => `${input.label ?? input.id}: ${signalWords(input.signal).words}`)]
    .filter(Boolean)
    .join("\n");

const Line = memo(function Line({ id, tabIndex }: { id: string; tabIndex: number }) {
  const card = cardSignal(id)?.value;
  if (!card) return null;
  const wrong = troubles(card);
  const disk = diskPercent(card.disk_free_gb, card.disk_total_gb);
  return (
    <div class={`line ${card.online ? "" : "away"} ${wrong.length > 0 ? "wrong" : ""}`}>
      <span class="name cut-off">
        {/* In passing, its state and what is wrong are heard after its name. */}
        <Link to={`/devices/${encodeURIComponent(id)}`} tabIndex={tabIndex} title={hover(card)} describedBy={`state-${id} wrong-${id}`}>
          {card.name}
        </Link>
        {wrong.length > 0 ? (
          <span class="trouble" id={`wrong-${id}`}>
            {wrong.join(", ")}
          </span>
        ) : null}
      </span>
      <span class="state" id={`state-${id}`} data-testid={`line-${id}`}>
        <Online card={card} />
      </span>
      <span class="inputs-of">
        {(card.inputs ?? []).map((input) => (
          <i key={input.id} class={card.online ? `${signalWords(input.signal).mood} ${input.tally ?? ""}` : ""} />
        ))}
        <span class="muted cut-off">{card.online && card.programme?.scene ? sentence(card.programme.scene) : ""}</span>
      </span>
      <span class={`cpu ${hot(card.cpu_percent)}`}>{percent(card.cpu_percent)}</span>
      <span class={`mem ${hot(card.mem_percent)}`}>{percent(card.mem_percent)}</span>
      <span class={`disk ${hot(disk)}`}>{typeof card.disk_free_gb === "number" ? figure(card.disk_free_gb, 0, "GB") : "–"}</span>
      <span class="version cut-off muted">{card.version ?? "–"}</span>
      <span class="place cut-off">
        {card.location}
        {(card.tags ?? []).map((tag) => (
          <span class="tag" key={tag}>
            {tag}
          </span>
        ))}
      </span>
      <span class="seen muted">
        <Ago at={card.last_seen} />
      </span>
    </div>
  );
});

/** The limits of the governor, as the bars have them. */
const hot = (share: number | null | undefined): string => (typeof share !== "number" ? "" : share >= 85 ? "bad" : share >= 70 ? "warn" : "");
