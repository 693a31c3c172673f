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

/// Prints the tables, and if asked the false alarms and misses one by one.
pub(crate) fn simulate(keys: usize, weeks: i64, seeds: &[u64], list: bool) {
    let mut score = Score::default();
    for seed in seeds {
        let run = replay::run(&Size { keys, weeks, attacks: ATTACKS }, *seed);
        let each = run.took.as_nanos() as u64 / run.observations.max(1);
        eprintln!("seed {seed}: {} observations, {each} ns each in the Monitor", run.observations);
        score.add(*seed, &run);
    }
    println!("{}", score.report());
    if list {
        score.lines.iter().for_each(|line| println!("{line}"));
    }
}

/// Attacks of each kind in one run.
const ATTACKS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_the_first_seed_prints() {
        let mut score = Score::default();
        let run = replay::run(&Size { keys: 100, weeks: 16, attacks: ATTACKS }, SEEDS[0]);
        score.add(SEEDS[0], &run);
        let readme: Vec<&str> = include_str!("../../../README.md").split_whitespace().collect();
        let readme = readme.join(" ");
        assert!(readme.contains(&score.sentence()), "the README doesn't say: {}", score.sentence());
    }

    #[test]
    fn the_same_seed_makes_the_same_and_another_makes_another() {
        let size = Size { keys: 20, weeks: 8, attacks: 1 };
        let alarms = |seed: u64| -> Vec<_> {
            let run = replay::run(&size, seed);
            let alarms =
                run.alarms.into_iter().map(|alarm| (alarm.time, alarm.rule, alarm.subject));
            alarms.collect()
        };
        assert!(!alarms(1).is_empty());
        assert_eq!(alarms(1), alarms(1));
        assert_ne!(alarms(1), alarms(2));
    }
}
