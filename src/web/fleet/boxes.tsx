// All boxes: totals that filter, a search, tags; as cards with their pictures, or as a list.

import { signal } from "@preact/signals";
import { memo } from "preact/compat";
import { useEffect, useRef } from "preact/hooks";
import { diskPercent, figure, sentence } from "../common/format.js";
import { troubles, type Filter } from "./filter.js";
import { List } from "./list.js";
import { absence, Ago, Bar, Degradation, InputThumb, Online, Thumb } from "./parts.js";
import { cardSignal, counts, inSight, isThereMore, loaded, loadError, loading, more, shown, tags, want, wanted, wantedCount } from "./roll.js";
import { Link } from "./router.js";
import { mayAdminister } from "./session.js";
import type { View } from "./wanted.js";

/** More cards than anybody looks at are not drawn at once. */
const STEP = 120;
const limit = signal(STEP);
/** Fleets up to this size are shown as cards unless the list is chosen: two screens of them. */
const AS_CARDS = 60;

const filters: [Filter, string][] = [
  ["all", "Boxes"],
  ["online", "Online"],
  ["offline", "Offline"],
  ["trouble", "Need a look"],
];

const views: [View, string][] = [
  ["cards", "Cards"],
  ["list", "List"],
];

export function Boxes() {
  const view = wanted.value.view ?? ((counts.value.all ?? 0) <= AS_CARDS ? "cards" : "list");
  return (
    <main class={`fleet ${view}`}>
      <Tools view={view} />
      {loadError.value ? (
        <p class="error" role="alert">
          The list could not be loaded: {loadError.value}
        </p>
      ) : null}
      {!loaded.value && !loadError.value ? <p class="muted pad">Loading…</p> : null}
      {loaded.value && shown.value.length === 0 && !isThereMore.value ? <Nothing /> : null}
      {shown.value.length === 0 ? null : view === "list" ? (
        <List ids={shown.value} total={wantedCount.value} onNearEnd={() => void more()} />
      ) : (
        <Cards ids={shown.value} />
      )}
    </main>
  );
}

function Tools({ view }: { view: View }) {
  const { filter, tag, search } = wanted.value;
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const within = event.target instanceof HTMLElement && event.target.closest("input, select, textarea, dialog");
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || within) return;
      event.preventDefault();
      field.current?.focus();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return (
    <div class="tools">
      <div class="totals" role="group" aria-label="Filter by state">
        {filters
          .filter(([key]) => counts.value[key] !== null || key === filter)
          .map(([key, words]) => (
            <button key={key} class={`total ${key}`} aria-pressed={filter === key} onClick={() => want({ filter: key })} data-testid={`filter-${key}`}>
              <b>{counts.value[key]?.toLocaleString("en") ?? "some"}</b>
              <span>{words}</span>
            </button>
          ))}
      </div>
      <div class="narrow">
        {tags.value.length > 0 || tag ? (
          <select aria-label="Filter by tag" value={tag ?? ""} onChange={(event) => want({ tag: event.currentTarget.value || null })} data-testid="tag">
            <option value="">All tags</option>
            {tag && !tags.value.some((one) => one.tag === tag) ? <option value={tag}>{tag}</option> : null}
            {tags.value.map((one) => (
              <option key={one.tag} value={one.tag}>
                {one.tag} ({one.total.toLocaleString("en")})
              </option>
            ))}
          </select>
        ) : null}
        <input
          ref={field}
          type="search"
          placeholder="Search name, place, tag"
          aria-label="Search"
          aria-keyshortcuts="/"
          data-testid="search"
          value={search}
          onInput={(event) => want({ search: event.currentTarget.value })}
        />
        <div class="views" role="group" aria-label="Show as">
          {views.map(([key, words]) => (
            <button key={key} class="small" aria-pressed={view === key} onClick={() => want({ view: key })} data-testid={`view-${key}`}>
              {words}
            </button>
          ))}
        </div>
      </div>
      <p class="muted told" role="status" data-testid="told">
        {told()}
      </p>
    </div>
  );
}

