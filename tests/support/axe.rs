//! What a checker of accessibility (axe-core) says of the page that a browser shows, and whom the page asked for anything.

use std::time::Duration;

use serde_json::Value;

use super::browser::Browser;

/// The checker, as the pages' development dependencies bring it.
const AXE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/node_modules/axe-core/axe.min.js");
/// A page of a loaded machine is looked through in this time.
const WITHIN: Duration = Duration::from_secs(60);

/// Fails when something on the page keeps people from using it: findings that axe-core calls serious or critical.
pub async fn assert_accessible(browser: &Browser, what: &str) {
    let axe = std::fs::read_to_string(AXE).unwrap_or_else(|error| panic!("{AXE}: {error}; run `make pages`"));
    if browser.script("return typeof window.axe").await != "object" {
        browser.script(&axe).await;
    }
    let look = "const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations
            .filter((one) => ['serious', 'critical'].includes(one.impact))
            .map((one) => ({ rule: one.id, help: one.help, where: one.nodes.slice(0, 5).map((node) => [node.target.join(' '), node.any.concat(node.all, node.none).map((why) => why.message).join('; ')]) }))),
            (error) => done(String(error)));";
    let timeouts = fantoccini::wd::TimeoutConfiguration::new(Some(WITHIN), None, None);
    browser.page.update_timeouts(timeouts).await.expect("a longer time for scripts");
    let found = browser.script_async(look).await;
    assert_eq!(found, Value::Array(Vec::new()), "{what}: {found:#}");
}

/// Fails when the page asked anybody but its own server for anything.
pub async fn assert_asks_nobody_else(browser: &Browser) {
    let asked = "return performance.getEntriesByType('resource').map((one) => one.name)
        .filter((name) => !name.startsWith('blob:') && new URL(name).origin !== location.origin)";
    let asked = browser.script(asked).await;
    assert_eq!(asked, Value::Array(Vec::new()), "the page asks elsewhere");
}
