//! `keyledger audit export`.

mod ledger;
mod lines;
mod partial;

use std::path::PathBuf;

use keyledger_proto::export::ExportFormat;
use keyledger_proto::{EventFilter, ExportEventsRequest};
use uuid::Uuid;

use super::filter::{FilterArgs, TimeArgs};
use crate::connection::Session;
use crate::failure::Failure;

/// Export the whole ledger, or the events that one may read, to a file that `keyledger verify --export FILE` checks later.
///
/// The format `ledger` is the whole ledger raw: a line holds one entry with everything that offline verification needs, texts
/// included as far as the server can open them; the last line holds a signed checkpoint. The key needs audit.read on logs/**,
/// and audit.checkpoint on logs.
///
/// The other formats hold events, one a line, those alone that the filters let through, up to now. Beside FILE stands
/// FILE.manifest: what was asked for and the digest of each line, signed by the ledger. Until all is there, it is FILE.partial;
/// after a break, the same command goes on where it was. The key needs audit.read on logs/CATEGORY, or on logs/** without
/// --category.
///
/// Files are only readable by their owner: they hold personal data.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Export {
    /// What to write.
    #[arg(long, value_enum, default_value = "ledger")]
    format: Format,
    /// File to write, `-` for standard output (only the whole ledger). It appears under this name only when it is complete.
    #[arg(long, visible_alias = "out", value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Only this category, such as `security/login`.
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    /// Only events about this key, or called by it: a UUID.
    #[arg(long, value_name = "UUID")]
    key_id: Option<Uuid>,
    /// Only from this position on.
    #[arg(long, value_name = "POSITION", default_value = "0", hide_default_value = true)]
    from: u64,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    times: TimeArgs,
}

const EXAMPLE: &str = "\
Examples:
  keyledger audit export --output ledger.jsonl
  keyledger audit export --format ocsf --category security/login --since 2026-11-01T00:00:00Z --output logins.ocsf";

/// What an export holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The whole ledger, raw.
    Ledger,
    /// Events as JSON Lines, each with its signed bytes and proof.
    Jsonl,
    /// Events as CloudEvents 1.0.
    Cloudevents,
    /// Events as OCSF 1.6.0.
    Ocsf,
    /// Events as CSV with a header, guarded against formulas.
    Csv,
}

impl Format {
    fn of_events(self) -> Option<ExportFormat> {
        match self {
            Format::Ledger => None,
            Format::Jsonl => Some(ExportFormat::JsonLines),
            Format::Cloudevents => Some(ExportFormat::CloudEvents),
            Format::Ocsf => Some(ExportFormat::Ocsf),
            Format::Csv => Some(ExportFormat::Csv),
        }
    }
}

impl Export {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let filter = self.times.within(self.filter.to_wire());
        let filter = Some(filter).filter(|f| *f != EventFilter::default());
        let request = ExportEventsRequest {
            key_id: self.key_id.map(|id| id.to_string()).unwrap_or_default(),
            category: self.category,
            filter,
            from_position: self.from,
            ..ExportEventsRequest::default()
        };
        match self.format.of_events() {
            Some(_) if self.output.as_os_str() == "-" => {
                Err(Failure::new("an export of events has a manifest beside it")
                    .next("name a file with --output")
                    .into())
            }
            Some(format) => {
                let request = ExportEventsRequest { format: format as i32, ..request };
                lines::export(session, request, &self.output).await
            }
            None if request != ExportEventsRequest::default() => {
                Err(Failure::new("the format `ledger` holds the whole ledger, and takes no filter")
                    .next("choose another with --format, or leave the filters out")
                    .into())
            }
            None => ledger::export(session, &self.output).await,
        }
    }
}
