//! One replica at a time: whoever has a forwarder says so again and again, and leaves off once it could not for as long as its
//! lease lasts. Whether it still has it is decided where the cursor is, in the database; our own clock only makes us stop early.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Failed;
use super::config::Forwarder;
use crate::sequencer::Ledger;
use crate::store::StoreError;
use crate::store::forwarders::{self, Claim, Cursor, Taken};

/// How long a change of our row may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// A forwarder that this replica has.
pub(super) struct Lease<'a> {
    ledger: &'a Ledger,
    claim: Claim,
    length: Duration,
    /// Until then nobody else has taken it.
    until: Mutex<Instant>,
}

/// What becomes of the row of a forwarder.
pub(super) enum Change<'a> {
    Renew,
    /// A batch that ends here is sent next.
    Begin(Cursor),
    /// Everything before this was sent, or was not meant.
    Advance {
        next: Cursor,
        sent: bool,
    },
    /// Sending has failed, and why.
    Fail(&'a str),
}

/// Why something about the row was not done.
pub(super) enum Trouble {
    /// Another replica has it.
    Lost,
    Failed(Failed),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        // The cause names hosts and roles: it is for the log.
        tracing::warn!(%error, "the row of a forwarder could not be changed");
        Trouble::Failed(Failed::new("the database can't be reached"))
    }
}

impl<'a> Lease<'a> {
    /// Takes a forwarder, if nobody has it.
    pub(super) async fn take(
        ledger: &'a Ledger,
        forwarder: &Forwarder,
        replica: uuid::Uuid,
    ) -> Result<Option<(Lease<'a>, Taken)>, StoreError> {
        let length = forwarder.pace.lease;
        let claim = Claim {
            ledger_id: ledger.id,
            name: forwarder.name.clone(),
            replica,
            lease_ms: length.as_millis() as i64,
        };
        let start = match forwarder.from_beginning {
            true => 0,
            false => ledger.snapshot().state.next_position,
        };
        let until = Mutex::new(Instant::now() + length);
        let client = ledger.database.client().await?;
        let kind = forwarder.target.kind() as i16;
        let taken = forwarders::take(&client, &claim, kind, start).await?;
        Ok(taken.map(|taken| (Lease { ledger, claim, length, until }, taken)))
    }

    /// Keeps it. Returns when it is lost.
    pub(super) async fn keep(&self) {
        loop {
            let left = self.until().saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // A third before it would be time, then sooner and sooner.
            tokio::time::sleep_until(self.until() - left.mul_f64(2.0 / 3.0)).await;
            // Moving the cursor may have renewed it meanwhile.
            let left = self.until().saturating_duration_since(Instant::now());
            if left > self.length.mul_f64(2.0 / 3.0) {
                continue;
            }
            let renewed = tokio::time::timeout(left, self.change(Change::Renew)).await;
            if matches!(renewed, Ok(Err(Trouble::Lost))) || left < Duration::from_millis(1) {
                return;
            }
        }
    }

    /// Leaves it to others, if the database can be reached.
    pub(super) async fn release(self) {
        let released =
            async { forwarders::release(&self.ledger.database.client().await?, &self.claim).await };
        if let Ok(Err(error)) = tokio::time::timeout(STORE_TIMEOUT, released).await {
            tracing::warn!(%error, forwarder = self.claim.name, "a forwarder was not released");
        }
    }

    /// Changes the row, which renews the lease.
    pub(super) async fn change(&self, change: Change<'_>) -> Result<(), Trouble> {
        let begun = Instant::now();
        let changed = tokio::time::timeout(STORE_TIMEOUT, self.write(change)).await;
        let slow = |_| Trouble::Failed(Failed::new("the database doesn't answer"));
        if !changed.map_err(slow)?? {
            return Err(Trouble::Lost);
        }
        *self.until.lock().expect("no holder of this lock panics") = begun + self.length;
        Ok(())
    }

    async fn write(&self, change: Change<'_>) -> Result<bool, StoreError> {
        let (client, claim) = (self.ledger.database.client().await?, &self.claim);
        match change {
            Change::Renew => forwarders::renew(&client, claim).await,
            Change::Begin(end) => forwarders::begin(&client, claim, end).await,
            Change::Advance { next, sent } => forwarders::advance(&client, claim, next, sent).await,
            Change::Fail(error) => forwarders::fail(&client, claim, error).await,
        }
    }

    fn until(&self) -> Instant {
        *self.until.lock().expect("no holder of this lock panics")
    }
}
