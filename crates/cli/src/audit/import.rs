//! `keyledger audit import`: logs of other systems, recorded as events.

mod auditd;
mod azuread;
mod cloudevents;
mod cloudtrail;
#[cfg(test)]
mod expected;
mod facts;
mod gcp;
mod github;
mod journald;
mod kubernetes;
mod ocsf;
mod okta;
mod record;
#[cfg(test)]
mod samples;
mod source;
mod teleport;
mod vault;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use keyledger_proto::{EventOutcome, NewEvent, RecordEventsRequest};
use prost::Message;
use serde_json::Value;

use self::facts::{Facts, Unmapped};
use self::source::Ids;
use crate::Ending;
use crate::connection::Session;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::{Screen, inert};

/// Most events of one call.
const MOST_EVENTS: usize = 100;
/// A call stays well below the longest message that the server reads.
const MOST_BYTES: usize = 768 * 1024;
/// Longest file that is read at once.
const MOST_FILE: u64 = 256 * 1024 * 1024;
/// How many records that didn't go in are named one by one.
const MOST_NAMED: usize = 20;

/// Record the log of another system: who did what, on what, when, with which outcome, why and from where.
///
/// Each record becomes an event of the category, with the original beside it as a sealed attribute. Persons are kept sealed.
/// A record's id follows from the record: whoever stops may run the same command again, and nothing is recorded twice. What
/// can't be mapped is counted and named, and the rest goes on; then the exit code is 10.
///
/// The key needs `audit.write` on `logs/<category>`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Import {
    /// Which system wrote the log.
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File of at most 256 MiB; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Category of the events, such as `security/login`. By default one that follows from the format: see below.
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Only say what would be sent: nothing is recorded, and no server is asked.
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLE: &str = "\
Categories by default: auditd os/audit, journald os/journal, kubernetes kubernetes/audit, cloudtrail cloud/aws, gcp cloud/gcp, \
azuread identity/azuread, github code/github, okta identity/okta, vault secrets/vault, teleport access/teleport, ocsf \
security/ocsf, cloudevents events.

Example: keyledger audit import --format okta --file system-log.jsonl --category identity/okta --dry-run";

/// A system whose log can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Linux audit: lines of `type=… msg=audit(time:serial): …`
    Auditd,
    /// `journalctl -o json`
    Journald,
    /// Audit events of Kubernetes, a line each
    Kubernetes,
    /// AWS CloudTrail: `{"Records": […]}`, or a record a line
    Cloudtrail,
    /// Google Cloud LogEntry, a line each
    Gcp,
    /// Audit log of Azure AD (Entra ID), a record a line
    Azuread,
    /// GitHub audit log, a record a line
    Github,
    /// Okta System Log, an event a line
    Okta,
    /// File audit device of Vault
    Vault,
    /// Audit events of Teleport, a line each
    Teleport,
    /// OCSF events, a line each
    Ocsf,
    /// CloudEvents 1.0 or 0.3, structured JSON, a line each
    Cloudevents,
}

impl Format {
    fn name(self) -> &'static str {
        self.category_and_name().1
    }

    fn category(self) -> &'static str {
        self.category_and_name().0
    }

    fn category_and_name(self) -> (&'static str, &'static str) {
        match self {
            Format::Auditd => ("os/audit", "auditd"),
            Format::Journald => ("os/journal", "journald"),
            Format::Kubernetes => ("kubernetes/audit", "kubernetes"),
            Format::Cloudtrail => ("cloud/aws", "cloudtrail"),
            Format::Gcp => ("cloud/gcp", "gcp"),
            Format::Azuread => ("identity/azuread", "azuread"),
            Format::Github => ("code/github", "github"),
            Format::Okta => ("identity/okta", "okta"),
            Format::Vault => ("secrets/vault", "vault"),
            Format::Teleport => ("access/teleport", "teleport"),
            Format::Ocsf => ("security/ocsf", "ocsf"),
            Format::Cloudevents => ("events", "cloudevents"),
        }
    }

    fn map_json(self, record: &Value) -> Result<Facts, Unmapped> {
        match self {
            Format::Auditd => Err("its lines are no JSON".into()),
            Format::Journald => journald::map(record),
            Format::Kubernetes => kubernetes::map(record),
            Format::Cloudtrail => cloudtrail::map(record),
            Format::Gcp => gcp::map(record),
            Format::Azuread => azuread::map(record),
            Format::Github => github::map(record),
            Format::Okta => okta::map(record),
            Format::Vault => vault::map(record),
            Format::Teleport => teleport::map(record),
            Format::Ocsf => ocsf::map(record),
            Format::Cloudevents => cloudevents::map(record),
        }
    }
}

