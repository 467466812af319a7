//! What is wrong in a configuration, and where.
//!
//! Three passes: TOML syntax, shape (types and unknown keys), then meaning (ranges, duplicates, files that are
//! missing). The first two stop at their first problem, the last one reports all it finds.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use chrono::Utc;
use r58_pipelines::profile::Profile;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::certificates::files::{self, Part, Wrong};
use crate::proxies::{self, TrustedProxies};

use super::settings::{BrokerSettings, DeviceSettings, FleetSettings, Settings, SfuSettings};

/// Most camera inputs and most seats of one box; the programme prepares a slot for each.
pub const MAX_INPUTS: usize = 8;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// 1-based line in the file; `None` where the problem is something that is absent.
    pub line: Option<usize>,
    /// Dotted path of the key, empty for a syntax error.
    pub key: String,
    /// What is wrong, lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Checks a file; an unreadable one is a problem without a line.
pub fn check_file(path: &Path) -> Vec<Problem> {
    match std::fs::read_to_string(path) {
        Ok(text) => check_text(&text),
        Err(error) => {
            vec![Problem {
                line: None,
                key: String::new(),
                message: format!("cannot read {}: {error}", path.display()),
            }]
        }
    }
}

/// Checks the text of a file.
pub fn check_text(text: &str) -> Vec<Problem> {
    let settings: Settings = match toml::from_str(text) {
        Ok(settings) => settings,
        Err(error) => {
            let line = error.span().map(|span| line_at(text, span.start));
            return vec![Problem { line, key: String::new(), message: error.message().trim().replace('\n', ", ") }];
        }
    };
    let document = DeTable::parse(text).ok();
    let mut problems: Vec<Problem> = judge(&settings)
        .into_iter()
        .map(|(key, message)| Problem {
            line: document.as_ref().and_then(|document| line_of(text, document, &key)),
            key,
            message,
        })
        .collect();
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    problems
}

/// What settings mean, judged without a file: dotted key and message.
pub(super) fn judge(settings: &Settings) -> Vec<(String, String)> {
    let mut found = Found::default();
    judge_device(&settings.device, &mut found);
    judge_fleet(&settings.fleet, &mut found);
    found.0
}

#[derive(Default)]
pub(super) struct Found(Vec<(String, String)>);

impl Found {
    pub(super) fn unless(&mut self, right: bool, key: impl Into<String>, message: impl Into<String>) {
        if !right {
            self.0.push((key.into(), message.into()));
        }
    }

    pub(super) fn range<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, low: T, high: T) {
        let right = value >= low && value <= high;
        self.unless(right, key, format!("{value} is outside {low} to {high}"));
    }

    pub(super) fn file(&mut self, key: &str, path: Option<&Path>) {
        if let Some(path) = path {
            self.unless(path.is_file(), key, format!("no such file: {}", path.display()));
        }
    }

    fn url(&mut self, key: &str, url: Option<&str>, schemes: &[&str]) {
        let Some(url) = url else { return };
        let right = schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        self.unless(right, key, format!("wants an address that starts with {}", schemes.join(" or ")));
    }

    /// One broker, or the nodes of a cluster separated by commas.
    fn brokers(&mut self, key: &str, list: Option<&str>) {
        for url in list.into_iter().flat_map(|list| list.split(',')) {
            self.url(key, Some(url.trim()), &["mqtt://", "mqtts://"]);
        }
    }

    /// Certificates and what belongs to them; `keys` are those of the four parts in their order.
    fn papers(&mut self, wrong: Option<Wrong>, keys: [&str; 4]) {
        if let Some(wrong) = wrong {
            let key = match wrong.part {
                Part::Certificate => keys[0],
                Part::Key => keys[1],
                Part::ClientCa => keys[2],
                Part::Crl => keys[3],
            };
            self.unless(false, key, wrong.message);
        }
    }

    pub(super) fn both(&mut self, one: (&str, bool), other: (&str, bool)) {
        self.unless(!one.1 || other.1, one.0, format!("needs {} beside it", other.0));
        self.unless(!other.1 || one.1, other.0, format!("needs {} beside it", one.0));
    }

    fn proxies(&mut self, key: &str, list: &[String]) {
        self.unless(list.len() <= proxies::MOST, key, format!("at most {} addresses and networks", proxies::MOST));
        for (index, entry) in list.iter().enumerate() {
            if let Err(error) = TrustedProxies::new(std::slice::from_ref(entry)) {
                self.unless(false, format!("{key}.{index}"), error.to_string());
            }
        }
    }

    fn ice_urls(&mut self, key: &str, urls: &[String], schemes: &[&str]) {
        for (index, url) in urls.iter().enumerate() {
            self.url(&format!("{key}.{index}"), Some(url), schemes);
        }
    }
}

