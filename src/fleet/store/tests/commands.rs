//! Commands in the store: from number to withdrawal.

use super::*;

#[tokio::test]
async fn a_command_goes_from_publishing_through_its_states_to_withdrawal() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        world.command("a", "c1").await;
        world.command("a", "c2").await;
        let id = CommandId::new("c1").unwrap();
        let to_send = world.store.commands_to_publish(10).await.unwrap();
        assert_eq!(to_send.len(), 2);
        assert_eq!((&to_send[0].id, &to_send[0].message[..]), (&id, &b"signed 1"[..]));
        world.store.mark_published(std::slice::from_ref(&id), Utc::now()).await.unwrap();
        assert_eq!(world.store.commands_to_publish(10).await.unwrap().len(), 1);
        let applied = world
            .store
            .apply(&[status(&device, "c1", 1, DeviceState::Received), status(&device, "c1", 3, DeviceState::Executing)])
            .await
            .unwrap();
        assert_eq!(applied.commands, [(device.clone(), id.clone())]);
        assert_eq!(world.store.sync_state(&device).await.unwrap().unwrap().seq_floor, 0);
        world.store.apply(&[status(&device, "c1", 2, DeviceState::Accepted)]).await.unwrap();
        assert_eq!(world.state("c1").await, "executing", "an overtaken status changes nothing");
        assert!(world.store.commands_to_withdraw(10).await.unwrap().is_empty());
        world.store.apply(&[status(&device, "c1", 4, DeviceState::Succeeded)]).await.unwrap();
        world.store.apply(&[status(&device, "c1", 5, DeviceState::Failed)]).await.unwrap();
        let row = world.store.command("default", "c1").await.unwrap().unwrap();
        assert!(row.state == "succeeded" && row.finished_at.is_some() && row.published_at.is_some());
        // Twice, because its end was told twice.
        for _ in 0..2 {
            assert_eq!(world.store.commands_to_withdraw(10).await.unwrap(), [(device.clone(), id.clone())]);
            world.store.mark_withdrawn(std::slice::from_ref(&id)).await.unwrap();
        }
        assert!(world.store.commands_to_withdraw(10).await.unwrap().is_empty());
        world.store.apply(&[status(&device, "c1", 4, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 1, "published anew, so withdrawn anew");
        // Another copy is heard of after its withdrawal was sent and before that is noted.
        world.store.apply(&[status(&device, "c1", 4, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 1);
        world.store.mark_withdrawn(std::slice::from_ref(&id)).await.unwrap();
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 1, "the other copy has to go too");
        world.store.mark_withdrawn(std::slice::from_ref(&id)).await.unwrap();
        assert!(world.store.commands_to_withdraw(10).await.unwrap().is_empty());
        let sync = world.store.sync_state(&device).await.unwrap().unwrap();
        assert_eq!((sync.seq_floor, sync.pending), (1, vec![CommandId::new("c2").unwrap()]));
        let steps: Vec<String> =
            world.store.command_history(&["c1".into()]).await.unwrap().into_iter().map(|step| step.state).collect();
        assert_eq!(steps, ["published", "received", "executing", "succeeded"]);
    }
}

#[tokio::test]
async fn a_status_cannot_touch_another_devices_command() {
    for world in World::both().await {
        world.enrol("default", "a").await;
        let stranger = world.enrol("other", "b").await;
        world.command("a", "c1").await;
        let applied = world.store.apply(&[status(&stranger, "c1", 1, DeviceState::Succeeded)]).await.unwrap();
        assert!(applied.commands.is_empty());
        assert_eq!(world.state("c1").await, "published");
    }
}

#[tokio::test]
async fn a_refusal_of_a_forged_message_does_not_end_the_real_command() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        world.command("a", "c1").await;
        let Report::Status { mut status, .. } = status(&device, "c1", 0, DeviceState::Rejected).report else {
            panic!()
        };
        status.hash = Some("sha256:of something else".into());
        world.store.apply(&[record(&device, Report::Status { status, position: None })]).await.unwrap();
        assert_eq!(world.state("c1").await, "published");
    }
}

