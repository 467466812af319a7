// All boxes: totals that filter, a search, a card each.

import { computed, signal } from "@preact/signals";
import { memo } from "preact/compat";
import { diskPercent, figure, sentence } from "../common/format.js";
import { byName, matches, totals, type Filter } from "./filter.js";
import { absence, Ago, Bar, Degradation, InputThumb, Online, Thumb } from "./parts.js";
import { Link } from "./router.js";
import { mayAdminister } from "./session.js";
import { all, cardSignal, loadError, loaded } from "./store.js";

const filter = signal<Filter>("all");
const search = signal("");
/** More cards than anybody looks at are not drawn at once. */
const STEP = 120;
const limit = signal(STEP);

const counts = computed(() => totals(all.value));
/** Ids in order, as one string: the list is drawn again only when a card comes, goes or changes sides. */
const shown = computed(() =>
  all.value
    .filter((card) => matches(card, filter.value, search.value))
    .sort(byName)
    .map((card) => card.id)
    .join("\n"),
);

const filters: [Filter, string][] = [
  ["all", "Boxes"],
  ["online", "Online"],
  ["offline", "Offline"],
  ["trouble", "Need a look"],
];

export function Cards() {
  const ids = shown.value === "" ? [] : shown.value.split("\n");
  return (
    <main class="fleet">
      <div class="tools">
        <div class="totals" role="group" aria-label="Filter">
          {filters.map(([key, words]) => (
            <button key={key} class={`total ${key}`} aria-pressed={filter.value === key} onClick={() => (filter.value = key)} data-testid={`filter-${key}`}>
              <b>{counts.value[key]}</b>
              <span>{words}</span>
            </button>
          ))}
        </div>
        <input
          type="search"
          placeholder="Search name, place, tag, version"
          aria-label="Search"
          data-testid="search"
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
        />
      </div>
      {loadError.value ? (
        <p class="error" role="alert">
          The list could not be loaded: {loadError.value}
        </p>
      ) : null}
      {!loaded.value && !loadError.value ? <p class="muted pad">Loading…</p> : null}
      {loaded.value && ids.length === 0 ? (
        <p class="muted pad">
          {counts.value.all > 0
            ? "No box matches."
            : mayAdminister.value
              ? "No boxes yet. Create an enrolment code and enter it in a box's configuration."
              : "No boxes yet."}
        </p>
      ) : null}
      <div class="cards">
        {ids.slice(0, limit.value).map((id) => (
          <CardView key={id} id={id} />
        ))}
      </div>
      {ids.length > limit.value ? (
        <button onClick={() => (limit.value += STEP)}>
          Show more ({ids.length - limit.value})
        </button>
      ) : null}
    </main>
  );
}

const CardView = memo(function CardView({ id }: { id: string }) {
  const card = cardSignal(id)?.value;
  if (!card) return null;
  const inputs = card.inputs ?? [];
  const free = card.disk_free_gb;
  return (
    <article class={`card ${card.online ? "" : "away"}`} data-testid={`card-${id}`} data-online={String(card.online)}>
      <Link to={`/devices/${encodeURIComponent(id)}`} class="face" label={`Open ${card.name}`}>
        <header class="row spread">
          <b class="cut-off grow">{card.name}</b>
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
      </Link>
    </article>
  );
});
