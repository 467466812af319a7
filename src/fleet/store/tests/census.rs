//! Counts of devices by state, however they came about.

use std::collections::BTreeMap;

use super::*;

/// Counted device by device.
async fn by_hand(store: &Store, org: &str) -> DeviceCounts {
    let mut counts = BTreeMap::from(["online", "offline", "unknown", "decommissioned"].map(|state| (state.into(), 0)));
    let found: Vec<(String, i64)> = query_as(
        "SELECT CASE WHEN d.decommissioned_at IS NULL THEN s.presence ELSE 'decommissioned' END, COUNT(*) \
         FROM devices d JOIN device_state s ON s.device_no = d.no WHERE d.org = $1 GROUP BY 1",
    )
    .bind(org)
    .fetch_all(&store.reader)
    .await
    .unwrap();
    counts.extend(found);
    DeviceCounts(counts)
}

async fn agrees(store: &Store, expected: [i64; 4]) {
    let counts = store.device_counts("default").await.unwrap();
    let told = ["online", "offline", "unknown", "decommissioned"].map(|state| counts.of(state));
    assert_eq!(told, expected);
    assert_eq!(counts, by_hand(store, "default").await);
}

#[tokio::test]
async fn counts_by_state_follow_every_way_a_device_can_take() {
    for world in World::both().await {
        let store = &world.store;
        let [a, b, c] =
            [world.enrol("default", "a").await, world.enrol("default", "b").await, world.enrol("default", "c").await];
        world.enrol("other", "elsewhere").await;
        agrees(store, [0, 0, 3, 0]).await;
        store.apply(&[presence(&a, true, 1, 1), presence(&b, true, 1, 1), beat(&c, 1)]).await.unwrap();
        agrees(store, [2, 0, 1, 0]).await;
        while store.add_up_moves().await.unwrap() {}
        agrees(store, [2, 0, 1, 0]).await;
        // The same once more changes nothing; one goes, one falls silent and is heard again.
        store.apply(&[presence(&a, true, 1, 1), presence(&b, false, 1, 1)]).await.unwrap();
        agrees(store, [1, 1, 1, 0]).await;
        assert_eq!(store.mark_silent(Utc::now() + Duration::hours(1)).await.unwrap().len(), 1);
        agrees(store, [0, 2, 1, 0]).await;
        store.apply(&[beat(&a, 2)]).await.unwrap();
        agrees(store, [1, 1, 1, 0]).await;
        // A batch that is undone moves nothing.
        let mut tx = store.begin().await.unwrap();
        query("UPDATE device_state SET presence = 'online'").execute(&mut *tx).await.unwrap();
        tx.rollback().await.unwrap();
        assert!(store.decommission_device(&actor(), "a", Utc::now()).await.unwrap());
        agrees(store, [0, 1, 1, 1]).await;
        assert_eq!(store.apply(&[presence(&a, true, 1, 2)]).await.unwrap().unknown, 1);
        while store.add_up_moves().await.unwrap() {}
        let again = new_device("a");
        let (now, server) = (Utc::now(), Actor::server("default"));
        store.create_enrolment_code(&server, "again", "again", None, now, now + Duration::hours(1)).await.unwrap();
        assert!(matches!(store.enrol("again", &again, "hash", now).await.unwrap(), Enrolled::Done { .. }));
        agrees(store, [0, 1, 2, 0]).await;
        let census = store.census().await.unwrap().devices;
        let told =
            |org: &str, state: &str| census.iter().find(|(of, is, _)| of == org && is == state).map(|(.., n)| *n);
        assert_eq!(
            (told("default", "unknown"), told("other", "unknown"), told("other", "online")),
            (Some(2), Some(1), Some(0))
        );
        assert_eq!(store.organization("default").await.unwrap().unwrap().devices, 3);
    }
}

#[tokio::test]
async fn servers_that_change_the_same_devices_at_once_and_one_that_adds_up_agree_in_the_end() {
    let url = Postgres::shared().await.database().await;
    let one = World::new(Some(&url)).await;
    let mut devices = Vec::new();
    for n in 0..10 {
        devices.push(one.enrol("default", &format!("box{n}")).await);
    }
    let other = World::new(Some(&url)).await;
    let flap = async |world: &World, odd: u64| {
        for conn in (1..=30_u64).filter(|conn| conn % 2 == odd) {
            let records: Vec<Record> = devices
                .iter()
                .enumerate()
                .map(|(n, device)| presence(device, (n as u64 + conn).is_multiple_of(3), 1, conn))
                .collect();
            while world.store.apply(&records).await.is_err() {}
        }
    };
    let add_up = async {
        for _ in 0..30 {
            let _ = one.store.add_up_moves().await.unwrap();
            let counts = other.store.device_counts("default").await.unwrap();
            assert_eq!(
                counts.in_service() + counts.of("decommissioned"),
                10,
                "whatever moves, nobody is lost: {counts:?}"
            );
        }
    };
    let leave = async { other.store.decommission_device(&actor(), "box3", Utc::now()).await.unwrap() };
    tokio::join!(flap(&one, 0), flap(&other, 1), add_up, leave);
    assert_eq!(one.store.device_counts("default").await.unwrap(), by_hand(&one.store, "default").await);
    while one.store.add_up_moves().await.unwrap() {}
    let counts = one.store.device_counts("default").await.unwrap();
    assert_eq!(counts, by_hand(&one.store, "default").await);
    assert_eq!(counts.of("decommissioned"), 1);
}

#[tokio::test]
async fn a_list_is_counted_by_state_exactly_and_by_what_is_searched_up_to_what_its_page_needs() {
    for world in World::both().await {
        for id in ["a", "b", "c"] {
            world.enrol("default", id).await;
        }
        let total = async |filter: &DeviceFilter, needed| world.store.total("default", filter, needed).await.unwrap();
        let all = DeviceFilter::default();
        assert_eq!(total(&all, 1).await, Total { count: 3, or_more: false });
        let offline = DeviceFilter { presence: Some(PresenceFilter::Offline), ..all.clone() };
        assert_eq!(total(&offline, 1).await.count, 3);
        let searched = DeviceFilter { search: Some("box".into()), ..all };
        assert_eq!(total(&searched, 1).await, Total { count: 3, or_more: false });
        query("UPDATE devices SET name = 'stage' WHERE id = 'a'").execute(&world.store.writer).await.unwrap();
        assert_eq!(world.store.devices("default", &searched, 0, 1).await.unwrap().1.count, 2);
    }
}
