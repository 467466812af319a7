//! Alerts on both engines: once each, through restarts and replicas, and quiet where they should be.

use r58_mqtt::payload::InputBrief;
use r58_mqtt::sign::CommandSigner;

use super::*;
use crate::fleet::alerts::courier::Target;
use crate::fleet::vault::Vault;

/// Everything reported until now, looked at `ahead` from now.
async fn look(store: &Store, ahead: Duration) -> Vec<(String, String)> {
    let back = Utc::now() - Duration::minutes(2);
    let mut since = Since::from(back);
    let now = Utc::now() + ahead;
    store.look_for_alerts(&mut since, Utc::now() + Duration::seconds(1), now).await.unwrap().changed
}

async fn open(store: &Store, org: &str) -> Vec<AlertRow> {
    store.alerts(org, &AlertFilter { state: Some("open"), ..AlertFilter::default() }, None, 50).await.unwrap()
}

fn inputs(device: &DeviceAddress, seq: u64, signal: &str) -> Record {
    let input = InputBrief { id: "cam1".into(), kind: "camera".into(), signal: signal.into(), ..InputBrief::default() };
    let beat = Heartbeat { inputs: vec![input], device_time: Some(Utc::now()), ..heartbeat(1, seq, 1.0) };
    record(device, said(beat))
}

#[tokio::test]
async fn every_organization_has_the_usual_rules_once_and_a_deleted_one_stays_away() {
    for world in World::both().await {
        let (rules, total) = world.store.alert_rules("default", 0, 50).await.unwrap();
        assert_eq!(total, 7);
        assert!(world.store.delete_alert_rule(&actor(), &rules[0].id, Utc::now()).await.unwrap());
        world.store.make_usual_alert_rules(Utc::now()).await.unwrap();
        world.store.ensure_organization("default", "again", Utc::now()).await.unwrap();
        assert_eq!(world.store.alert_rules("default", 0, 50).await.unwrap().1, 6);
        assert_eq!(world.store.alert_rules("other", 0, 50).await.unwrap().1, 7);
        let made = AuditFilter { action: Some("alert_rule.create_usual".into()), ..AuditFilter::default() };
        for org in ["default", "other"] {
            let noted = world.store.changes(org, &made, None, 9).await.unwrap();
            assert_eq!((noted.len(), noted[0].actor.as_str()), (1, "server"));
        }
    }
}

#[tokio::test]
async fn a_box_that_goes_is_one_alert_after_its_time_whoever_looks_and_comes_back_after_as_long() {
    for world in World::both().await {
        let device = world.enrol("default", "box1").await;
        world.store.apply(&[presence(&device, true, 1, 1)]).await.unwrap();
        world.store.apply(&[presence(&device, false, 1, 1)]).await.unwrap();
        assert!(look(&world.store, Duration::zero()).await.is_empty());
        let pending = AlertFilter { state: Some("pending"), ..AlertFilter::default() };
        assert_eq!(world.store.alerts("default", &pending, None, 9).await.unwrap().len(), 1);
        // Two servers that both believe to lead.
        let ahead = Duration::seconds(121);
        let (one, two) = tokio::join!(look(&world.store, ahead), look(&world.store, ahead));
        assert_eq!(one.len() + two.len(), 1);
        let all = open(&world.store, "default").await;
        assert_eq!((all.len(), all[0].state.as_str(), all[0].kind.as_str()), (1, "firing", "offline"));
        assert!(open(&world.store, "other").await.is_empty());
        let taken = world.store.acknowledge_alert(&actor(), &all[0].id, Some("on my way"), Utc::now()).await.unwrap();
        assert!(matches!(taken, Acknowledged::Done));
        world.store.apply(&[presence(&device, true, 1, 2)]).await.unwrap();
        assert!(look(&world.store, Duration::zero()).await.is_empty());
        let all = open(&world.store, "default").await;
        assert_eq!((all[0].state.as_str(), all[0].note.as_deref()), ("acknowledged", Some("on my way")));
        assert_eq!(look(&world.store, Duration::seconds(122)).await.len(), 1);
        let over = world.store.alert("default", &all[0].id).await.unwrap().unwrap();
        assert_eq!((over.state.as_str(), over.resolution.as_deref()), ("resolved", Some("it is back")));
    }
}

#[tokio::test]
async fn an_input_that_was_live_is_lost_and_a_decommissioned_box_has_no_alerts() {
    for world in World::both().await {
        let device = world.enrol("default", "box1").await;
        world.store.apply(&[presence(&device, true, 1, 1), inputs(&device, 1, "live")]).await.unwrap();
        assert!(look(&world.store, Duration::zero()).await.is_empty());
        world.store.apply(&[inputs(&device, 2, "no_signal")]).await.unwrap();
        assert!(look(&world.store, Duration::zero()).await.is_empty());
        assert_eq!(look(&world.store, Duration::seconds(31)).await.len(), 1);
        let lost = open(&world.store, "default").await;
        assert_eq!((lost[0].subject.as_str(), lost[0].detail.as_str()), ("cam1", "cam1: no signal"));
        assert!(world.store.decommission_device(&actor(), "box1", Utc::now()).await.unwrap());
        assert_eq!(look(&world.store, Duration::zero()).await.len(), 1);
        assert!(open(&world.store, "default").await.is_empty());
    }
}

