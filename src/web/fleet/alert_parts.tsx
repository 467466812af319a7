// Small parts of the alerts' page.

import { SEVERITIES, type Severity } from "./alerts.js";

/** A shape and a word beside the colour. */
export function Mark({ severity }: { severity: Severity }) {
  return <span class={`mark ${severity}`}>{severity}</span>;
}

/** "21 Nov, 14:03". */
export const moment = (time: string): string =>
  new Date(time).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

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
