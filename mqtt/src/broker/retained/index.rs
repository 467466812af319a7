//! Which retained message is on which topic: each held as the bytes that are on disk, in the order of the topics. Pure.
//!
//! rmqtt's own tree of topics costs 1.5 to 3 KiB for each message besides its bytes: every level below a device is a hash
//! table with room for four, whose entries are as large as a message's head. Here a topic costs its text, its row and
//! some 100 bytes; a filter walks the topics that begin with what it says before its first wildcard.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What an entry costs besides its topic and its row, in bytes: two boxes with what the allocator adds, and its share of
/// a node of the map that is two thirds full.
const ENTRY_BYTES: usize = 100;

/// Bounds on an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub messages: usize,
    pub bytes: usize,
}

/// Rows by topic.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: BTreeMap<Box<str>, Box<[u8]>>,
    bytes: usize,
    most: usize,
}

fn cost(topic: &str, row: usize) -> usize {
    topic.len() + row + ENTRY_BYTES
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The most messages that there ever were.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for a row of this size: a new topic needs room for one more and for its bytes, a known one
    /// for what it grows by. One that does not grow can always be replaced.
    pub(super) fn has_room(&self, bounds: Bounds, topic: &str, row: usize) -> bool {
        match self.rows.get(topic) {
            Some(held) => row <= held.len() || self.bytes + row - held.len() <= bounds.bytes,
            None => self.rows.len() < bounds.messages && self.bytes + cost(topic, row) <= bounds.bytes,
        }
    }

    pub(super) fn insert(&mut self, topic: &str, row: &[u8]) {
        self.bytes += cost(topic, row.len());
        if let Some(old) = self.rows.insert(topic.into(), row.into()) {
            self.bytes -= cost(topic, old.len());
        }
        self.most = self.most.max(self.rows.len());
    }

    pub(super) fn remove(&mut self, topic: &str) {
        if let Some(old) = self.rows.remove(topic) {
            self.bytes -= cost(topic, old.len());
        }
    }

    /// Keeps the rows that pass.
    pub(super) fn keep(&mut self, pass: impl Fn(&[u8]) -> bool) {
        let mut freed = 0;
        self.rows.retain(|topic, row| {
            let kept = pass(row);
            freed += if kept { 0 } else { cost(topic, row.len()) };
            kept
        });
        self.bytes -= freed;
    }

    /// Topics that match the filter, with their rows, in the order of the topics.
    pub(super) fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let prefix = literal_prefix(filter);
        self.rows
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(topic, _)| matches(filter, topic))
            .map(|(topic, row)| (&**topic, &**row))
    }
}

/// What every topic that matches the filter begins with. `a/#` also matches `a` (MQTT 5, 4.7.1.2).
fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        Some(at) if filter[at..].starts_with('#') => filter[..at].trim_end_matches('/'),
        Some(at) => &filter[..at],
        None => filter,
    }
}

/// Whether a topic matches a filter (MQTT 5, 4.7). A wildcard at the start does not match topics that begin with `$`.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut levels, mut names) = (filter.split('/'), topic.split('/'));
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmqtt::retain::RetainTree;
    use rmqtt::topic::Topic;
    use std::collections::BTreeSet;
    use std::str::FromStr;

    const BOUNDS: Bounds = Bounds { messages: 3, bytes: 3 * (ENTRY_BYTES + 11) };

    fn filled() -> Index {
        let mut index = Index::default();
        for topic in ["a", "b", "c"] {
            index.insert(topic, &[0; 10]);
        }
        index
    }

    #[test]
    fn a_full_index_takes_no_new_topic_and_no_growth_but_any_replacement() {
        let mut index = filled();
        assert_eq!(index.bytes(), BOUNDS.bytes);
        assert!(!index.has_room(BOUNDS, "d", 0));
        assert!(!index.has_room(BOUNDS, "a", 11));
        assert!(index.has_room(BOUNDS, "a", 10));
        index.remove("b");
        assert!(index.has_room(BOUNDS, "d", 10));
        assert!(!index.has_room(BOUNDS, "d", 11), "one byte too many");
        assert!(index.has_room(BOUNDS, "a", 11));
        assert_eq!((index.len(), index.most()), (2, 3));
    }

    #[test]
    fn what_goes_is_not_counted_any_more() {
        let mut index = filled();
        index.insert("a", &[1; 20]);
        index.keep(|row| row[0] == 1);
        assert_eq!((index.len(), index.bytes()), (1, cost("a", 20)));
        index.remove("a");
        index.remove("a");
        assert_eq!((index.len(), index.bytes()), (0, 0));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("ab"), Just("b"), Just(""), Just("$x")]
    }

    fn filter() -> impl Strategy<Value = String> {
        let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 1..5);
        (levels, any::<bool>()).prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" })
    }

    proptest! {
        /// Whatever is held, it finds what rmqtt's own tree finds.
        #[test]
        fn a_filter_finds_what_the_servers_own_tree_finds(
            topics in proptest::collection::btree_set(
                proptest::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")), 0..30),
            filter in filter(),
        ) {
            let (mut index, mut tree) = (Index::default(), RetainTree::<u8>::default());
            for topic in topics.iter().filter(|topic| !topic.is_empty() && !topic.contains("/$")) {
                let Ok(parsed) = Topic::from_str(topic) else { continue };
                index.insert(topic, &[]);
                tree.insert(&parsed, 0);
            }
            if let Ok(parsed) = Topic::from_str(&filter) {
                let theirs: BTreeSet<String> =
                    tree.matches(&parsed).into_iter().map(|(topic, _)| topic.to_string()).collect();
                let ours: BTreeSet<String> = index.matching(&filter).map(|(topic, _)| topic.to_owned()).collect();
                prop_assert_eq!(ours, theirs, "{}", filter);
            }
        }
    }
}
