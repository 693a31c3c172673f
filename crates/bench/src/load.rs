//! One turn: so many workers, each asking, waiting for the answer, and asking again. At the end of the turn no new question
//! is asked and all answers are awaited: so it is known exactly how many were given.

use std::time::{Duration, Instant};

use anyhow::Context;
use keyledger_proto::key_service_client::KeyServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::client::{Connections, Questions, require_allowed};
use crate::options::Options;

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

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): enough to pick a key, and so
/// quick that it isn't measured.
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(getrandom::u64().expect("the operating system gives random bytes"))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_key_is_picked_about_equally_often() {
        let mut random = Random(1);
        let mut picked = [0; 10];
        (0..100_000).for_each(|_| picked[random.below(10)] += 1);
        assert!(picked.iter().all(|n| (9_500..10_500).contains(n)), "{picked:?}");
    }
}