/// An event, and where its record stands.
struct Mapped {
    place: String,
    event: NewEvent,
}

/// What became of the records.
#[derive(Default)]
struct Report {
    read: u64,
    recorded: u64,
    repeated: u64,
    refused: u64,
    unmapped: u64,
    /// The first that didn't go in, in words.
    named: Vec<String>,
}

/// A file that was read: what can be sent, and what was found on the way.
pub(super) struct Source {
    mapped: Vec<Mapped>,
    report: Report,
}

impl Import {
    /// All records of the file, mapped.
    pub(super) fn read(&self) -> anyhow::Result<Source> {
        let file = read(&self.file)?;
        Ok(self.map(&file))
    }

    fn map(&self, file: &[u8]) -> Source {
        let category = self.category.as_deref().unwrap_or(self.format.category());
        let (mut ids, mut report, mut mapped) = (Ids::default(), Report::default(), vec![]);
        for piece in source::pieces(self.format, file) {
            report.read += 1;
            let to_event = |text: String| source::to_event(self.format, category, &text, &mut ids);
            match piece.text.and_then(to_event) {
                Ok(event) => mapped.push(Mapped { place: piece.place, event }),
                Err(reason) => report.unmapped(&piece.place, &reason),
            }
        }
        Source { mapped, report }
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Only checks each event as the server would.
    pub(super) fn try_out(&self, source: Source, screen: &Screen) -> anyhow::Result<Ending> {
        let Source { mapped, mut report } = source;
        let mut good = 0;
        for Mapped { place, event } in mapped {
            match keyledger_proto::parse::event(event) {
                Ok(_) => good += 1,
                Err(wrong) => {
                    let wrong = wrong.iter().map(|v| format!("{} {}", v.field, v.description));
                    report.refused(&place, &wrong.collect::<Vec<_>>().join(", "));
                }
            }
        }
        report.print_named(screen)?;
        screen.line(&format!(
            "{} read: {good} would be sent, {} refused, {} unmapped. A dry run: nothing was recorded.",
            report.read, report.refused, report.unmapped
        ))?;
        Ok(report.ending())
    }

    pub(super) async fn run(
        self,
        session: &Session,
        screen: &Screen,
        source: Source,
    ) -> anyhow::Result<Ending> {
        let Source { mapped, mut report } = source;
        let mut progress = Progress::new("records sent");
        let mut sent = 0;
        for call in calls(&mapped) {
            let events = call.iter().map(|m| m.event.clone()).collect();
            let reply = session
                .audit()
                .record_events(session.call(RecordEventsRequest { events, atomic: false }))
                .await;
            let failed = |s| report.interrupted(session.failure(&s), &call[0].place);
            let outcomes = reply.map_err(failed)?.into_inner().outcomes;
            for (mapped, outcome) in call.iter().zip(&outcomes) {
                report.count(&mapped.place, outcome);
            }
            sent += call.len();
            progress.at(sent as u64, mapped.len() as u64);
        }
        drop(progress);
        report.print_named(screen)?;
        screen.line(&report.summary())?;
        Ok(report.ending())
    }
}

impl Report {
    fn count(&mut self, place: &str, outcome: &EventOutcome) {
        match &outcome.refusal {
            Some(refusal) => {
                let problems = refusal.problems.iter();
                let problems = problems.map(|p| format!("; {} {}", p.field, p.description));
                let reason = format!("{}{}", refusal.message, problems.collect::<String>());
                self.refused(place, &reason);
            }
            None if outcome.repeated => self.repeated += 1,
            None => self.recorded += 1,
        }
    }

