//! Many boxes on the dashboard: a list that draws what is in sight, walked by keys alone, to a box and back; and that box's page, where
//! what operators know of it and its configuration are changed, compared and gone back to.

use reqwest::Method;
use serde_json::json;

use super::support::axe::{assert_accessible, assert_asks_nobody_else};
use super::support::browser::Browser;
use super::support::by_http::HttpBox;
use super::support::dashboard::{find, fits_everywhere, see, signed_in, type_into, visit};
use super::support::r58::PATIENCE;
use super::support::site::Site;

/// More than are held at once.
const MANY: usize = 2_500;

/// Boxes that were registered and never seen, straight into the database.
fn enter_many(site: &Site) {
    let script = format!(
        "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
rows = [(f'many-{{n:05}}', 100 + n, 'default', f'Box {{n:05}} of a fleet that is larger than anybody has walls for', 'linux', 'aarch64',
    ('Oslo', 'Bergen')[n % 2], '[]', '{{}}', 'stable', 0, 0, 0) for n in range({MANY})]
db.executemany('INSERT INTO devices (id, no, org, name, platform, arch, location, tags, metadata, update_channel, command_seq, '
    'registered_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)', rows)
db.executemany('INSERT INTO device_state (device_no, presence, presence_boot, presence_conn, reported_boot, reported_ver) '
    \"VALUES (?, 'unknown', 0, 0, 0, 0)\", [(row[1],) for row in rows])
db.executemany('INSERT INTO device_pulse (device_no, heartbeat_boot, heartbeat_seq, heartbeat_mark, silent) VALUES (?, 0, 0, 0, 0)',
    [(row[1],) for row in rows])
db.execute(\"UPDATE counters SET value = 100000 WHERE name = 'device'\")
db.commit()"
    );
    let done = std::process::Command::new("python3").args(["-c", &script]).arg(site.state_file("fleet.db")).output();
    let done = done.expect("python3 runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Presses keys as a person does, wherever the focus is.
async fn press(browser: &Browser, keys: &[char]) {
    use fantoccini::actions::{InputSource, KeyAction, KeyActions};
    for &key in keys {
        let pressed =
            KeyActions::new("keys".into()).then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        browser.page.perform_actions(pressed).await.expect("a key");
    }
}

const DOWN: char = '\u{e015}';
const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';
const TAB: char = '\u{e004}';
const PAGE_DOWN: char = '\u{e00f}';

#[tokio::test]
async fn a_large_fleet_is_walked_by_keys_and_a_box_is_edited_and_configured() {
    let site = Site::start().await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({})).await["code"].clone();
    let stage = HttpBox::register(&site.api, &code, "stage").await;
    stage.beat().await;
    enter_many(&site);
    let browser = signed_in(&site, "/?view=list").await;
    see(&browser, "how many", "The first 200 of 2,501 boxes").await;
    let drawn = browser.script("return document.querySelectorAll('[data-row]').length").await;
    assert!(drawn.as_u64().expect("a number") < 60, "{drawn} rows are drawn");
    assert_accessible(&browser, "a large list").await;
    fits_everywhere(&browser, "list").await;

    // By keys alone: to the search, to the list, down it, to a box, and back to where one was.
    press(&browser, &['/']).await;
    let at = "document.activeElement.dataset.testid === 'search'";
    browser.until(PATIENCE, "the search", at, "document.activeElement.outerHTML").await;
    press(&browser, &[TAB, TAB, TAB, DOWN, DOWN, PAGE_DOWN]).await;
    let row = "document.activeElement.closest('[data-row]')?.dataset.row";
    browser.until(PATIENCE, "a row further down", &format!("{row} > 4"), "document.activeElement.outerHTML").await;
    let here = browser.script(&format!("return {row}")).await;
    press(&browser, &[ENTER]).await;
    browser.until(PATIENCE, "its page", "location.pathname.startsWith('/devices/many-')", "location.pathname").await;
    browser.until(PATIENCE, "its title", "document.title.startsWith('many-')", "document.title").await;
    find(&browser, "its buttons", "[data-testid=edit]").await;
    press(&browser, &[ESCAPE]).await;
    let back = format!("location.pathname === '/' && {row} === {here}");
    browser.until(PATIENCE, "the row that was left", &back, "document.activeElement.outerHTML").await;

    choose_far_down(&browser).await;
    press(&browser, &['/']).await;
    type_into(&browser, &[("[data-testid=search]", "stage")]).await;
    let one = "document.querySelector('[data-testid=told]').innerText.trim() === '1 box'";
    browser.until(PATIENCE, "the one that is found", one, "document.body.innerText").await;
    press(&browser, &[TAB, TAB, TAB, ENTER]).await;
    find(&browser, "the box", "[data-testid=edit]").await;
    let fields =
        [("name", "Stage left"), ("location", "Oslo"), ("tags", "hall, tour"), ("notes", "Behind the curtain")];
    browser.click("edit").await;
    for (name, text) in fields {
        type_into(&browser, &[(&format!("dialog[open] [name={name}]"), text)]).await;
    }
    assert_accessible(&browser, "a dialog").await;
    browser.screenshot("edit").await;
    browser.click("save").await;
    see(&browser, "its notes", "Behind the curtain").await;
    see(&browser, "its name", "Stage left").await;
    configure(&browser, &stage).await;
    browser.script("document.querySelectorAll('details').forEach((one) => (one.open = true))").await;
    assert_accessible(&browser, "a box").await;
    fits_everywhere(&browser, "box").await;
    assert_asks_nobody_else(&browser).await;

    browser.click("decommission").await;
    browser.click("confirm-decommission").await;
    browser.until(PATIENCE, "the list", "location.pathname === '/'", "location.pathname").await;
    let gone = site.api.call(Method::GET, "/api/v1/devices/stage", None).await.expect("a device");
    assert_eq!((&gone["status"], &gone["name"]), (&json!("decommissioned"), &json!("Stage left")));
    browser.close().await;
}

/// A field that names a box, walked down by keys beyond the page that it began with.
async fn choose_far_down(browser: &Browser) {
    visit(browser, "/alerts").await;
    browser.click("new-silence").await;
    browser.script("document.querySelector('[data-testid=silence-which]').focus()").await;
    browser.click("silence-which").await;
    let options = "document.querySelectorAll('[data-testid=silence-which-list] [role=option]').length";
    browser.until(PATIENCE, "the first page", &format!("{options} === 20"), options).await;
    press(browser, &[PAGE_DOWN, PAGE_DOWN, PAGE_DOWN]).await;
    browser.until(PATIENCE, "the next page", &format!("{options} > 20"), options).await;
    press(browser, &[PAGE_DOWN]).await;
    find(browser, "a box of it", "[data-testid=silence-which-list] [role=option]:nth-child(n+21)[aria-selected=true]")
        .await;
    press(browser, &[ENTER]).await;
    find(browser, "the box that is chosen", "[name=which][value^=many-]").await;
    browser.script("document.querySelector('nav.places a').click()").await;
}

/// Two versions, the difference between them, and the way back, each brought to the box by a command.
async fn configure(browser: &Browser, stage: &HttpBox<'_>) {
    for (ver, kind) in [(1, "test"), (2, "file")] {
        browser.click("do-config").await;
        type_into(browser, &[("dialog[open] [name=changes]", "{ not JSON")]).await;
        browser.click("send-config").await;
        see(browser, "why it is not taken", "not valid JSON").await;
        let changes = json!({"inputs": {"cam1": {"source": {"kind": kind}}}}).to_string();
        let fields = [("dialog[open] [name=changes]", changes.as_str()), ("dialog[open] [name=notes]", "a rehearsal")];
        type_into(browser, &fields).await;
        browser.click("send-config").await;
        see(browser, "the version", &format!("version {ver}: ")).await;
    }
    stage.does_next(&json!({"status": "completed"})).await;
    find(browser, "the command's steps", "[data-type=config][data-state=succeeded]").await;
    browser.script("document.querySelector('[data-testid=versions] summary').click()").await;
    browser.click("back-1").await;
    see(browser, "what would differ", "/inputs/cam1/source/kind").await;
    browser.screenshot("go-back").await;
    browser.click("go-back").await;
    see(browser, "a version that restores", "back to 1").await;
}