fn judge_device(device: &DeviceSettings, found: &mut Found) {
    found.unless(is_name(&device.id, 64, true), "device.id", "wants 1 to 64 of letters, digits, hyphen and underscore");
    found.unless(
        !device.name.trim().is_empty() && device.name.chars().count() <= 64,
        "device.name",
        "wants 1 to 64 characters",
    );
    found.unless(
        device.listen.ip().is_loopback() || device.crew_password.as_ref().is_some_and(|word| word.len() >= 8),
        "device.listen",
        "is not loopback, so device.crew_password must be set (8 characters or more)",
    );
    found.proxies("device.trusted_proxies", &device.trusted_proxies);
    let pressed = &device.pressed_at;
    let rises = |levels: &[f32; 3]| levels.is_sorted() && levels.iter().all(|level| *level > 0.0);
    found.unless(rises(&pressed.cpu_percent), "device.pressed_at.cpu_percent", "wants three rising percentages");
    found.unless(rises(&pressed.mem_percent), "device.pressed_at.mem_percent", "wants three rising percentages");
    let falls = pressed.disk_free_gb.iter().rev().is_sorted() && pressed.disk_free_gb.iter().all(|free| *free >= 0.0);
    found.unless(falls, "device.pressed_at.disk_free_gb", "wants three falling amounts of GB");
    found.url("device.public_url", device.public_url.as_deref(), &["http://", "https://"]);
    if let Err(error) = Profile::load(&device.profile) {
        let said = error.to_string();
        found.unless(false, "device.profile", said.strip_prefix("device.profile: ").unwrap_or(&said));
    }
    let programme = &device.programme;
    found.range("device.programme.width", programme.width, 160, 3840);
    found.range("device.programme.height", programme.height, 90, 2160);
    found.unless(programme.width.is_multiple_of(2), "device.programme.width", "must be even");
    found.unless(programme.height.is_multiple_of(2), "device.programme.height", "must be even");
    found.range("device.programme.fps", programme.fps, 5, 60);
    found.range("device.programme.bitrate_kbps", programme.bitrate_kbps, 100, 50_000);

    let mut seen = HashSet::new();
    found.unless(device.inputs.len() <= MAX_INPUTS, "device.inputs", format!("at most {MAX_INPUTS} inputs"));
    found.unless(device.seats.len() <= MAX_INPUTS, "device.seats", format!("at most {MAX_INPUTS} seats"));
    let names =
        device.inputs.iter().enumerate().map(|(n, input)| (format!("device.inputs.{n}"), &input.id, &input.label));
    let seats = device.seats.iter().enumerate().map(|(n, seat)| (format!("device.seats.{n}"), &seat.id, &seat.label));
    for (key, id, label) in names.chain(seats) {
        found.unless(
            is_name(id, 32, false) && id != "programme",
            format!("{key}.id"),
            "wants 1 to 32 of small letters, digits, hyphen and underscore, and not programme",
        );
        found.unless(seen.insert(id.clone()), format!("{key}.id"), format!("{id} is used twice"));
        found.unless(label.chars().count() <= 32, format!("{key}.label"), "is longer than 32 characters");
    }
    for (n, seat) in device.seats.iter().enumerate() {
        let right =
            seat.token.as_ref().is_none_or(|token| token.len() >= 16 && token.chars().all(|c| c.is_ascii_graphic()));
        found.unless(right, format!("device.seats.{n}.token"), "wants 16 or more printable characters without a space");
    }

    let turn = &device.turn;
    found.ice_urls("device.turn.stun", &turn.stun, &["stun:"]);
    found.ice_urls("device.turn.shared_urls", &turn.shared_urls, &["turn:", "turns:"]);
    found.range("device.turn.ttl_seconds", turn.ttl_seconds, 600, 172_800);
    found.both(
        ("device.turn.cloudflare_key_id", turn.cloudflare_key_id.is_some()),
        ("device.turn.cloudflare_token_file", turn.cloudflare_token_file.is_some()),
    );
    found.both(
        ("device.turn.shared_secret_file", turn.shared_secret_file.is_some()),
        ("device.turn.shared_urls", !turn.shared_urls.is_empty()),
    );
    found.file("device.turn.cloudflare_token_file", turn.cloudflare_token_file.as_deref());
    found.file("device.turn.shared_secret_file", turn.shared_secret_file.as_deref());
    found.file("device.turn.ca_file", turn.ca_file.as_deref());
    judge_sfu(&device.sfu, found);
    if let Some((low, high)) = device.webrtc.udp_ports {
        found.unless(low >= 1024 && low <= high, "device.webrtc.udp_ports", "wants [first, last], 1024 or above");
    }
    found.range("device.webrtc.most_viewers", device.webrtc.most_viewers, 0, 1000);
    let link = &device.link;
    found.url("device.link.fleet_url", link.fleet_url.as_deref(), &["http://", "https://"]);
    found.brokers("device.link.mqtt_url", link.mqtt_url.as_deref());
    found.range("device.link.heartbeat_seconds", link.heartbeat_seconds, 1, 3600);
    found.range("device.link.outbox_max_mb", link.outbox_max_mb, 1, 4096);
    found.range("device.link.bundle_max_mb", link.bundle_max_mb, 1, 1024);
    found.file("device.link.ca_file", link.ca_file.as_deref());
    found.file("device.link.broker_password_file", link.broker_password_file.as_deref());
    found.both(("device.link.cert_file", link.cert_file.is_some()), ("device.link.key_file", link.key_file.is_some()));
    if let (Some(cert), Some(key)) = (&link.cert_file, &link.key_file) {
        let wrong = files::pair(cert, key, Utc::now()).err();
        found.papers(wrong, ["device.link.cert_file", "device.link.key_file", "", ""]);
    }
}

