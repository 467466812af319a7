//! A part of a store for one of many: thousands of simulated devices share one.

use std::sync::Arc;

use super::{Changes, Done, KeyValue, Row};
use crate::error::MqttError;

/// The rows of a store whose keys begin with a prefix, seen without it.
#[derive(Clone)]
pub struct Prefixed {
    store: Arc<dyn KeyValue>,
    prefix: Vec<u8>,
}

impl Prefixed {
    /// No prefix of one part may be the beginning of another's.
    pub fn new(store: Arc<dyn KeyValue>, prefix: impl Into<Vec<u8>>) -> Self {
        Self { store, prefix: prefix.into() }
    }

    fn whole(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    fn changes(&self, changes: Changes) -> Changes {
        let writes = changes.writes.into_iter().map(|(key, value)| (self.whole(&key), value)).collect();
        Changes { writes }
    }
}

impl KeyValue for Prefixed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MqttError> {
        self.store.get(&self.whole(key))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, MqttError> {
        let rows = self.store.scan(&self.whole(prefix))?;
        Ok(rows.into_iter().map(|(key, value)| (key[self.prefix.len()..].to_vec(), value)).collect())
    }

    fn submit(&self, changes: Changes, done: Done) {
        self.store.submit(self.changes(changes), done);
    }

    fn submit_lazily(&self, changes: Changes) {
        self.store.submit_lazily(self.changes(changes));
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    fn is_full(&self) -> bool {
        self.store.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Memory;

    #[test]
    fn two_parts_of_one_store_do_not_see_each_other() {
        let whole: Arc<dyn KeyValue> = Arc::new(Memory::new());
        let (one, two) = (Prefixed::new(whole.clone(), "1/"), Prefixed::new(whole.clone(), "2/"));
        for (part, value) in [(&one, "eins"), (&two, "zwei")] {
            let mut changes = Changes::new();
            changes.put("k/a", value);
            part.commit(changes).unwrap();
        }
        assert_eq!(one.scan(b"k/").unwrap(), [(b"k/a".to_vec(), b"eins".to_vec())]);
        let mut changes = Changes::new();
        changes.delete("k/a");
        one.commit(changes).unwrap();
        assert_eq!(one.get(b"k/a").unwrap(), None);
        assert_eq!(two.get(b"k/a").unwrap().as_deref(), Some(&b"zwei"[..]));
        assert_eq!(whole.scan(b"").unwrap().len(), 1);
    }
}
