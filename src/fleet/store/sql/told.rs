//! Who is told of changes once their transaction lasts, never of one that is undone.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// What changed: organization, and kind of thing, as the audit log's actions begin (`user`, `device`).
pub(crate) type Changes = BTreeSet<(String, String)>;

type Tell = Box<dyn Fn(Changes) + Send + Sync>;

/// Whoever is told; nobody at first. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<OnceLock<Tell>>);

impl Told {
    /// From now on this is told. The first one stays.
    pub fn listen(&self, tell: impl Fn(Changes) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(tell));
    }

    /// Tells of changes, if there are any.
    pub fn tell(&self, changes: Changes) {
        if let Some(tell) = self.0.get()
            && !changes.is_empty()
        {
            tell(changes);
        }
    }
}
