//! Work that may block, on a thread of its own.

use std::future::Future;
use std::thread;

use tokio::sync::oneshot;

/// Runs `work` on a thread of its own; the future resolves with what it returned, or with `None` when it panicked.
///
/// Whoever stops waiting leaves the thread to itself: its result is dropped there, on the thread that may block.
pub(crate) fn off_thread<T, F>(name: &str, work: F) -> impl Future<Output = Option<T>> + Send + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let spawned = thread::Builder::new().name(name.chars().take(15).collect()).spawn(move || {
        let result = work();
        drop(done.send(result));
    });
    if let Err(error) = spawned {
        tracing::error!(%error, name, "no thread for work that may block");
    }
    async { result.await.ok() }
}

/// Drops something on a thread of its own, when its drop may block.
pub(crate) fn drop_off_thread<T: Send + 'static>(name: &str, thing: T) {
    drop(off_thread(name, move || drop(thing)));
}
