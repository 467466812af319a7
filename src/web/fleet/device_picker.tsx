// A field that names a box: searched for as one types, by name, identifier, place or tag, page by page; walked through by arrow keys
// (the combobox pattern of ARIA). Its form gets the identifier. What is no box is refused in words.

import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { wordsFor } from "../common/problem.js";
import type { Card, Page } from "./contract.js";
import { activeAfter, choicesPath, further, meant, refusal, toldOf, type Choice, type Found } from "./pick.js";
import { cardSignal } from "./roll.js";
import { api } from "./session.js";

/** From the last key to the question (milliseconds). */
const TYPED = 200;

interface Props {
  /** In the form. */
  name: string;
  label: string;
  /** The identifier of the box that it begins with. */
  value?: string | null;
  required?: boolean;
  placeholder?: string;
  testId: string;
}

export function DevicePicker({ name, label, value, required = false, placeholder, testId }: Props) {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const [text, setText] = useState(value ? (cardSignal(value)?.peek().name ?? value) : "");
  const [chosen, choose] = useState<Choice | null>(value ? { id: value, name: value } : null);
  const [found, setFound] = useState<Found | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  /** Whoever leaves or sends a wrong entry is told; not at the first letter. */
  const [left, leave] = useState(false);
  const asked = useRef(0);
  const under = useRef(false);

  // A box that is chosen already is shown by its name; one that is gone stays as its identifier.
  useEffect(() => {
    if (!value) return;
    api<Card>(`/devices/${encodeURIComponent(value)}`).then(
      (card) => {
        choose((now) => (now?.id === value ? card : now));
        setText((now) => (now === value ? card.name : now));
      },
      () => undefined,
    );
  }, []);

  const ask = async (typed: string, from: Found | null) => {
    const mine = ++asked.current;
    under.current = true;
    try {
      const page = await api<Page<Card>>(choicesPath(typed, from?.cursor ?? null));
      if (mine !== asked.current) return;
      const next = further(from, typed, page);
      setFound(next);
      setFailed(null);
      const one = from === null ? meant(typed, next) : null;
      if (one) choose((now) => now ?? one);
    } catch (error) {
      if (mine === asked.current) setFailed(wordsFor(error));
    } finally {
      if (mine === asked.current) under.current = false;
    }
  };
  useEffect(() => {
    if (!open) return;
    const typed = chosen ? "" : text.trim();
    if (found?.text === typed) return;
    const soon = setTimeout(() => void ask(typed, null), found === null ? 0 : TYPED);
    return () => clearTimeout(soon);
  }, [open, text]);
  const more = () => {
    if (found?.cursor && !under.current) void ask(found.text, found);
  };

  const why = refusal(text, chosen, found, required);
  useLayoutEffect(() => field.current?.setCustomValidity(why), [why]);
  useLayoutEffect(() => {
    list.current?.children[active]?.scrollIntoView({ block: "nearest" });
  }, [active]);

  const shows = open && (found?.items.length ?? 0) > 0;
  useLayoutEffect(() => {
    if (shows) list.current?.scrollIntoView({ block: "nearest" });
  }, [shows]);

  const items = open ? (found?.items ?? []) : [];
  const take = (one: Choice) => {
    choose(one);
    setText(one.name);
    setOpen(false);
    setActive(-1);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.key === "Escape" && open) {
      // The list closes, and the dialog round it does not.
      event.preventDefault();
      event.stopPropagation();
      setOpen(false);
      setActive(-1);
      return;
    }
    if (event.key === "Enter" && open) {
      const one = items[active];
      if (!one) return;
      event.preventDefault();
      take(one);
      return;
    }
    if (!open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      setOpen(true);
      return;
    }
    const to = activeAfter(event.key, active, items.length);
    if (to === null) return;
    event.preventDefault();
    setActive(to);
    if (to >= items.length - 2) more();
  };
  const said = left && why !== "" && !open;
  return (
    <div class="field picker">
      <label for={`${id}-field`}>{label}</label>
      <input type="hidden" name={name} value={chosen?.id ?? ""} />
      <input
        ref={field}
        id={`${id}-field`}
        role="combobox"
        aria-autocomplete="list"
        aria-expanded={open}
        aria-controls={`${id}-list`}
        aria-activedescendant={open && active >= 0 ? `${id}-${active}` : undefined}
        aria-describedby={`${id}-told`}
        aria-invalid={said}
        aria-required={required}
        autocomplete="off"
        spellcheck={false}
        maxLength={200}
        placeholder={placeholder ?? "Name, identifier, place or tag"}
        value={text}
        data-testid={testId}
        onInput={(event) => {
          setText(event.currentTarget.value);
          choose(null);
          setActive(-1);
          setOpen(true);
        }}
        onClick={() => setOpen(true)}
        onKeyDown={onKey}
        onInvalid={() => leave(true)}
        onBlur={() => {
          setOpen(false);
          setActive(-1);
          leave(true);
        }}
      />
      <ul
        ref={list}
        id={`${id}-list`}
        role="listbox"
        aria-label={label}
        hidden={items.length === 0}
        onMouseDown={(event) => event.preventDefault()}
        onScroll={(event) => {
          const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
          if (scrollTop + 2 * clientHeight >= scrollHeight) more();
        }}
        data-testid={`${testId}-list`}
      >
        {items.map((one, index) => (
          <li key={one.id} id={`${id}-${index}`} role="option" aria-selected={index === active} onClick={() => take(one)}>
            <i class={one.online ? "good" : ""} aria-hidden="true" />
            <b class="cut-off">{one.name}</b>
            <span class="muted cut-off">{[one.id === one.name ? "" : one.id, one.location].filter(Boolean).join(" · ")}</span>
          </li>
        ))}
      </ul>
      <span class={said || failed ? "error" : "muted"} id={`${id}-told`} role="status">
        {failed ?? (said ? why : open ? (items.length === 0 && found?.text === text.trim() ? refusal(text, null, found, true) : toldOf(found)) : chosen && chosen.id !== text ? chosen.id : "")}
      </span>
    </div>
  );
}
