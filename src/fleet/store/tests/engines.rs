//! What is another matter on each engine: servers that start together, a database that goes away.

use sqlx::{AssertSqlSafe, Connection as _};

use super::super::migrations::run_to;
use super::*;

pub(super) async fn execute(url: &str, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    if url.starts_with("sqlite:") {
        sql.execute(&mut sqlx::SqliteConnection::connect(url).await.unwrap()).await.unwrap();
    } else {
        sql.execute(&mut sqlx::PgConnection::connect(url).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn an_audit_log_without_hashes_is_chained_in_its_order_once() {
    let old = "INSERT INTO audit_log (n, org, at, actor, action, target, detail) VALUES \
        (1, 'default', 5, 'server', 'user.create', 'u1', 'admin'), (3, 'default', 7, 'user:x', 'device.change', 'a', NULL), \
        (2, 'other', 6, 'server', 'user.create', 'u2', '');";
    let file = tempfile::tempdir().unwrap();
    let file_url = format!("sqlite://{}?mode=rwc", file.path().join("old.db").display());
    for url in [file_url, Postgres::shared().await.database().await] {
        run_to(30, &url).await;
        execute(&url, old).await;
        // Of a file's servers there is only one.
        let servers = if url.starts_with("sqlite:") { 1 } else { 3 };
        let starts = (0..servers).map(|_| Store::open(Some(&url), None, file.path()));
        let store = futures_util::future::try_join_all(starts).await.unwrap().remove(0);
        store.note_act(&actor(), "guest.invite", "a", Some("a\0b".into()), Utc::now()).await.unwrap();
        for (org, targets) in [("default", &["u1", "a", "a"][..]), ("other", &["u2"][..])] {
            let chain = store.chain(org, 0, u64::MAX).await.unwrap();
            let mut head = crate::audit::Hash::default();
            for (n, change) in chain.iter().enumerate() {
                assert_eq!((change.seq, change.target.as_str()), (n as u64 + 1, targets[n]), "{url}");
                assert_eq!(change.hash, change.hash_after(org, head), "{url}: {change:?}");
                head = change.hash;
            }
            assert_eq!(
                (chain.len(), store.chain_head(org).await.unwrap()),
                (targets.len(), (chain.len() as u64, head))
            );
        }
        store.close().await;
    }
}

#[tokio::test]
async fn servers_that_start_together_on_an_empty_database_do_not_collide() {
    let url = Postgres::shared().await.database().await;
    let dir = tempfile::tempdir().unwrap();
    let starts = (0..4).map(|_| Store::open(Some(&url), None, dir.path()));
    let stores = futures_util::future::join_all(starts).await;
    assert!(stores.iter().all(Result::is_ok), "{:?}", stores.iter().filter_map(|store| store.as_ref().err()).next());
}

#[tokio::test]
async fn a_database_that_dies_and_comes_back_is_reported_and_used_again() {
    let mut server = Postgres::start().await;
    let world = World::new(Some(&server.database().await)).await;
    let device = world.enrol("default", "a").await;
    world.store.apply(&[beat(&device, 1)]).await.unwrap();
    server.kill();
    let begin = std::time::Instant::now();
    let refused = loop {
        // Until the last connection has noticed.
        match world.store.apply(&[beat(&device, 2)]).await {
            Err(error) => break error,
            Ok(_) => assert!(begin.elapsed().as_secs() < 60, "it still answers"),
        }
    };
    assert!(matches!(refused, r58_actors::ingest::store::StoreError::Unavailable(_)), "{refused}");
    server.start_again().await;
    let begin = std::time::Instant::now();
    while let Err(error) = world.store.apply(&[beat(&device, 2), beat(&device, 3)]).await {
        assert!(begin.elapsed().as_secs() < 60, "it does not come back: {error}");
    }
    let no = world.store.device_no("default", "a").await.unwrap().unwrap();
    assert_eq!(world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 10).await.unwrap().1, 3);
    world.store.close().await;
}

#[tokio::test]
async fn two_servers_store_what_the_same_boxes_say_without_waiting_for_ever_or_losing_a_number() {
    let url = Postgres::shared().await.database().await;
    let one = World::new(Some(&url)).await;
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(one.enrol("default", &format!("box{n}")).await);
    }
    let other = World::new(Some(&url)).await;
    // Each message goes to either server, in opposite orders.
    let feed = async |world: &World, odd: u64| {
        for seq in (1..=40_u64).filter(|seq| seq % 2 == odd) {
            let mut records: Vec<Record> = devices.iter().map(|device| batch(device, 1, &[seq])).collect();
            records.extend(devices.iter().map(|device| presence(device, true, 1, seq)));
            if odd == 1 {
                records.reverse();
            }
            while let Err(error) = world.store.apply(&records).await {
                assert!(matches!(error, r58_actors::ingest::store::StoreError::Unavailable(_)), "{error}");
            }
        }
    };
    futures_util::future::join(feed(&one, 0), feed(&other, 1)).await;
    for device in &devices {
        let no = one.store.device_no("default", device.device.as_str()).await.unwrap().unwrap();
        assert_eq!(one.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 1).await.unwrap().1, 40);
    }
    assert!(one.store.decommission_device(&actor(), "box1", Utc::now()).await.unwrap());
    let applied = other.store.apply(&[beat(&devices[1], 99)]).await.unwrap();
    assert_eq!(applied.unknown, 1, "the other server learns of it before it writes");
}

