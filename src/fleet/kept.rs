//! Answers that cost much and may be a little old: made once for everybody who asks meanwhile, and kept for a moment.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Organizations up to this size are read anew at every question: that is quick, and nobody sees anything old.
pub const FRESH_UP_TO: i64 = 2_000;
/// What is kept is at most this old: well below what a page takes to ask again.
pub const LASTS: Duration = Duration::from_secs(5);

/// Where one answer lies; whoever makes it holds the lock.
type Place<V> = Arc<tokio::sync::Mutex<Option<(Instant, V)>>>;

/// Answers by what was asked. Holds no more than were asked for within [`LASTS`].
#[derive(Debug)]
pub struct Kept<K, V>(Mutex<HashMap<K, (Instant, Place<V>)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    /// The answer that is kept, or one that is made now; others who ask for the same wait for it.
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then.
    pub async fn get<E>(&self, key: K, make: impl AsyncFnOnce() -> Result<V, E>) -> Result<V, E> {
        let place = self.place(key, Instant::now());
        let mut held = place.lock().await;
        if let Some((at, answer)) = &*held
            && at.elapsed() < LASTS
        {
            return Ok(answer.clone());
        }
        // As old as what it was made of.
        let begun = Instant::now();
        let answer = make().await?;
        *held = Some((begun, answer.clone()));
        Ok(answer)
    }

    fn place(&self, key: K, now: Instant) -> Place<V> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, (asked, place)| now.duration_since(*asked) < LASTS || Arc::strong_count(place) > 1);
        let place = places.entry(key).or_insert_with(|| (now, Place::default()));
        place.0 = now;
        place.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_at_the_same_time_gets_one_answer_and_a_failure_is_not_kept() {
        let (kept, made) = (Kept::<&str, usize>::default(), AtomicUsize::new(0));
        let ask = |key: &'static str| {
            kept.get(key, async || {
                tokio::task::yield_now().await;
                Ok::<_, ()>(made.fetch_add(1, Ordering::SeqCst))
            })
        };
        let (a, b, other) = tokio::join!(ask("a"), ask("a"), ask("b"));
        assert!(a == b && a != other && made.load(Ordering::SeqCst) == 2, "{a:?} {b:?} {other:?}");
        assert_eq!(kept.get("c", async || Err("away")).await, Err("away"));
        assert_eq!(kept.get("c", async || Ok::<_, ()>(7)).await, Ok(7));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_let_go() {
        let (kept, now) = (Kept::<u32, usize>::default(), Instant::now());
        for key in 0..100 {
            kept.place(key, now);
        }
        kept.place(100, now + LASTS);
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }
}