    fn refused(&mut self, place: &str, reason: &str) {
        self.refused += 1;
        self.name(format!("{place}: refused: {reason}"));
    }

    fn unmapped(&mut self, place: &str, reason: &str) {
        self.unmapped += 1;
        self.name(format!("{place}: unmapped: {reason}"));
    }

    fn name(&mut self, text: String) {
        if self.named.len() < MOST_NAMED {
            self.named.push(text);
        }
    }

    fn print_named(&self, screen: &Screen) -> anyhow::Result<()> {
        self.named.iter().try_for_each(|text| screen.line(&inert(text)))?;
        let more = self.refused + self.unmapped - self.named.len() as u64;
        if more > 0 {
            screen.line(&format!("… and {more} more"))?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        format!(
            "{} read: {} recorded, {} repeated, {} refused, {} unmapped",
            self.read, self.recorded, self.repeated, self.refused, self.unmapped
        )
    }

    fn ending(&self) -> Ending {
        if self.refused + self.unmapped == 0 { Ending::Good } else { Ending::NotGood }
    }

    /// Says how far it came, and that a repeat is safe.
    fn interrupted(&self, failure: Failure, place: &str) -> anyhow::Error {
        let recorded = self.recorded + self.repeated;
        failure
            .and_next(&format!(
                "{recorded} records are in, those from {place} on may not be: run the same command again, nothing is recorded twice"
            ))
            .into()
    }
}

/// As many events at once as one call takes.
fn calls(mapped: &[Mapped]) -> Vec<&[Mapped]> {
    let (mut calls, mut rest) = (vec![], mapped);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |m: &&Mapped| {
            bytes += m.event.encoded_len() + 8;
            bytes <= MOST_BYTES
        };
        let count = rest.iter().take(MOST_EVENTS).take_while(fits).count().max(1);
        let (call, later) = rest.split_at(count);
        calls.push(call);
        rest = later;
    }
    calls
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{} can't be read", path.display());
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).with_context(unreadable)?),
    };
    let mut bytes = vec![];
    input.take(MOST_FILE + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    anyhow::ensure!(bytes.len() as u64 <= MOST_FILE, "the file is longer than 256 MiB: split it");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_format_has_a_category_that_the_help_names_and_that_is_good() {
        for format in Format::value_variants() {
            let name = format.to_possible_value().unwrap();
            assert_eq!(name.get_name(), format.name());
            assert!(EXAMPLE.contains(&format!("{} {}", format.name(), format.category())));
        }
    }

    #[test]
    fn a_call_takes_a_hundred_events_and_stays_below_the_longest_message() {
        let events = |count: usize, bytes: usize| -> Vec<Mapped> {
            let event = NewEvent { reason: "x".repeat(bytes), ..NewEvent::default() };
            (1..=count)
                .map(|n| Mapped { place: format!("line {n}"), event: event.clone() })
                .collect()
        };
        let sizes =
            |mapped: &[Mapped]| -> Vec<usize> { calls(mapped).iter().map(|c| c.len()).collect() };
        assert_eq!(sizes(&events(250, 10)), [100, 100, 50]);
        assert_eq!(sizes(&events(5, MOST_BYTES / 3)), [2, 2, 1]);
    }

    #[test]
    fn a_report_names_the_first_twenty_and_counts_all() {
        let mut report = Report { read: 30, ..Report::default() };
        (1..=25).for_each(|line| report.unmapped(&format!("line {line}"), "no action"));
        (1..=3).for_each(|_| {
            report.count("line 26", &EventOutcome { position: Some(1), ..Default::default() })
        });
        report.count("line 27", &EventOutcome { repeated: true, ..Default::default() });
        report.count(
            "line 28",
            &EventOutcome { refusal: Some(Default::default()), ..Default::default() },
        );
        assert_eq!(report.named.len(), MOST_NAMED);
        assert_eq!(report.named[0], "line 1: unmapped: no action");
        assert_eq!(report.summary(), "30 read: 3 recorded, 1 repeated, 1 refused, 25 unmapped");
        assert_eq!(report.ending(), Ending::NotGood);
    }
}
