//! What several servers on one database tell each other, so that each one's dashboards hear what happened at the others.
//!
//! Both duties here are loops without an end; errors of the database are waited out by the loops themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::push::{Hub, Notes};
use super::state::BrokerSide;
use super::store::Store;
use super::store::news::{LONGEST, News};

/// Notifications for one lot of notes; beyond that the others are told to read everything anew.
const TEXTS: usize = 8;

/// What one server tells the others.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Text {
    /// Who says it; it hears itself.
    from: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    commands: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rollouts: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<(String, String)>,
    /// More than could be said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    much: bool,
}

/// Cuts notes into texts that fit into a notification each.
fn texts(from: &str, notes: Notes) -> Vec<String> {
    let mut texts = vec![Text { from: from.to_owned(), ..Text::default() }];
    let mut size = 0;
    type Which = fn(&mut Text) -> &mut Vec<(String, String)>;
    let families: [(Which, BTreeSet<(String, String)>); 5] = [
        (|text| &mut text.kinds, notes.kinds),
        (|text| &mut text.commands, notes.commands),
        (|text| &mut text.rollouts, notes.rollouts),
        (|text| &mut text.alerts, notes.alerts),
        (|text| &mut text.devices, notes.devices),
    ];
    let notes = families.into_iter().flat_map(|(which, keys)| keys.into_iter().map(move |key| (which, key)));
    for (which, key) in notes {
        // Identifiers are plain; the rest is punctuation and the frame.
        let more = key.0.len() + key.1.len() + 8;
        if size + more > LONGEST - 200 {
            texts.push(Text { from: from.to_owned(), ..Text::default() });
            size = 0;
        }
        size += more;
        if let Some(text) = texts.last_mut() {
            which(text).push(key);
        }
    }
    if texts.len() > TEXTS {
        texts = vec![Text { from: from.to_owned(), much: true, ..Text::default() }];
    }
    texts.iter().filter_map(|text| serde_json::to_string(text).ok()).collect()
}

/// Tells the other servers what changed here.
pub(super) async fn tell(store: Store, hub: Hub, holder: Arc<str>) {
    loop {
        let notes = hub.outgoing().await;
        for text in texts(&holder, notes) {
            if let Err(error) = store.announce(&text).await {
                // They read everything anew when they hear us again.
                tracing::debug!(%error, "other servers could not be told");
            }
        }
    }
}

/// Hears what changed at the other servers.
pub(super) async fn hear(store: Store, hub: Hub, broker: Arc<dyn BrokerSide>, holder: Arc<str>) {
    let Some(mut ear) = store.ear() else { return };
    loop {
        let text = match ear.next().await {
            News::Missed => {
                hub.missed();
                continue;
            }
            News::Text(text) => text,
        };
        let Ok(text) = serde_json::from_str::<Text>(&text) else { continue };
        if text.from == *holder {
            continue;
        }
        if !text.commands.is_empty() {
            broker.commands_changed();
        }
        if text.much {
            hub.missed();
        }
        hub.heard(Notes {
            devices: text.devices.into_iter().collect(),
            commands: text.commands.into_iter().collect(),
            alerts: text.alerts.into_iter().collect(),
            rollouts: text.rollouts.into_iter().collect(),
            kinds: text.kinds.into_iter().collect(),
        });
    }
}

/// A name for this start of this server.
pub(super) fn holder() -> Arc<str> {
    Ulid::new().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_cut_into_notifications_that_fit_and_far_too_much_is_said_in_one_word() {
        let key = |n: usize| ("organization".to_owned(), format!("{n:0>64}"));
        let notes = |n: usize| Notes {
            devices: (0..n).map(key).collect(),
            commands: [key(0)].into(),
            alerts: [key(0)].into(),
            rollouts: [key(0)].into(),
            kinds: [key(0)].into(),
        };
        let cut = texts("me", notes(300));
        assert!(cut.len() > 2 && cut.iter().all(|text| text.len() <= LONGEST));
        let read: Vec<Text> = cut.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(read.iter().map(|text| text.devices.len()).sum::<usize>(), 300);
        assert_eq!(read.iter().map(|text| text.commands.len()).sum::<usize>(), 1);
        let much = texts("me", notes(10_000));
        assert!(much.len() == 1 && serde_json::from_str::<Text>(&much[0]).unwrap().much);
    }
}