#[tokio::test]
async fn one_of_several_servers_leads_and_the_next_one_does_when_it_stops() {
    for world in World::both().await {
        let store = &world.store;
        assert_eq!(store.ask_to_lead("one").await.unwrap(), Some(1));
        assert_eq!(store.ask_to_lead("two").await.unwrap(), None);
        assert_eq!(store.ask_to_lead("one").await.unwrap(), Some(1), "renewed, the same term");
        store.set_lease(Some((1, std::time::Instant::now() + leader::LEASE)));
        assert!(store.leads() && store.fence(&mut store.begin().await.unwrap()).await.is_ok());
        store.stop_leading("one").await.unwrap();
        assert_eq!(store.ask_to_lead("two").await.unwrap(), Some(2));
        // The first one slept through it.
        let refused = store.fence(&mut store.begin().await.unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Transient);
        store.set_lease(None);
        assert!(!store.leads());
        let device = world.enrol("default", "a").await;
        store.apply(&[presence(&device, true, 1, 1), beat(&device, 1)]).await.unwrap();
        assert_eq!(store.mark_silent(Utc::now() + Duration::hours(1)).await.unwrap(), [], "the leader's duty");
    }
}

#[tokio::test]
async fn what_one_server_says_the_others_hear() {
    let url = Postgres::shared().await.database().await;
    let (one, other) = (World::new(Some(&url)).await, World::new(Some(&url)).await);
    let mut ear = other.store.ear().unwrap();
    assert_eq!(ear.next().await, news::News::Missed, "what was said before is not heard");
    one.store.announce("something").await.unwrap();
    assert_eq!(ear.next().await, news::News::Text("something".into()));
}

#[tokio::test]
async fn text_with_a_nul_is_stored_on_either_engine() {
    for world in World::both().await {
        world.store.ensure_organization("nul", "a\0b", Utc::now()).await.unwrap();
        let (name,): (String,) =
            query_as("SELECT name FROM organizations WHERE id = 'nul'").fetch_one(&world.store.reader).await.unwrap();
        assert_eq!(name, "a\u{fffd}b");
    }
}

#[tokio::test]
async fn changes_of_many_devices_at_once_by_two_servers_do_not_undo_one_another() {
    let url = Postgres::shared().await.database().await;
    let (one, other) = (World::new(Some(&url)).await, World::new(Some(&url)).await);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(one.enrol("default", &format!("box{n}")).await.device.to_string());
    }
    let change = async |world: &World, word: &str| {
        for n in 0..10 {
            let change = BulkChange { add_tags: vec![format!("{word}{n}")], max_tags: 100, ..BulkChange::default() };
            let changed = world.store.change_devices(&actor(), &ids, &change, Utc::now()).await.unwrap();
            assert_eq!(changed, ids);
        }
    };
    futures_util::future::join(change(&one, "a"), change(&other, "b")).await;
    for id in &ids {
        let tags: Vec<String> = serde_json::from_str(&one.card(id).await.tags).unwrap();
        assert_eq!(tags.len(), 20, "{tags:?}");
    }
    for n in 0..10 {
        for word in ["a", "b"] {
            let tagged =
                one.store.selected_devices("default", &Selection::Tag(format!("{word}{n}")), 10).await.unwrap();
            assert_eq!(tagged, ids);
        }
    }
}

#[tokio::test]
async fn a_box_comes_in_by_certificate_once_and_again_as_itself_alone() {
    for world in World::both().await {
        let now = Utc::now();
        let enrol = async |org: &str, id: &str, token_hash: &str| {
            let order = Certified { org, token_hash, old_until: now + Duration::hours(1) };
            world.store.enrol_certified(&new_device(id), order, now).await.unwrap()
        };
        let done = Enrolled::Done { org: "default".into() };
        assert_eq!(enrol("nowhere", "a", "h0").await, Enrolled::NoOrganization);
        // Two servers hear of the same box at the same time.
        let both = futures_util::future::join(enrol("default", "a", "h1"), enrol("default", "a", "h2")).await;
        assert_eq!(both, (done.clone(), done.clone()));
        assert_eq!(enrol("other", "a", "h3").await, Enrolled::Known, "a name is one box's");
        assert_eq!(enrol("default", "a", "h4").await, done);
        assert_eq!(world.store.device_secret("a").await.unwrap(), Some(("default".into(), "h4".into())));
        assert!(world.store.decommission_device(&actor(), "a", now).await.unwrap());
        assert_eq!(enrol("default", "a", "h5").await, Enrolled::Decommissioned);
        assert_eq!(enrol("default", "b", "h6").await, done);
    }
}
