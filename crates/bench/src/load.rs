//! One turn: so many workers, each asking, waiting for the answer, and asking again. At the end of the turn no new question
//! is asked and all answers are awaited: so it is known exactly how many were given.

use std::time::{Duration, Instant};

use anyhow::Context;
use keyledger_proto::key_service_client::KeyServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::client::{Connections, Questions, require_allowed};
use crate::options::Options;
use crate::random::SplitMix64;

/// What came of a turn.
#[derive(Default)]
pub(crate) struct Turn {
    /// Answers in all: also those of the warm-up, and those that came after the measured time.
    pub(crate) answers: u64,
    /// Latency of each call that ended in the measured time, in microseconds, in order of size.
    pub(crate) micros: Vec<u32>,
    pub(crate) measured: Duration,
}

#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

pub(crate) async fn turn(
    connections: &Connections,
    questions: &Questions,
    options: &Options,
) -> anyhow::Result<Turn> {
    let from = Instant::now() + options.warm_up();
    let span = Span { from, to: from + options.measured() };
    let mut workers = JoinSet::new();
    for n in 0..options.in_flight as usize {
        workers.spawn(work(connections.of(n), questions.clone(), span));
    }
    let mut turn = Turn { measured: options.measured(), ..Turn::default() };
    while let Some(done) = workers.join_next().await {
        let done = done.context("a worker panicked")??;
        turn.answers += done.answers;
        turn.micros.extend(done.micros);
    }
    turn.micros.sort_unstable();
    Ok(turn)
}

async fn work(
    mut client: KeyServiceClient<Channel>,
    questions: Questions,
    span: Span,
) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let mut random = Random::new();
    let mut asked = Instant::now();
    while asked < span.to {
        let question = questions.about(random.below(questions.subjects.len()));
        let reply = client.verify_key(question).await.context("a call failed")?;
        require_allowed(reply.get_ref())?;
        turn.answers += 1;
        let answered = Instant::now();
        if (span.from..span.to).contains(&answered) {
            turn.micros.push((answered - asked).as_micros().try_into().unwrap_or(u32::MAX));
        }
        asked = answered;
    }
    Ok(turn)
}

/// Picks keys, so quickly that it isn't measured.
struct Random(SplitMix64);

impl Random {
    fn new() -> Random {
        Random(SplitMix64(getrandom::u64().expect("the operating system gives random bytes")))
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_picked_about_equally_often() {
        let mut random = Random(SplitMix64(1));
        let mut picked = [0; 10];
        (0..100_000).for_each(|_| picked[random.below(10)] += 1);
        assert!(picked.iter().all(|n| (9_500..10_500).contains(n)), "{picked:?}");
    }
}
