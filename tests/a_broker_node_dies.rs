//! A cluster of three rmqttd carries a simulated fleet: one node after the other is killed under load and comes back, boxes
//! and server go on with the others, no result is lost and no command is done twice.

use std::time::Duration;

use r58_mqtt::session::{DisconnectReason, Session, SessionEvent, SessionSettings, Subscription};
use serde_json::json;

use super::support::r58::PATIENCE;
use super::support::rmqttd::{Cluster, NODES};
use super::support::sim::{
    HOME_WITHIN, Simulated, assert_carried_home, assert_heartbeats_stored_once, ended_commands, id, states_of,
    until_online,
};
use super::support::site::{ORG, Site};
use super::support::stage;

const DEVICES: usize = 40;

async fn command_all(site: &Site) {
    for n in 1..=DEVICES {
        let (op, args) = match n % 2 {
            0 => ("take", json!({"scene": "quad"})),
            _ => ("restart_service", json!({"service": "kiosk.service"})),
        };
        site.api.command(&id(n), op, args).await;
    }
}

/// What a client of this name hears when it connects and subscribes.
async fn first_word(url: &str, user: &str, client: &str, password: &str, filter: &str) -> SessionEvent {
    let mut settings = SessionSettings::new(url, client, user, password);
    settings.session_expiry = Duration::ZERO;
    settings.subscriptions = vec![Subscription::new(filter)];
    let (session, mut events) = Session::start(settings).expect("settings of a client");
    let word = tokio::time::timeout(PATIENCE, async {
        loop {
            match events.recv().await.expect("the session goes on") {
                SessionEvent::Connected { .. } => {}
                word => return word,
            }
        }
    });
    let word = word.await.expect("a word");
    drop(session);
    word
}

#[tokio::test]
#[ignore = "needs rmqttd, which takes long to build: make test-broker-cluster"]
async fn nodes_of_a_broker_cluster_die_under_load_and_come_back_and_no_result_is_lost() {
    let _stage = stage().await;
    let mut cluster = Cluster::prepare();
    let site = Site::with_cluster(&cluster).await;
    cluster.start().await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES})).await;
    let code = code["code"].as_str().expect("a code");
    let dir = tempfile::tempdir().expect("a directory");
    let calm = ["--code", code, "--outages", "0", "--site-outages", "0", "--failures", "0"];
    let clocks = ["--unset-clocks", "0", "--wrong-clocks", "0"];
    let sim = Simulated::start(&site.api.base, DEVICES, dir.path(), &[&calm[..], &clocks[..]].concat());
    until_online(&site.api, HOME_WITHIN, DEVICES).await;
    for node in 0..NODES {
        command_all(&site).await;
        cluster.kill_node(node);
        command_all(&site).await;
        cluster.start_node(node).await;
    }
    assert!(cluster.is_whole(), "every node has joined again and stays");
    let commands = ended_commands(&site.api, DEVICES).await;
    let all = 2 * NODES * DEVICES;
    assert_eq!(json!(states_of(&commands)), json!({"succeeded": all}));
    until_online(&site.api, HOME_WITHIN, DEVICES).await;
    let report = sim.report().await;
    assert_carried_home(&report);
    assert_eq!(report["commands"]["ended"], json!({"succeeded": all}));
    assert_heartbeats_stored_once(&site.api, &report).await;
    until_online(&site.api, HOME_WITHIN, 0).await;

    // The same doors as at the embedded broker.
    let boxed = site.enrol("lone", "").await;
    let token = boxed.identity().token;
    let url = site.broker_url.clone();
    let own = first_word(&url, ORG, "lone", token.expose(), "r58/1/default/lone/down/#").await;
    assert!(matches!(&own, SessionEvent::Subscribed { grants } if grants[0].granted.is_ok()), "{own:?}");
    let foreign = first_word(&url, ORG, "lone", token.expose(), "r58/1/default/+/down/#").await;
    assert!(matches!(&foreign, SessionEvent::Subscribed { grants } if grants[0].granted.is_err()), "{foreign:?}");
    for (user, client, password) in
        [(ORG, "lone", "wrong"), (ORG, "sim-00001", token.expose()), ("other", "lone", token.expose())]
    {
        let word = first_word(&url, user, client, password, "r58/1/default/lone/down/#").await;
        let refused = matches!(word, SessionEvent::Disconnected { reason: DisconnectReason::Refused(_), .. });
        assert!(refused, "{user} {client}: {word:?}");
    }
}
