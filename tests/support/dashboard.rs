//! The dashboard in a browser, as an operator uses it.

use super::browser::{Browser, Capture};
use super::r58::PATIENCE;
use super::site::Site;

/// Sets what a field holds as typing does.
const TYPE: &str = "const set = (selector, text) => {
    const field = document.querySelector(selector);
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, text);
    field.dispatchEvent(new Event('input', { bubbles: true }));
    field.dispatchEvent(new Event('change', { bubbles: true }));
};";

/// Widths and heights that the pages are made for: a phone, a laptop, a wall.
pub const SIZES: [(&str, u32, u32); 3] = [("phone", 360, 780), ("laptop", 1366, 768), ("wall", 3840, 2160)];

/// A browser whose user has signed in as the administrator, at this place.
pub async fn signed_in(site: &Site, place: &str) -> Browser {
    let browser = Browser::start(&Capture::Refused, None).await;
    browser.open(&format!("{}{place}", site.api.base)).await;
    browser.until(PATIENCE, "the page", "document.querySelector('[data-testid=password]')", "document.title").await;
    let fields = [("[data-testid=email]", "admin@r58.local"), ("[data-testid=password]", &site.password)];
    type_into(&browser, &fields).await;
    browser.click("sign-in").await;
    browser
        .until(PATIENCE, "who signed in", "document.querySelector('[data-testid=sign-out]')", "document.title")
        .await;
    browser
}

/// Fills in fields, each named by a selector.
pub async fn type_into(browser: &Browser, fields: &[(&str, &str)]) {
    let lines = fields.iter().map(|(selector, text)| format!("set({selector:?}, {text:?});"));
    browser.script(&format!("{TYPE} {}", lines.collect::<String>())).await;
}

/// Where one is led by the bar of places; the session lives in the page, so nothing is loaded anew.
pub async fn visit(browser: &Browser, place: &str) {
    browser.script(&format!("document.querySelector('nav.places a[href=\"{place}\"]').click()")).await;
}

/// Waits until the page says this.
pub async fn see(browser: &Browser, what: &str, text: &str) {
    let text = serde_json::to_string(text).expect("a text");
    let seen = format!("document.body.innerText.replace(/\\s+/g, ' ').includes({text})");
    browser.until(PATIENCE, what, &seen, "document.body.innerText").await;
}

/// Waits until an element is there.
pub async fn find(browser: &Browser, what: &str, selector: &str) {
    let there = format!("document.querySelector({selector:?})");
    browser.until(PATIENCE, what, &there, "document.body.innerText").await;
}

/// Takes a picture at each size, and fails where the page is wider than its window.
pub async fn fits_everywhere(browser: &Browser, name: &str) {
    for (size, width, height) in SIZES {
        resize(browser, width, height).await;
        browser.screenshot(&format!("{name}-{size}")).await;
        let wide = "document.documentElement.scrollWidth <= window.innerWidth";
        let widest = "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1)
            .slice(0, 5).map((one) => one.outerHTML.slice(0, 120))";
        browser.until(PATIENCE, &format!("{name} fits a {size}"), wide, widest).await;
    }
    resize(browser, 1366, 768).await;
}

/// Another size of the window, and a moment for the page to lay itself out.
async fn resize(browser: &Browser, width: u32, height: u32) {
    browser.page.set_window_size(width, height).await.expect("another size");
    browser.script_async("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))").await;
}