/** How many of how many, for eyes and ears. */
function told(): string {
  if (!loaded.value) return "";
  const [here, all] = [shown.value.length, wantedCount.value];
  const few = (count: number) => `${count.toLocaleString("en")} ${count === 1 ? "box" : "boxes"}`;
  if (all !== null && here >= all) return few(here);
  return `The first ${here.toLocaleString("en")} of ${all === null ? "more" : few(all)}${loading.value ? ", loading…" : ""}`;
}

function Nothing() {
  return (
    <p class="muted pad">
      {counts.value.all > 0 ? (
        <>
          No box matches.{" "}
          <button class="small" onClick={() => want({ filter: "all", tag: null, search: "" })} data-testid="show-all">
            Show all
          </button>
        </>
      ) : mayAdminister.value ? (
        "No boxes yet. Create an enrolment code and enter it in a box's configuration."
      ) : (
        "No boxes yet."
      )}
    </p>
  );
}

function Cards({ ids }: { ids: string[] }) {
  const rest = ids.length - limit.value;
  const seen = ids.slice(0, limit.value).join("\n");
  useEffect(() => {
    inSight.value = seen === "" ? [] : seen.split("\n");
  }, [seen]);
  useEffect(() => () => void (inSight.value = []), []);
  const next = () => {
    limit.value += STEP;
    if (rest <= STEP) void more();
  };
  return (
    <>
      <div class="cards">
        {ids.slice(0, limit.value).map((id) => (
          <CardView key={id} id={id} />
        ))}
      </div>
      {rest > 0 || isThereMore.value ? <button onClick={next}>Show more</button> : null}
    </>
  );
}

const CardView = memo(function CardView({ id }: { id: string }) {
  const card = cardSignal(id)?.value;
  if (!card) return null;
  const inputs = card.inputs ?? [];
  const free = card.disk_free_gb;
  return (
    <article class={`card ${card.online ? "" : "away"}`} data-testid={`card-${id}`} data-online={String(card.online)}>
      <div class="face">
        <header class="row spread">
          <h2 class="title cut-off grow">
            <Link to={`/devices/${encodeURIComponent(id)}`} title={[absence(card), ...troubles(card)].filter(Boolean).join("\n")}>
              {card.name}
            </Link>
          </h2>
          <Degradation level={card.degradation_level} />
          <Online card={card} />
        </header>
        <Thumb device={id} name="programme" label={`Programme of ${card.name}`} class="programme">
          {card.online ? null : <span class="no">{absence(card)}</span>}
          {card.programme?.scene ? <span class="what cut-off">{sentence(card.programme.scene)}</span> : null}
        </Thumb>
        {inputs.length > 0 ? (
          <div class="inputs">
            {inputs.map((input) => (
              <InputThumb key={input.id} device={id} input={input} />
            ))}
          </div>
        ) : null}
        <div class="bars">
          <Bar name="CPU" value={card.cpu_percent} />
          <Bar name="Memory" value={card.mem_percent} />
          <Bar name="Disk" value={diskPercent(free, card.disk_total_gb)} text={typeof free === "number" ? `${figure(free, 0)} GB free` : undefined} />
        </div>
        {(card.errors ?? []).length > 0 ? <p class="trouble cut-off">{card.errors?.join(", ")}</p> : null}
        <footer class="muted">
          {typeof card.temperature_c === "number" ? <span class={card.temperature_c >= 85 ? "hot" : ""}>{Math.round(card.temperature_c)} °C</span> : null}
          {typeof card.programme?.fps === "number" ? <span>{figure(card.programme.fps, 1)} fps</span> : null}
          <span>{card.version ? `v${card.version}` : "no version"}</span>
          {card.location ? <span>{card.location}</span> : null}
          {(card.tags ?? []).map((tag) => (
            <span class="tag" key={tag}>
              {tag}
            </span>
          ))}
          <span class="seen">
            <Ago at={card.last_seen} />
          </span>
        </footer>
      </div>
    </article>
  );
});
