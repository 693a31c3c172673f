//! The figures as a table for people.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table};

use crate::figures::{Figures, Round};
use crate::options::Options;
use crate::traces;

const HEADERS: [&str; 8] =
    ["round", "echo calls/s", "p50 ms", "p99 ms", "Keyledger calls/s", "p50 ms", "p99 ms", "ratio"];

pub(crate) fn print(figures: &Figures) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Figures { keys, in_flight, connections, measured_secs, .. } = figures;
    writeln!(
        out,
        "VerifyKey, strict: {keys} keys, {in_flight} calls in flight over {connections} connections, turns of {measured_secs} s"
    )?;
    for line in table(figures).lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "ratio   {}", ratio(figures))?;
    writeln!(out, "ledger  {}", figures.ledger.verdict())?;
    writeln!(out)
}

/// Telemetry and what it costs.
pub(crate) fn print_traces(
    keys: usize,
    options: &Options,
    all: &[traces::Figures],
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Options { in_flight, connections, rounds, .. } = options;
    writeln!(
        out,
        "VerifyKey, strict, with telemetry: {keys} keys, {in_flight} calls in flight over {connections} connections, \
         medians of {rounds} rounds"
    )?;
    let mut table = Table::new();
    let headers = [
        "telemetry",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "ratio",
        "answers",
        "their spans",
        "all spans",
    ];
    table.load_style(comfy_table::presets::NOTHING).set_header(headers);
    for figures in all {
        let (speed, number) = (figures.median, |n: u64| n.to_string());
        table.add_row([
            figures.mode.to_string(),
            format!("{:.0}", speed.calls_per_sec),
            millis(speed.p50_micros),
            millis(speed.p99_micros),
            format!("{:.2}", figures.ratio),
            number(figures.answers),
            number(figures.call_spans),
            number(figures.spans),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    for figures in all {
        let traces::Figures { mode, metric_exports, log_records, ledger, .. } = figures;
        writeln!(
            out,
            "{mode}: {metric_exports} exports of metrics and {log_records} log records arrived; {}; ledger {}",
            verdict(figures),
            ledger.verdict()
        )?;
    }
    writeln!(out)
}

fn verdict(figures: &traces::Figures) -> String {
    match figures.floor {
        None => "nothing is asked for".into(),
        Some(floor) if figures.reaches_floor() => format!("at least {floor} is asked for"),
        Some(floor) => format!("BELOW {floor}, which is asked for"),
    }
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(HEADERS);
    for (number, round) in (1..).zip(&figures.rounds) {
        table.add_row(row(format!("{number}"), round));
    }
    table.add_row(row("median".into(), &figures.median));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: String, round: &Round) -> [String; 8] {
    let [echo, ours] = [round.echo, round.keyledger].map(|speed| {
        [format!("{:.0}", speed.calls_per_sec), millis(speed.p50_micros), millis(speed.p99_micros)]
    });
    let [echo_calls, echo_p50, echo_p99] = echo;
    let [calls, p50, p99] = ours;
    [name, echo_calls, echo_p50, echo_p99, calls, p50, p99, format!("{:.2}", round.ratio)]
}

fn millis(micros: u32) -> String {
    format!("{:.2}", f64::from(micros) / 1000.0)
}

fn ratio(figures: &Figures) -> String {
    let ratio = format!("{:.2} of the echo (median of the rounds)", figures.median.ratio);
    match figures.floor {
        None => ratio,
        Some(floor) if figures.reaches_floor() => format!("{ratio}; at least {floor} is asked for"),
        Some(floor) => format!("{ratio}: BELOW {floor}, which is asked for"),
    }
}
