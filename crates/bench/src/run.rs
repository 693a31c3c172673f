//! The story of one key count: a fresh ledger, keys, turns of echo and Keyledger, and the ledger verified afterwards.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;

use crate::audit;
use crate::client::Connections;
use crate::figures::{Figures, Round};
use crate::load::turn;
use crate::options::Options;
use crate::process::Process;
use crate::{figures, keys};

/// The person at the terminal wants no figures any more.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

/// Whatever is not good keeps its data, to be looked at.
pub(crate) async fn run(options: &Options, keys: usize) -> anyhow::Result<Figures> {
    let dir = tempfile::Builder::new().prefix("keyledger-bench-").tempdir()?;
    let result = measure_and_verify(options, keys, dir.path()).await;
    let done_with = match &result {
        Ok(figures) => figures.ledger.good(),
        Err(error) => error.is::<Interrupted>(),
    };
    if !done_with {
        eprintln!(
            "keyledger-bench: data and the server's log are kept in {}",
            dir.keep().display()
        );
    }
    result
}

async fn measure_and_verify(options: &Options, keys: usize, dir: &Path) -> anyhow::Result<Figures> {
    let data_dir = dir.join("data");
    std::fs::create_dir(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    say(format_args!("{keys} keys: making a ledger"));
    let log = File::create(dir.join("server.log"))?;
    let keyledger = Process::start("serve", &[data_dir.as_os_str()], log.into()).await?;
    let echo = Process::start("echo", &[], Stdio::inherit()).await?;

    let measured = tokio::select! {
        measured = measure(options, keys, &echo, &keyledger, &data_dir) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::Error::msg(Interrupted)),
    };
    let stopped = echo.stop().await.and(keyledger.stop().await);
    let (rounds, answers) = measured?;
    stopped?;

    say(format_args!("{keys} keys: verifying the ledger"));
    let ledger = audit::audit(&data_dir, answers).await?;
    Ok(figures::of(keys, options, rounds, ledger))
}

/// Rounds, and how many answers Keyledger gave in all.
async fn measure(
    options: &Options,
    keys: usize,
    echo: &Process,
    keyledger: &Process,
    data_dir: &Path,
) -> anyhow::Result<(Vec<Round>, u64)> {
    let echo = Connections::open(echo.address, options.connections).await?;
    let keyledger = Connections::open(keyledger.address, options.connections).await?;
    say(format_args!("{keys} keys: creating them"));
    let questions = keys::create(&keyledger, data_dir, keys).await?;
    let (mut rounds, mut answers) = (vec![], 0);
    for number in 1..=options.rounds {
        tokio::time::sleep(options.rest()).await;
        let floor = turn(&echo, &questions, options).await.context("the echo")?;
        let ours = turn(&keyledger, &questions, options).await.context("Keyledger")?;
        answers += ours.answers;
        let round = Round::of(&floor, &ours);
        say(format_args!("{keys} keys: round {number} of {}: {:.2}", options.rounds, round.ratio));
        rounds.push(round);
    }
    Ok((rounds, answers))
}

/// Progress goes to standard error: standard output has the figures alone.
pub(crate) fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("keyledger-bench: {what}");
}
