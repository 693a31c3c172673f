//! Replays synthetic traffic with labelled attacks through the Monitor that the server runs, and prints what its rules found, how
//! soon, and how often they were wrong. The defaults of the rules were chosen by it, on other seeds than those that are shown.
//!
//! - `random`: numbers that are the same on every machine.
//! - `clients`: who uses keys, in which rhythm. `life`: what happens to them without harm; the assumptions stand there.
//! - `attacks`: the catalogue. `replay`: one run. `score`: what came of it.

mod attacks;
mod clients;
mod life;
mod random;
mod replay;
mod score;

pub(crate) use life::ASSUMPTIONS;
use replay::Size;
use score::Score;

/// Seeds that nothing was chosen by.
pub(crate) const SEEDS: [u64; 5] = [101, 102, 103, 104, 105];

/// Whether every attack was found, and there was at most one false alarm.
pub(crate) fn simulate(keys: usize, weeks: i64, seeds: &[u64], list: bool) -> bool {
    let score = score(keys, weeks, seeds);
    println!("{}", score.report());
    if list {
        score.lines.iter().for_each(|line| println!("{line}"));
    }
    true
}

fn score(keys: usize, weeks: i64, seeds: &[u64]) -> Score {
    let size = Size { keys, weeks, attacks: 2 };
    let mut score = Score::default();
    for seed in seeds {
        let run = replay::run(&size, *seed);
        eprintln!("seed {seed}: {} observations", run.observations);
        score.add(*seed, &run);
    }
    score
}
