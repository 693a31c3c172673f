//! Follows WatchKeys for as long as the guard stands, so that answers are dropped when what they were made from changes.

use std::sync::{Arc, Mutex};

use keyledger_proto::WatchKeysRequest;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use super::answers::{Answers, Moment, SILENCE};
use crate::backoff::{Backoff, random};
use crate::call::Client;
use crate::error::CallError;

/// Until the guard is closed, or gone. While no stream stands, nothing is kept.
pub(super) async fn follow(
    client: Client,
    answers: Arc<Mutex<Answers>>,
    mut closing: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::default();
    loop {
        let ended = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => None,
            ended = listen(&client, &answers, &mut backoff) => Some(CallError::from(ended)),
        };
        answers.lock().expect("no holder of this lock panics").broke();
        let Some(error) = ended else { return };
        if !error.may_be_repeated() {
            tracing::warn!(%error, "no answers are kept: changes of keys can't be followed");
        }
        let wait = backoff.next(error.retry_after, random());
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One stream, until it ends or is silent for too long.
async fn listen(client: &Client, answers: &Mutex<Answers>, backoff: &mut Backoff) -> Status {
    let silent = || Status::unavailable("the stream of changes is silent");
    let mut keys = client.keys();
    let opening = keys.watch_keys(WatchKeysRequest { from_position: None });
    let mut stream = match timeout(SILENCE, opening).await {
        Ok(Ok(opened)) => opened.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return silent(),
    };
    loop {
        match timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(told))) => {
                *backoff = Backoff::default();
                let mut answers = answers.lock().expect("no holder of this lock panics");
                answers.hear(&told, Moment::now());
            }
            Ok(Ok(None)) => return Status::unavailable("the stream of changes has ended"),
            Ok(Err(status)) => return status,
            Err(_) => return silent(),
        }
    }
}
