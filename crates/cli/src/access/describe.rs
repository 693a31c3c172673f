//! `keyledger access describe`: a key as a document.

use clap::ValueEnum;
use keyledger_proto::{DescribeKeyRequest, DocumentFormat, document};
use uuid::Uuid;

use crate::connection::Session;
use crate::screen::Screen;
use crate::trace::links::TraceUrl;

/// Print the document of one key: whose it is and what for, what it may do in plain sentences, under which conditions and how
/// long, who changed it and why, what it was used for lately, and the signed checkpoint at which this was true.
///
/// What the token may not read (the log, roles) is left out, and said to be.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger access describe 0198c5a0-0000-8000-8000-000000000001 --format html > key.html"
)]
pub(super) struct Describe {
    /// Which key: a UUID.
    key_id: Uuid,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    #[command(flatten)]
    url: TraceUrl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// CommonMark, for people.
    Markdown,
    /// One page without outside assets, for people.
    Html,
    /// The canonical JSON of keyledger.v1.KeyDocument, for programs.
    Json,
}

impl Describe {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let format = match self.format {
            Format::Markdown => DocumentFormat::Markdown,
            Format::Html => DocumentFormat::Html,
            Format::Json => DocumentFormat::Json,
        };
        let request = DescribeKeyRequest { key_id: self.key_id.to_string(), format: format as i32 };
        let reply = session.keys().describe_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        // Where traces are shown is for whoever reads to know: links are written here.
        let document = match (&self.url.links, &reply.key) {
            (Some(links), Some(key)) => document::write_linked(key, format, Some(links)).text,
            _ => reply.document,
        };
        Ok(screen.verbatim(&format!("{}\n", document.trim_end()))?)
    }
}
