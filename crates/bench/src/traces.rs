//! What telemetry costs: VerifyKey with traces off, at 1 %, at 100 %, with metrics, and with log records, in turns in one run. Each
//! is a server of its own with a ledger of its own, and sends to a receiver that counts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use crate::audit::{self, Audit};
use crate::client::{Connections, Questions};
use crate::figures::{Speed, median};
use crate::load::{Turn, turn};
use crate::options::{Options, Output};
use crate::process::Process;
use crate::receiver::{self, Received};
use crate::run::say;
use crate::{keys, screen};

/// What a server is told, beside where the receiver is.
struct Mode {
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// The least part of the calls that there are without telemetry.
    floor: Option<f64>,
}

const NO_TRACES: (&str, &str) = ("OTEL_TRACES_EXPORTER", "none");
const NO_METRICS: (&str, &str) = ("OTEL_METRICS_EXPORTER", "none");
const NO_LOGS: (&str, &str) = ("OTEL_LOGS_EXPORTER", "none");

/// The first is what the others are compared with.
const MODES: [Mode; 5] = [
    Mode { name: "off", variables: &[NO_TRACES, NO_METRICS, NO_LOGS], floor: None },
    Mode {
        name: "traces 1 %",
        variables: &[
            NO_METRICS,
            NO_LOGS,
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ],
        floor: Some(0.95),
    },
    Mode { name: "traces 100 %", variables: &[NO_METRICS, NO_LOGS], floor: Some(0.7) },
    Mode { name: "metrics", variables: &[NO_TRACES, NO_LOGS], floor: None },
    Mode { name: "log records", variables: &[NO_TRACES, NO_METRICS], floor: None },
];

/// What came of one mode.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) mode: &'static str,
    /// Of each figure by itself.
    pub(crate) median: Speed,
    /// Calls a second by those of the first mode, in the same round: the median of the rounds.
    pub(crate) ratio: f64,
    pub(crate) floor: Option<f64>,
    /// Answers, and what the receiver got by the end.
    pub(crate) answers: u64,
    pub(crate) call_spans: u64,
    pub(crate) spans: u64,
    pub(crate) metric_exports: u64,
    pub(crate) log_records: u64,
    pub(crate) ledger: Audit,
}

impl Figures {
    /// Where nothing is asked for, anything reaches it.
    pub(crate) fn reaches_floor(&self) -> bool {
        self.floor.is_none_or(|floor| self.ratio >= floor)
    }
}

/// A mode that runs.
struct Running {
    mode: &'static Mode,
    process: Process,
    received: Arc<Received>,
    data_dir: PathBuf,
    connections: Connections,
    questions: Questions,
    turns: Vec<Turn>,
}

/// Whether the ledgers are good and, where it is required, the floors are reached.
pub(crate) async fn traces(options: &Options) -> anyhow::Result<bool> {
    let mut good = true;
    for keys in &options.keys {
        let dir = tempfile::Builder::new().prefix("keyledger-bench-").tempdir()?;
        let figures = measure(options, *keys, dir.path()).await?;
        match options.output {
            Output::Table => screen::print_traces(*keys, options, &figures)?,
            Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
        }
        let reached = !options.require || figures.iter().all(Figures::reaches_floor);
        good &= reached && figures.iter().all(|f| f.ledger.good());
    }
    Ok(good)
}

async fn measure(options: &Options, keys: usize, dir: &Path) -> anyhow::Result<Vec<Figures>> {
    let mut all = vec![];
    for (number, mode) in MODES.iter().enumerate() {
        say(format_args!("{keys} keys, {}: making a ledger", mode.name));
        all.push(Running::start(mode, options, keys, &dir.join(number.to_string())).await?);
    }
    for number in 1..=options.rounds {
        for running in &mut all {
            tokio::time::sleep(options.rest()).await;
            let turn = turn(&running.connections, &running.questions, options).await;
            running.turns.push(turn.with_context(|| format!("with {}", running.mode.name))?);
        }
        say(format_args!("{keys} keys: round {number} of {}", options.rounds));
    }
    let base: Vec<Speed> = all[0].turns.iter().map(Speed::of).collect();
    let mut figures = vec![];
    for running in all {
        figures.push(running.end(&base).await?);
    }
    Ok(figures)
}

impl Running {
    async fn start(
        mode: &'static Mode,
        options: &Options,
        keys: usize,
        dir: &Path,
    ) -> anyhow::Result<Running> {
        let data_dir = dir.join("data");
        std::fs::create_dir_all(&data_dir)?;
        let data_dir = data_dir.canonicalize()?;
        let (receiver, received) = receiver::start()?;
        let endpoint = format!("http://{receiver}");
        let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
        let variables: Vec<_> = mode.variables.iter().copied().chain(endpoint).collect();
        let log = File::create(dir.join("server.log"))?;
        let arguments = [data_dir.as_os_str()];
        let process = Process::start_with("serve", &arguments, &variables, log.into()).await?;
        let connections = Connections::open(process.address, options.connections).await?;
        let questions = keys::create(&connections, &data_dir, keys).await?;
        Ok(Running { mode, process, received, data_dir, connections, questions, turns: vec![] })
    }

    /// Stops the server, which sends what is left, and verifies its ledger.
    async fn end(self, base: &[Speed]) -> anyhow::Result<Figures> {
        self.process.stop().await?;
        let answers = self.turns.iter().map(|turn| turn.answers).sum();
        let speeds: Vec<Speed> = self.turns.iter().map(Speed::of).collect();
        let ratios = speeds.iter().zip(base).map(|(s, b)| s.calls_per_sec / b.calls_per_sec);
        Ok(Figures {
            mode: self.mode.name,
            median: Speed::median(speeds.iter().copied()),
            ratio: median(ratios),
            floor: self.mode.floor,
            answers,
            call_spans: self.received.calls(),
            spans: self.received.spans(),
            metric_exports: self.received.metrics(),
            log_records: self.received.records(),
            ledger: audit::audit(&self.data_dir, answers).await?,
        })
    }
}
