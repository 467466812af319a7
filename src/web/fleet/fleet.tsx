// The operators' dashboard: sign in, all boxes as cards, one box in full. Everything moves by push.

import "../common/base.css";
import "./cards.css";
import "./fleet.css";
import "./list.css";
import "./charts.css";
import "./alerts.css";
import "./places.css";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { duration } from "../common/format.js";
import { Toasts } from "../common/toasts.js";
import { AlertCount, Alerts } from "./alerts_page.js";
import { Audit } from "./audit.js";
import { Boxes } from "./boxes.js";
import { Device } from "./device.js";
import { Enrol } from "./enrol.js";
import { Login } from "./login.js";
import { StateMap } from "./map.js";
import { Releases } from "./releases.js";
import { deviceOf, go, home, Link, path, placeOf, PLACES, type Place } from "./router.js";
import { mayAdminister, signOut, user } from "./session.js";
import { followFleet, link, now } from "./store.js";
import { Users } from "./users.js";

function Fleet() {
  const who = user.value;
  useEffect(() => (who ? followFleet() : undefined), [who?.email]);
  if (!who) return <Login />;
  const device = deviceOf(path.value);
  useArrival();
  return (
    <>
      <button class="skip" onClick={() => mainOf()?.focus()}>
        Skip to the content
      </button>
      <LostBanner />
      <header class="top">
        <h1>
          <Link to={home()}>R58 fleet</Link>
        </h1>
        <Places />
        {mayAdminister.value ? <Enrol /> : null}
        <span class="who muted cut-off" title={who.role}>
          {who.email} · {who.role}
        </span>
        <button class="small" data-testid="sign-out" onClick={() => signOut()}>
          Sign out
        </button>
      </header>
      {device === null ? <At place={placeOf(path.value)} /> : <Device id={device} key={device} />}
      <Toasts />
    </>
  );
}

/** What is shown now; it can take the focus, and has no ring for it. */
function mainOf(): HTMLElement | null {
  const main = document.querySelector<HTMLElement>("main");
  if (main && !main.hasAttribute("tabindex")) main.tabIndex = -1;
  return main;
}

/** Whoever comes to a place is told so: by the window's title, and by the focus, which would else stay on what is gone. */
function useArrival(): void {
  const arrived = useRef(false);
  const here = path.value;
  useEffect(() => {
    document.title = `${titleOf(here)} · R58 fleet`;
    // Not at the first place: whoever has signed in begins at the top.
    if (arrived.current && !document.querySelector("main :focus")) mainOf()?.focus({ preventScroll: true });
    arrived.current = true;
  }, [here]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const within = event.target instanceof HTMLElement && event.target.closest("input, select, textarea, dialog");
      if (event.key !== "Escape" || event.defaultPrevented || within || document.querySelector("dialog[open]")) return;
      if (deviceOf(path.value) !== null) go(home());
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

const titleOf = (pathname: string): string => deviceOf(pathname) ?? PLACES.find((place) => place.path === placeOf(pathname))?.words ?? "Boxes";

function Places() {
  const here = placeOf(path.value);
  return (
    <nav class="places grow" aria-label="Places">
      <Link to={home()} current={here === null && deviceOf(path.value) === null}>
        Boxes
      </Link>
      {PLACES.filter((place) => !place.admin || mayAdminister.value).map((place) => (
        <Link key={place.path} to={place.path} current={here === place.path}>
          {place.words}
          {place.path === "/alerts" ? <AlertCount /> : null}
        </Link>
      ))}
    </nav>
  );
}

function At({ place }: { place: Place | null }) {
  switch (place) {
    case "/alerts":
      return <Alerts />;
    case "/map":
      return <StateMap />;
    case "/releases":
      return <Releases />;
    case "/users":
      return <Users />;
    case "/audit":
      return <Audit />;
    default:
      return <Boxes />;
  }
}

function LostBanner() {
  const { up, since, why } = link.value;
  const seconds = Math.floor((now.value - since) / 1000);
  const down = !up && why !== null && seconds >= 2;
  useEffect(() => {
    document.body.dataset.link = down ? "down" : "up";
  }, [down]);
  if (!down) return null;
  return (
    <div class="banner" role="alert" data-testid="connection-lost">
      No connection to the fleet server for {duration(seconds)}: what you see is old
    </div>
  );
}

render(<Fleet />, document.getElementById("app")!);