fn judge_sfu(sfu: &SfuSettings, found: &mut Found) {
    let app = sfu.app_id.as_deref();
    let proper = |id: &str| (1..=128).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    found.unless(app.is_none_or(proper), "device.sfu.app_id", "wants letters, digits and hyphens");
    found.unless(
        sfu.secret_file.is_none() || sfu.secret.is_none(),
        "device.sfu.secret_file",
        "stands beside R58__DEVICE__SFU__SECRET: one of the two is enough",
    );
    let secret = sfu.secret_file.is_some() || sfu.secret.is_some();
    found.both(("device.sfu.app_id", app.is_some()), ("device.sfu.secret_file", secret));
    found.file("device.sfu.secret_file", sfu.secret_file.as_deref());
    found.url("device.sfu.base_url", Some(&sfu.base_url), &["http://", "https://"]);
}

/// How the server comes to a broker of somebody else.
fn judge_way(broker: &BrokerSettings, found: &mut Found) {
    let (cert, key) = (broker.cert_file.as_deref(), broker.key_file.as_deref());
    found.both(("fleet.broker.cert_file", cert.is_some()), ("fleet.broker.key_file", key.is_some()));
    for (name, file) in [("fleet.broker.ca_file", broker.ca_file.as_deref()), ("fleet.broker.cert_file", cert)] {
        found.unless(
            file.is_none() || broker.url.is_some(),
            name,
            "is for a broker of somebody else, by fleet.broker.url",
        );
    }
    found.file("fleet.broker.ca_file", broker.ca_file.as_deref());
    if let (Some(cert), Some(key)) = (cert, key) {
        let wrong = files::pair(cert, key, Utc::now()).err();
        found.papers(wrong, ["fleet.broker.cert_file", "fleet.broker.key_file", "", ""]);
    }
}

