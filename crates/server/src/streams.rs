//! The open streams of a replica: how patient it is with their readers, and how they end when it stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long a reader may take nothing, by default.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Streams {
    /// How long a reader may take nothing before it is disconnected.
    pub(crate) patience: Duration,
    stopping: watch::Sender<bool>,
    open: Arc<watch::Sender<usize>>,
}

/// A stream that isn't done: neither told nor recorded. Done when it is dropped.
pub(crate) struct OpenStream {
    stopping: watch::Receiver<bool>,
    open: Arc<watch::Sender<usize>>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

impl OpenStream {
    /// Returns when the replica stops.
    pub(crate) async fn stopping(&mut self) {
        // Without a sender the replica is gone.
        let _ = self.stopping.wait_for(|stopping| *stopping).await;
    }
}

impl Streams {
    pub(crate) fn new(patience: Duration) -> Streams {
        let open = Arc::new(watch::Sender::new(0));
        Streams { patience, stopping: watch::Sender::new(false), open }
    }

    pub(crate) fn open(&self) -> OpenStream {
        self.open.send_modify(|open| *open += 1);
        OpenStream { stopping: self.stopping.subscribe(), open: self.open.clone() }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        *self.open.borrow()
    }

    /// Tells all streams, also those to come, to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns when no stream is left.
    pub(crate) async fn all_done(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}
