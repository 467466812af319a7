// Small parts of the alerts' page.

import { useId } from "preact/hooks";
import { SEVERITIES, type Severity } from "./alerts.js";
import { cardSignal, tags } from "./roll.js";

/** A shape and a word beside the colour. */
export function Mark({ severity }: { severity: Severity }) {
  return <span class={`mark ${severity}`}>{severity}</span>;
}

/** "21 Nov, 14:03". */
export const moment = (time: string): string =>
  new Date(time).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A box as people know it; by its identifier where it is not here. */
export const boxName = (id: string): string => cardSignal(id)?.value.name ?? id;

/** A tag, with those that there are to choose from. */
export function TagField(props: { name: string; label: string; value?: string | null; required?: boolean; placeholder?: string }) {
  const id = useId();
  return (
    <label class="field">
      {props.label}
      <input name={props.name} required={props.required} maxLength={200} placeholder={props.placeholder} defaultValue={props.value ?? undefined} autocomplete="off" list={id} />
      <datalist id={id}>
        {tags.value.map((one) => (
          <option key={one.tag} value={one.tag} />
        ))}
      </datalist>
    </label>
  );
}

export function SeverityField({ name, label, value = "warning" }: { name: string; label: string; value?: Severity }) {
  return (
    <label class="field">
      {label}
      <select name={name}>
        {SEVERITIES.map((severity) => (
          <option key={severity} value={severity} selected={severity === value}>
            {severity}
          </option>
        ))}
      </select>
    </label>
  );
}
