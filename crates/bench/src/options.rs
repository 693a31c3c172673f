//! What the program takes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures VerifyKey against a bare tonic echo, in turns in one run, and verifies the ledger afterwards.
///
/// Each key count gets a fresh ledger on an embedded Postgres that syncs every commit. Client, both servers and Postgres
/// share this machine.
#[derive(Parser)]
#[command(name = "keyledger-bench", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 good; 1 failed, the ledger is not good, or (--require) a ratio is too low; 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Numbers of keys to measure with, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10_000], value_parser = keys)]
    pub(crate) keys: Vec<usize>,
    /// Rounds; each is a turn of the echo and a turn of Keyledger.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// How long a turn is measured.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    seconds: f64,
    /// How long each turn goes on before it is measured.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warm_up: f64,
    /// Rest after a turn of Keyledger, so that what it does behind the commit doesn't slow the echo down.
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = seconds)]
    rest: f64,
    /// Calls in flight: enough to saturate both.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) in_flight: u32,
    /// Connections that they share.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) connections: u32,
    /// Ends with 1 if a ratio is below its floor: of the echo 0.55 at 100 keys, 0.45 at 10,000; of no telemetry 0.95 with 1 % of
    /// traces, 0.7 with all.
    #[arg(long)]
    pub(crate) require: bool,
    /// How the figures are shown.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Another measurement, or a child that the program starts of itself.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Fills a ledger with keys, starts Keyledger with them, and prints how long that takes and what a key costs in memory.
    /// Ends with 1 above 120 s or 600 bytes.
    Scale {
        /// How many keys.
        #[arg(long, default_value_t = 1_000_000, value_parser = keys)]
        keys: usize,
    },
    /// Prints how long VerifyKey takes for each kind of token that isn't valid: nobody must be able to tell them apart.
    Invalid {
        /// How often each kind is asked about.
        #[arg(long, default_value_t = 2_000, value_parser = keys)]
        rounds: usize,
    },
    /// Fills ledgers with recorded events and prints how long each kind of query takes, and how much longer with more events.
    /// Ends with 1 if a median grows by more than 2 from first to last.
    Queries {
        /// Numbers of entries, smallest first. 10,000,000 take about 20 GB on disk while they are asked about.
        #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000, 10_000_000], value_parser = entries)]
        entries: Vec<usize>,
    },
    /// Replays made-up traffic with labelled attacks and prints what each rule of monitoring finds, how soon, and how often it is
    /// wrong.
    #[command(after_help = crate::simulate::ASSUMPTIONS)]
    Simulate(Simulate),
    /// Measures VerifyKey with telemetry off, with 1 % and with 100 % of traces, with metrics, and with log records, in turns in one
    /// run, and tells what arrived.
    Traces(Options),
    /// Answers VerifyKey with a fixed reply.
    #[command(hide = true)]
    Echo,
    /// Runs Keyledger with an embedded Postgres.
    #[command(hide = true)]
    Serve { data_dir: PathBuf },
    /// Watches over the embedded Postgres.
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Args)]
pub(crate) struct Simulate {
    /// How many keys.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub(crate) keys: u32,
    /// For how many weeks: four are for learning and don't count.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i64).range(8..=104))]
    pub(crate) weeks: i64,
    /// One run for each.
    #[arg(long, value_delimiter = ',', default_values_t = crate::simulate::SEEDS)]
    pub(crate) seeds: Vec<u64>,
    /// Also lists false alarms, and attacks that were missed.
    #[arg(long)]
    pub(crate) list: bool,
}

impl Options {
    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    pub(crate) fn rest(&self) -> Duration {
        Duration::from_secs_f64(self.rest)
    }
}

fn keys(text: &str) -> Result<usize, String> {
    let keys = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    keys.ok_or("must be 1 to 1000000".into())
}

fn entries(text: &str) -> Result<usize, String> {
    let entries = text.parse().ok().filter(|n| (1_000..=10_000_000).contains(n));
    entries.ok_or("must be 1000 to 10000000".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
    seconds.ok_or("must be 0 to 3600 seconds".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_list_of_key_counts_is_read() {
        let cli = Cli::parse_from(["keyledger-bench", "--keys", "7,1000", "--seconds", "0.5"]);
        assert_eq!(cli.options.keys, [7, 1000]);
        assert_eq!(cli.options.measured(), Duration::from_millis(500));
        assert!(Cli::try_parse_from(["keyledger-bench", "--keys", "0"]).is_err());
    }
}
