//! Both sides are watched by a real Prometheus: what they tell is well formed by its own tool, and each query of the shipped
//! dashboard names metrics that are there, and has an answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::support::process::Process;
use super::support::r58::PATIENCE;
use super::support::site::Site;
use super::support::{free_port, stage, until};

const TOKEN: &str = "only-the-monitoring-knows";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-image/monitoring").join(name)
}

/// Every query of the dashboard, with what Grafana fills in.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(shipped("grafana.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let text = |target: Value| target["expr"].as_str().expect("a query").to_owned();
    targets.map(|target| text(target).replace("$__rate_interval", "20s").replace("$box", ".*")).collect()
}

/// The metrics that a query names.
fn named(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("r58_")).map(str::to_owned).collect()
}

/// The series that a scrape has, by name.
fn told(scrape: &str) -> BTreeSet<String> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// By Prometheus' own rules for names, units and texts.
fn assert_well_formed(scrape: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), scrape.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{scrape}");
}

async fn scrape(url: &str, token: &str) -> (StatusCode, String) {
    let answer = Client::new().get(format!("{url}/metrics")).bearer_auth(token).send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a text"))
}

#[tokio::test]
async fn prometheus_reads_both_sides_and_every_query_of_the_dashboard_has_an_answer() {
    let _stage = stage().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("metrics-token");
    std::fs::write(&file, TOKEN).expect("write the token");
    let keys = format!("metrics_token_file = {:?}\nhome_assistant = [\"default\"]\n", file.display().to_string());
    let site = Site::with_fleet(&keys).await;
    let boxed = site.enrol("watched", "").await;
    let device = boxed.start().await;

    let port = free_port();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n\
         - job_name: fleet\n  authorization: {{ credentials_file: {} }}\n  static_configs: [{{ targets: [{:?}] }}]\n\
         - job_name: box\n  static_configs: [{{ targets: [{:?}] }}]\n",
        file.display(),
        site.api.base.trim_start_matches("http://"),
        device.device.trim_start_matches("http://"),
    );
    let config_file = dir.path().join("prometheus.yml");
    std::fs::write(&config_file, config).expect("write the configuration");
    let prometheus = Process::start(
        "prometheus",
        Command::new("prometheus")
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );

    // A command that is done, and one that waits for ever for its box.
    let done = site.api.command("watched", "identify", json!({"seconds": 1})).await;
    site.api.ended(&done).await;

    // Home Assistant is told of boxes a moment after the broker is reached.
    let fleet = until(PATIENCE, "the count of boxes that Home Assistant is not told of", || async {
        let (status, fleet) = scrape(&site.api.base, TOKEN).await;
        assert_eq!(status, StatusCode::OK, "{fleet}");
        if fleet.contains("r58_fleet_home_assistant_untold") { Ok(fleet) } else { Err(fleet) }
    })
    .await;
    // A load is the difference between two looks at the machine.
    let own = until(PATIENCE, "the box's load", || async {
        let (status, own) = scrape(&device.device, "").await;
        assert_eq!(status, StatusCode::OK, "{own}");
        if own.contains("r58_cpu_usage_ratio") { Ok(own) } else { Err(own) }
    })
    .await;
    assert_well_formed(&fleet);
    assert_well_formed(&own);

    let optional = ["r58_temperature_celsius", "r58_fleet_commands_open"];
    let there: BTreeSet<String> = told(&fleet).union(&told(&own)).cloned().collect();
    let queries = queries();
    assert!(queries.len() > 30, "{queries:?}");
    for query in &queries {
        let names = named(query);
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(there.contains(&name) || optional.contains(&name.as_str()), "{name} of {query} is not told");
        }
    }
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| named(query)).collect();
    let base =
        |name: &String| ["_bucket", "_sum", "_count"].iter().fold(name.clone(), |name, end| name.replace(end, ""));
    let shown: BTreeSet<String> = shown.iter().map(base).collect();
    for name in there.iter().map(base).filter(|name| name.starts_with("r58_")) {
        assert!(shown.contains(&name), "{name} is told, and on no panel");
    }

    let client = Client::new();
    for query in queries.iter().filter(|query| !optional.iter().any(|name| query.contains(name))) {
        until(PATIENCE, query, || async {
            let url = format!("http://127.0.0.1:{port}/api/v1/query");
            let answer = client.get(url).query(&[("query", query)]).send().await.map_err(|error| error.to_string())?;
            let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
            let results = answer["data"]["result"].as_array().map_or(0, Vec::len);
            if results > 0 { Ok(()) } else { Err(format!("{answer} {}", prometheus.output())) }
        })
        .await;
    }
}

#[tokio::test]
async fn the_shipped_configuration_of_prometheus_is_one() {
    let output =
        Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(shipped("prometheus.yml")).output();
    let output = output.expect("promtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
