//! DescribeKey and DescribeLedger: keys that explain themselves, as of one moment of the ledger and its signed checkpoint.

mod gather;
mod history;
mod usage;

use std::sync::Arc;

use keyledger_ledger::command::Refusal;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::{Key, KeyStatus};
use keyledger_proto::parse;
use keyledger_proto::{
    DescribeKeyResponse, DescribeLedgerResponse, DocumentFormat, KeyDocument, LedgerDocument,
    document,
};
use prost::Message;

use super::call::CallContext;
use super::follow::Ended;
use super::keys::find;
use super::replies::{Giving, Replies, replies};
use super::status::Failure;
use super::traces;
use crate::streams::OpenStream;
use gather::Gathering;

/// Most changes that are told of a key by itself, and among many.
const CHANGES: usize = 100;
const CHANGES_AMONG_MANY: usize = 25;
/// How many keys are looked up at once.
const CHUNK: usize = 50;
/// A reply is sent when it has about so many bytes.
const REPLY: usize = 256 << 10;

pub(super) async fn describe_key(
    call: CallContext,
    (key_id, format): (KeyId, DocumentFormat),
) -> Result<DescribeKeyResponse, Failure> {
    let key = find(&call, key_id).ok_or(Refusal::KeyNotFound)?;
    let gathering = Gathering::begin(&call, CHANGES).await?;
    let mut document = gathering.documents(std::slice::from_ref(&key)).await?.remove(0);
    let end = gathering.head().state.next_position;
    document.traces = Some(traces::of_key(&call, &key, end).await?);
    document.ledger = gathering.ledger();
    document.moment = Some(gathering.moment().clone());
    // A page of thousands of sentences is no work for the threads that answer calls.
    let written = tokio::task::spawn_blocking(move || {
        let written = document::write(&document, format);
        (document, written)
    });
    let (document, written) =
        written.await.map_err(|_| Failure::Internal("a document could not be written"))?;
    let media_type = written.media_type.into();
    Ok(DescribeKeyResponse { key: Some(document), document: written.text, media_type })
}

/// All keys are told of as they were when it began. A task of its own gives them, at the reader's pace.
pub(super) async fn describe_ledger(
    call: CallContext,
    r: parse::DescribeLedger,
) -> Result<Replies<DescribeLedgerResponse>, Failure> {
    let place = call.ledger.open_stream()?;
    let mut open = call.replica.streams.open();
    let telling = Telling::begin(&call, r).await?;
    let (giving, replies) = replies(0, call.replica.streams.patience);
    tokio::spawn(async move {
        telling.run(call, giving, &mut open).await;
        drop((place, open));
    });
    Ok(replies)
}

/// A description of a ledger that goes on.
struct Telling {
    first: LedgerDocument,
    keys: Vec<Arc<Key>>,
    gathering: gather::Gathered,
}

impl Telling {
    async fn begin(call: &CallContext, r: parse::DescribeLedger) -> Result<Telling, Failure> {
        let gathering = Gathering::begin(call, CHANGES_AMONG_MANY).await?;
        let (head, now) = (gathering.head(), gathering.now());
        let wanted = |key: &&Arc<Key>| !r.live_only || lives(key, now);
        let most = r.max_keys as usize;
        let keys: Vec<Arc<Key>> = head.state.keys.values().filter(wanted).cloned().collect();
        if keys.len() > most {
            return Err(Failure::TooManyKeys { keys: keys.len() as u64, most: r.max_keys });
        }
        let first = LedgerDocument {
            keys: keys.len() as u64,
            left_out: (head.state.keys.len() - keys.len()) as u64,
            ..gathering.ledger_document().await?
        };
        Ok(Telling { first, keys, gathering: gathering.keep() })
    }

    async fn run(
        self,
        call: CallContext,
        mut giving: Giving<DescribeLedgerResponse>,
        open: &mut OpenStream,
    ) {
        let ended = tokio::select! {
            given = self.give_all(&call, &mut giving) => given.err(),
            () = open.stopping() => Some(Ended::Stopping),
        };
        match ended {
            None => giving.end(),
            Some(ended) => giving.cut(|_| why(ended).into()),
        }
    }

    async fn give_all(
        self,
        call: &CallContext,
        giving: &mut Giving<DescribeLedgerResponse>,
    ) -> Result<(), Ended> {
        let first = DescribeLedgerResponse { ledger: Some(self.first), keys: vec![] };
        giving.give(first, 0, 0).await?;
        let gathering = Gathering::continue_with(call, self.gathering);
        let mut waiting: Vec<KeyDocument> = vec![];
        for some in self.keys.chunks(CHUNK) {
            require_that_it_may_read(call)?;
            for document in gathering.documents(some).await? {
                waiting.push(document);
                if waiting.iter().map(Message::encoded_len).sum::<usize>() >= REPLY {
                    let keys = std::mem::take(&mut waiting);
                    giving.give(DescribeLedgerResponse { ledger: None, keys }, 0, 0).await?;
                }
            }
        }
        if !waiting.is_empty() {
            giving.give(DescribeLedgerResponse { ledger: None, keys: waiting }, 0, 0).await?;
        }
        giving.all_left().await.map(|_| ())
    }
}

fn lives(key: &Key, now: Time) -> bool {
    matches!(key.status(now), KeyStatus::Active | KeyStatus::Suspended)
}

fn require_that_it_may_read(call: &CallContext) -> Result<(), Failure> {
    match (call.still_stands(), call.may("keys")) {
        (false, _) => Err(Failure::KeyEnded),
        (true, false) => Err(call.denied("keys")),
        (true, true) => Ok(()),
    }
}

fn why(ended: Ended) -> Failure {
    match ended {
        // Nobody hears of the first.
        Ended::Gone | Ended::Stopping => Failure::Stopping { next_position: None },
        Ended::TooSlow => Failure::ReaderTooSlow { next_position: 0 },
        Ended::Because(failure) => failure,
    }
}