#[tokio::test]
async fn a_command_published_by_hand_is_adopted_and_withdrawn_when_it_is_over() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let unknown = status(&device, "hand1", 1, DeviceState::Received);
        assert!(
            world.store.apply(std::slice::from_ref(&unknown)).await.unwrap().commands.is_empty(),
            "no command inside"
        );
        let Report::Status { mut status, .. } = unknown.report else { panic!() };
        status.command = Some(json!({"op": "take", "args": {"scene": "quad"}, "by": {"user": "me"}, "seq": 7}));
        let position = StreamPosition { stream: Name::new("cmd").unwrap(), seq: 5, first_available: 5 };
        let report = Report::Status { status, position: Some(position) };
        let applied = world.store.apply(&[record(&device, report)]).await.unwrap();
        assert_eq!(acked(&applied, &device, "cmd"), Some(5));
        let row = world.store.command("default", "hand1").await.unwrap().unwrap();
        assert_eq!((row.kind.as_str(), row.created_by.as_str(), row.seq), ("take", "by hand:me", 7));
        assert_eq!(
            world.store.sync_state(&device).await.unwrap().unwrap().seq_floor,
            6,
            "it is not stale while it is open"
        );
        assert_eq!(world.command("a", "c8").await.seq, 8, "the server's own follow it");
        world.store.apply(&[self::status(&device, "hand1", 2, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_command_published_by_hand_is_adopted_from_whichever_status_comes_first() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        for (id, state) in
            [("queued", DeviceState::Queued), ("busy", DeviceState::Executing), ("done", DeviceState::Succeeded)]
        {
            let Report::Status { mut status, .. } = status(&device, id, 3, state).report else { panic!() };
            status.command = Some(json!({"op": "take"}));
            world.store.apply(&[record(&device, Report::Status { status, position: None })]).await.unwrap();
            assert_eq!(world.state(id).await, state.as_str());
        }
        let pending = world.store.sync_state(&device).await.unwrap().unwrap().pending;
        assert_eq!(pending.len(), 2, "{pending:?}");
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 1, "what is over leaves the broker");
        world.store.apply(&[status(&device, "queued", 4, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.state("queued").await, "succeeded");
    }
}

#[tokio::test]
async fn an_expired_command_ends_unless_it_had_begun_and_a_late_result_still_counts() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let soon = Utc::now() + Duration::minutes(1);
        world.command_until("a", "idle", soon).await;
        world.command_until("a", "busy", soon).await;
        world.store.apply(&[status(&device, "busy", 1, DeviceState::Executing)]).await.unwrap();
        let ended = world.store.expire_commands(soon + Duration::seconds(1)).await.unwrap();
        assert_eq!(ended, [(device.clone(), CommandId::new("idle").unwrap())]);
        world.store.apply(&[status(&device, "idle", 7, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.state("idle").await, "succeeded", "it was done after all");
        let ended = world.store.expire_commands(soon + Duration::days(2)).await.unwrap();
        assert_eq!(ended.len(), 1, "nothing stays open for ever");
        assert_eq!(world.state("busy").await, "expired");
    }
}

#[tokio::test]
async fn cancelling_ends_what_was_not_heard_of_and_asks_the_device_for_the_rest() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        for id in ["new", "held", "begun"] {
            world.command("a", id).await;
        }
        world
            .store
            .apply(&[
                status(&device, "held", 1, DeviceState::Queued),
                status(&device, "begun", 1, DeviceState::Executing),
            ])
            .await
            .unwrap();
        let cancel = async |id: &str| world.store.cancel_command(&actor(), id, Utc::now()).await.unwrap();
        assert_eq!(cancel("new").await.unwrap().unwrap().state, "cancelled");
        let held = cancel("held").await.unwrap().unwrap();
        assert!(held.state == "queued" && held.cancel_requested);
        assert_eq!(cancel("begun").await.unwrap_err().state, "executing");
        assert!(cancel("unknown").await.unwrap().is_none());
        assert_eq!(world.store.commands_to_withdraw(10).await.unwrap().len(), 2);
        world.store.apply(&[status(&device, "held", 2, DeviceState::Cancelled)]).await.unwrap();
        assert_eq!(world.state("held").await, "cancelled");
        world.store.apply(&[status(&device, "new", 4, DeviceState::Succeeded)]).await.unwrap();
        assert_eq!(world.state("new").await, "succeeded", "the device had done it before the withdrawal came");
    }
}

#[tokio::test]
async fn a_failed_signature_stores_nothing_and_uses_no_number() {
    for world in World::both().await {
        world.enrol("default", "a").await;
        let command = NewCommand {
            id: "c".into(),
            device_id: "a".into(),
            kind: "x".into(),
            payload: "{}".into(),
            priority: 5,
            notes: None,
            not_before: None,
            expires_at: Utc::now(),
            draft: false,
            ..NewCommand::default()
        };
        let refused =
            world.store.create_command(&actor(), &command, Utc::now(), |_| Err(StoreError::Bug("no".into()))).await;
        assert!(refused.is_err());
        assert_eq!(world.command("a", "c2").await.seq, 1);
    }
}
