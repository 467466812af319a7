//! A thread that applies batches to the store, one at a time, while the loop reads on: otherwise the database would rest
//! while messages are parsed, and the other way round.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::store::{Applied, FleetStore, Record, StoreError};

/// The store gets this long for one batch; guarded writes make the repetition harmless.
pub(super) const APPLY_DEADLINE: Duration = Duration::from_secs(30);

/// A batch that was applied, or not.
pub(super) type Outcome = (Vec<Record>, Result<Applied, StoreError>);

struct Job {
    records: Vec<Record>,
    done: oneshot::Sender<Outcome>,
}

/// The thread's handle; the thread ends with it, after the batch under way.
pub(super) struct Applier {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Applier {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(store: Arc<dyn FleetStore>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("ingest-store".to_owned())
            .spawn(move || runtime.block_on(run(queue, store)))?;
        Ok(Self { jobs })
    }

    /// Applies a batch and gives it back with what became of it; none when the store panicked.
    pub fn apply(&self, records: Vec<Record>) -> impl Future<Output = Option<Outcome>> + Send + use<> {
        let (done, outcome) = oneshot::channel();
        // Without a thread the sender of `done` is dropped, which is told as a failure.
        let _ = self.jobs.send(Job { records, done });
        async move { outcome.await.ok() }
    }
}

async fn run(mut queue: mpsc::UnboundedReceiver<Job>, store: Arc<dyn FleetStore>) {
    while let Some(Job { records, done }) = queue.recv().await {
        let applied = tokio::time::timeout(APPLY_DEADLINE, store.apply(&records)).await;
        let slow = || Err(StoreError::Unavailable("no answer in 30 s".to_owned()));
        // A loop that has ended waits no more; the broker brings the batch again.
        let _ = done.send((records, applied.unwrap_or_else(|_| slow())));
    }
}