fn judge_fleet(fleet: &FleetSettings, found: &mut Found) {
    found.url("fleet.public_url", fleet.public_url.as_deref(), &["http://", "https://"]);
    found.proxies("fleet.trusted_proxies", &fleet.trusted_proxies);
    found.url("fleet.database_url", fleet.database_url.as_deref(), &["sqlite:", "postgres://", "postgresql://"]);
    found.file("fleet.database_password_file", fleet.database_password_file.as_deref());
    found.file("fleet.metrics_token_file", fleet.metrics_token_file.as_deref());
    let kept = &fleet.retention;
    found.range("fleet.retention.raw_days", kept.raw_days, 1, 400);
    found.range("fleet.retention.minute_days", kept.minute_days, kept.raw_days, 3_650);
    found.range("fleet.retention.hour_days", kept.hour_days, kept.minute_days, 36_500);
    let broker = &fleet.broker;
    found.brokers("fleet.broker.url", broker.url.as_deref());
    found.brokers("fleet.broker.public_url", broker.public_url.as_deref());
    found.file("fleet.broker.password_file", broker.password_file.as_deref());
    found
        .both(("fleet.broker.tls_cert", broker.tls_cert.is_some()), ("fleet.broker.tls_key", broker.tls_key.is_some()));
    judge_tls(fleet, found);
    judge_way(broker, found);
    found.range("fleet.broker.max_retained", broker.max_retained, 1_000, 10_000_000);
    found.range("fleet.broker.max_retained_mb", broker.max_retained_mb, 1, 65_536);
    let bundles = &fleet.bundles;
    found.range("fleet.bundles.max_mb", bundles.max_mb, 1, 65_536);
    found.range("fleet.bundles.quota_mb", bundles.quota_mb, 1, 16_777_216);
    found.range("fleet.bundles.keep_days", bundles.keep_days, 1, 3_650);
    super::alerts::judge(&fleet.alerts, &fleet.smtp, found);
    let turn = &fleet.turn;
    found.ice_urls("fleet.turn.stun", &turn.stun, &["stun:"]);
    found.ice_urls("fleet.turn.urls", &turn.urls, &["turn:", "turns:"]);
    found.range("fleet.turn.ttl_seconds", turn.ttl_seconds, 600, 172_800);
    found.both(
        ("fleet.turn.shared_secret_file", turn.shared_secret_file.is_some()),
        ("fleet.turn.urls", !turn.urls.is_empty()),
    );
    found.both(
        ("fleet.turn.cloudflare_key_id", turn.cloudflare_key_id.is_some()),
        ("fleet.turn.cloudflare_token_file", turn.cloudflare_token_file.is_some()),
    );
    found.file("fleet.turn.shared_secret_file", turn.shared_secret_file.as_deref());
    found.file("fleet.turn.cloudflare_token_file", turn.cloudflare_token_file.as_deref());
}

fn judge_tls(fleet: &FleetSettings, found: &mut Found) {
    let (tls, broker) = (&fleet.tls, &fleet.broker);
    let served = tls.cert_file.is_some();
    found.both(("fleet.tls.cert_file", served), ("fleet.tls.key_file", tls.key_file.is_some()));
    found.unless(!broker.tls || served, "fleet.broker.tls", "needs fleet.tls.cert_file");
    let asked = tls.client_ca_file.is_some();
    found.unless(
        !asked || served || broker.tls_cert.is_some(),
        "fleet.tls.client_ca_file",
        "needs fleet.tls.cert_file or fleet.broker.tls_cert: without TLS nobody shows a certificate",
    );
    found.unless(asked || tls.crl_file.is_none(), "fleet.tls.crl_file", "needs fleet.tls.client_ca_file");
    let lists = ["fleet.tls.client_ca_file", "fleet.tls.crl_file"];
    let api = tls.files();
    if let Some(files) = &api {
        let wrong = files::check(files, Utc::now());
        found.papers(wrong, ["fleet.tls.cert_file", "fleet.tls.key_file", lists[0], lists[1]]);
    }
    if let Some(files) = tls.for_broker(broker).filter(|files| api.as_ref() != Some(files)) {
        let wrong = files::check(&files, Utc::now());
        found.papers(wrong, ["fleet.broker.tls_cert", "fleet.broker.tls_key", lists[0], lists[1]]);
    }
}

