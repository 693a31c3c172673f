//! `keyledger-bench`: VerifyKey, strict and saturated, against a bare tonic echo with the same messages and the same
//! client, in turns in one run. Afterwards the whole ledger is verified, and every answer that was given must be in it.
//!
//! - `options`: what it takes.
//! - `run`: the story of one key count, from empty directory to verified ledger.
//! - `process`: a server as a child process; `serve` and `echo` are the two that are measured.
//! - `keys`, `client`, `load`: keys to ask about, connections, and one turn.
//! - `audit`: the ledger afterwards.
//! - `scale`, `invalid`, `queries`: other measurements: a ledger with very many keys, the time of each kind of token that isn't
//!   valid, and queries as the log grows, of the events that `events` makes.
//! - `simulate`: how good the rules of monitoring are, on made-up traffic with attacks.
//! - `traces`, `receiver`: what telemetry costs, and what arrives of it.
//! - `figures`, `screen`: what came of it, and how it is shown.

mod audit;
mod client;
mod echo;
mod events;
mod figures;
mod invalid;
mod keys;
mod load;
mod options;
mod process;
mod queries;
mod random;
mod receiver;
mod run;
mod scale;
mod screen;
mod serve;
mod simulate;
mod traces;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use figures::Figures;
use options::{Cli, Command, Options, Output};

/// The one of the `keyledger` binary; here for client and echo too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The guard comes before everything else: no runtime, no telemetry.
    if let Some(Command::Guard { arguments }) = cli.command {
        return keyledger_server::embedded::guard_main(arguments);
    }
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keyledger-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be. Each process has a runtime of its own, all with the same settings.
fn run(cli: Cli) -> anyhow::Result<bool> {
    tokio::runtime::Runtime::new()?.block_on(async {
        match cli.command {
            None => bench(&cli.options).await,
            Some(Command::Scale { keys }) => scale::scale(keys).await,
            Some(Command::Invalid { rounds }) => invalid::invalid(rounds).await,
            Some(Command::Queries { entries }) => queries::queries(&entries).await,
            Some(Command::Simulate(s)) => {
                simulate::simulate(s.keys as usize, s.weeks, &s.seeds, s.list);
                Ok(true)
            }
            Some(Command::Traces(options)) => traces::traces(&options).await,
            Some(Command::Echo) => echo::echo().await.map(|()| true),
            Some(Command::Serve { data_dir }) => serve::serve(data_dir).await.map(|()| true),
            Some(Command::Guard { .. }) => anyhow::bail!("the guard runs before any runtime"),
        }
    })
}

async fn bench(options: &Options) -> anyhow::Result<bool> {
    if cfg!(debug_assertions) {
        eprintln!("keyledger-bench: built without optimisation, so the figures mean little");
    }
    let mut all: Vec<Figures> = vec![];
    for keys in &options.keys {
        all.push(run::run(options, *keys).await?);
        if options.output == Output::Table {
            screen::print(&all[all.len() - 1])?;
        }
    }
    if options.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(all.iter().all(|f| f.ledger.good() && (!options.require || f.reaches_floor())))
}