#[tokio::test]
async fn a_box_waits_for_a_look_when_rules_could_see_something_new_until_somebody_has_looked() {
    for world in World::both().await {
        let device = world.enrol("default", "box1").await;
        let noted = async || -> Vec<(String,)> {
            query_as("SELECT devices FROM to_look_at ORDER BY id").fetch_all(&world.store.reader).await.unwrap()
        };
        let it = vec![(format!("[{}]", world.card("box1").await.no),)];
        world.store.apply(&[presence(&device, true, 1, 1), inputs(&device, 1, "live")]).await.unwrap();
        assert_eq!(noted().await, it);
        look(&world.store, Duration::zero()).await;
        assert!(noted().await.is_empty());
        // As before, but for what no rule divides.
        let mut warmer = inputs(&device, 2, "live");
        let Report::Heartbeat { heartbeat, .. } = &mut warmer.report else { panic!("a heartbeat") };
        heartbeat.metrics.cpu_percent = Some(99.0);
        world.store.apply(&[warmer, inputs(&device, 3, "live")]).await.unwrap();
        assert!(noted().await.is_empty());
        world.store.apply(&[inputs(&device, 4, "no_signal")]).await.unwrap();
        assert_eq!(noted().await, it);
        // An old one changes nothing; what was noted waits for whoever comes to look.
        world.store.apply(&[inputs(&device, 3, "live")]).await.unwrap();
        assert_eq!(noted().await, it);
        look(&world.store, Duration::zero()).await;
        assert_eq!((noted().await.len(), look(&world.store, Duration::seconds(31)).await.len()), (0, 1));
        // One that was silent and speaks again.
        assert!(!world.store.mark_silent(Utc::now() + Duration::hours(1)).await.unwrap().is_empty());
        world.store.apply(&[inputs(&device, 5, "no_signal")]).await.unwrap();
        assert_eq!(noted().await, it);
    }
}

#[tokio::test]
async fn a_rule_that_is_switched_off_ends_its_alerts() {
    for world in World::both().await {
        let device = world.enrol("default", "box1").await;
        world.store.apply(&[presence(&device, true, 1, 1), presence(&device, false, 1, 1)]).await.unwrap();
        assert_eq!(look(&world.store, Duration::seconds(200)).await.len(), 1);
        let (rules, _) = world.store.alert_rules("default", 0, 50).await.unwrap();
        let offline = rules.into_iter().find(|rule| rule.kind == "offline").unwrap();
        let off = AlertRuleRow { enabled: false, ..offline };
        assert_eq!(world.store.change_alert_rule(&actor(), &off).await.unwrap(), Ruled::Done);
        assert!(open(&world.store, "default").await.is_empty());
        assert!(look(&world.store, Duration::seconds(200)).await.is_empty());
    }
}

#[tokio::test]
async fn a_look_in_small_lots_sees_every_device() {
    for world in World::both().await {
        let mut records = Vec::new();
        for n in 0..450 {
            let device = world.enrol("default", &format!("box{n}")).await;
            records.push(presence(&device, true, 1, 1));
            records.push(presence(&device, false, 1, 1));
        }
        // All of them at the very same moment.
        let at = Utc::now();
        records.iter_mut().for_each(|record| record.received_at = at);
        world.store.apply(&records).await.unwrap();
        let mut since = Since::from(at - Duration::seconds(1));
        let mut found = 0;
        for _ in 0..20 {
            let (upto, now) = (at + Duration::seconds(1), at + Duration::seconds(200));
            found += world.store.look_for_alerts(&mut since, upto, now).await.unwrap().changed.len();
        }
        assert_eq!(found, 450);
    }
}

#[tokio::test]
async fn secrets_that_an_older_version_left_readable_are_sealed_once_and_the_file_forgets_them() {
    let (signer, marker) = (CommandSigner::generate(), "planted-in-a-receiver");
    let (vault, stranger) = (Vault::of(&signer), Vault::of(&CommandSigner::generate()));
    for world in World::both().await {
        let receiver = |n: usize, kind: &str, target: String| AlertReceiverRow {
            id: format!("r{n}"),
            org: "default".into(),
            name: format!("R {n}"),
            kind: kind.into(),
            target,
            secret: (kind == "webhook").then(|| format!("{marker}-secret-{n}")),
            min_severity: "warning".into(),
            enabled: true,
            created_at: 1,
            updated_at: 1,
        };
        for n in 0..20 {
            let row = receiver(n, "webhook", format!("https://hooks.example/{marker}-{n}"));
            world.store.create_alert_receiver(&actor(), &row).await.unwrap();
        }
        let mail = receiver(20, "email", "[\"crew@stage.example\"]".into());
        world.store.create_alert_receiver(&actor(), &mail).await.unwrap();
        let readable = || {
            let files = std::fs::read_dir(world._dir.path()).unwrap().map(|entry| entry.unwrap().path());
            let found = |file: &std::path::PathBuf| {
                let bytes = std::fs::read(file).unwrap();
                bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
            };
            files.filter(found).count()
        };
        assert_eq!(readable() > 0, !world.store.is_shared());
        world.store.seal_older_receivers(&vault).await.unwrap();
        assert_eq!(readable(), 0);
        let (rows, _) = world.store.alert_receivers("default", 0, 50).await.unwrap();
        assert!(rows.iter().all(|row| !format!("{}{:?}", row.target, row.secret).contains(marker)));
        for row in &rows {
            match row.target(&vault).unwrap() {
                Target::Email(to) => assert_eq!(to, ["crew@stage.example"]),
                Target::Webhook { url, secret } => {
                    assert_eq!(url, format!("https://hooks.example/{marker}-{}", &row.id[1..]));
                    assert_eq!(secret, Some(format!("{marker}-secret-{}", &row.id[1..])));
                    assert!(row.target(&stranger).is_err());
                }
            }
        }
        // The next start finds nothing to do.
        world.store.seal_older_receivers(&stranger).await.unwrap();
        let (again, _) = world.store.alert_receivers("default", 0, 50).await.unwrap();
        assert!(again.iter().zip(&rows).all(|(one, two)| one.target == two.target && one.secret == two.secret));
    }
}