fn is_name(text: &str, longest: usize, capitals: bool) -> bool {
    let allowed = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_' || (capitals && c.is_ascii_uppercase())
    };
    (1..=longest).contains(&text.len()) && text.chars().all(allowed)
}

/// 1-based line of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

/// Line of a dotted key; where the last part is absent, the line of the nearest table that is there.
fn line_of(text: &str, document: &Spanned<DeTable<'_>>, key: &str) -> Option<usize> {
    let mut parts = key.split('.');
    let first = document.get_ref().get_key_value(parts.next()?)?;
    let mut line = line_at(text, first.0.span().start);
    let mut value = first.1;
    for part in parts {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get_key_value(part).map(|(key, value)| (key.span().start, value)),
            DeValue::Array(items) => {
                part.parse().ok().and_then(|n: usize| items.get(n)).map(|item| (item.span().start, item))
            }
            _ => None,
        };
        let Some((start, next)) = next else { break };
        line = line_at(text, start);
        value = next;
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Problem {
        let mut problems = check_text(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn an_empty_file_is_a_right_file() {
        assert_eq!(check_text(""), vec![]);
    }

    #[test]
    fn an_app_of_the_sfu_needs_its_secret() {
        let problem = only("[device.sfu]\napp_id = \"0a1b\"\n");
        assert_eq!((problem.line, problem.key.as_str()), (Some(2), "device.sfu.app_id"));
        let problem = only("[device.sfu]\napp_id = \"a/b\"\nsecret = \"hush hush\"\n");
        assert!(problem.line == Some(2) && !problem.to_string().contains("hush"), "{problem}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let problem = only("[device]\nid = \"a\"\n\n[device.programme]\nwidht = 1280\n");
        assert_eq!(problem.line, Some(5));
        assert!(problem.message.contains("widht"), "{problem}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let problem = only("[device]\nrehearsal = 3\n");
        assert_eq!(problem.line, Some(2));
    }

    #[test]
    fn broken_syntax_is_named_with_its_line() {
        assert_eq!(only("[device]\nid = \"a\n").line, Some(2));
    }

    #[test]
    fn the_second_of_two_equal_names_is_the_wrong_one() {
        let text = "[[device.seats]]\nid = \"guest1\"\n[[device.seats]]\nid = \"guest1\"\n";
        let problem = only(text);
        assert_eq!((problem.line, problem.key.as_str()), (Some(4), "device.seats.1.id"));
    }

    #[test]
    fn every_value_out_of_range_is_reported_at_once() {
        let problems = check_text("[device.programme]\nfps = 500\nwidth = 7\n[device.link]\nheartbeat_seconds = 0\n");
        let lines: Vec<_> = problems.iter().filter_map(|problem| problem.line).collect();
        assert_eq!(lines, vec![2, 3, 3, 5]);
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let list = |entries: &str| format!("[fleet]\ntrusted_proxies = [\n{entries}]\n");
        assert_eq!(check_text(&list("\"10.0.0.0/8\",\n\"::1\",\n")), vec![]);
        let problem = only(&list("\"10.0.0.0/8\",\n\"proxy.example\",\n"));
        assert_eq!((problem.line, problem.key.as_str()), (Some(4), "fleet.trusted_proxies.1"));
        assert_eq!(only("[device]\ntrusted_proxies = [\"10.0.0.0/99\"]\n").key, "device.trusted_proxies.0");
    }

    #[test]
    fn listening_beyond_loopback_needs_a_password() {
        let problem = only("[device]\nlisten = \"0.0.0.0:8000\"\n");
        assert_eq!(problem.line, Some(2));
        assert!(problem.message.contains("crew_password"));
        assert_eq!(check_text("[device]\nlisten = \"0.0.0.0:8000\"\ncrew_password = \"long enough\"\n"), vec![]);
    }
}
