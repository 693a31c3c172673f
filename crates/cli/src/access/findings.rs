//! `keyledger access findings`: what is to be tidied up.

use keyledger_proto::{Finding, FindingThresholds, ListFindingsRequest};

use crate::connection::Session;
use crate::json::{self, Output, enum_value_name};
use crate::keys::owner;
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table::List;
use crate::values::{finding_kinds, words};

/// List what is to be tidied up: keys that end soon, that nobody uses, or that may do more than they do; roles that nobody holds, or
/// that are equal; owners with many keys, or who left. Each with what to do.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger access findings --kind key-unused --unused-days 60 --all"
)]
pub(super) struct Findings {
    /// Only this kind. May be repeated.
    #[arg(long = "kind", value_name = "KIND", value_parser = finding_kinds())]
    kinds: Vec<i32>,
    /// A key ends within so many days. Without it: 30.
    #[arg(long, value_name = "DAYS", value_parser = days())]
    expiring_days: Option<u32>,
    /// A key, or a right of it, was not used for so many days. Without it: 90.
    #[arg(long, value_name = "DAYS", value_parser = days())]
    unused_days: Option<u32>,
    /// A key that was never used is so many days old. Without it: 30.
    #[arg(long, value_name = "DAYS", value_parser = days())]
    never_used_days: Option<u32>,
    /// An owner has more keys than so many. Without it: 10.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    many_keys: Option<u32>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=3_660)
}

impl Findings {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let thresholds = FindingThresholds {
            expiring_days: self.expiring_days.unwrap_or_default(),
            unused_days: self.unused_days.unwrap_or_default(),
            never_used_days: self.never_used_days.unwrap_or_default(),
            many_keys: self.many_keys.unwrap_or_default(),
        };
        let page = async |page_token: String| {
            let first = page_token.is_empty();
            let request = ListFindingsRequest {
                kinds: self.kinds.clone(),
                thresholds: Some(thresholds),
                page_size: self.paging.size(),
                page_token,
            };
            let reply = session.keys().list_findings(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            if self.output.is_json() {
                json::print_page(screen, "ListFindingsResponse", &reply, self.paging.all)?;
            } else if !reply.findings.is_empty() {
                print(screen, &reply.findings)?;
            } else if first && reply.next_page_token.is_empty() {
                screen.line("Nothing was found: there is nothing to tidy up.")?;
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

fn print(screen: &Screen, findings: &[Finding]) -> std::io::Result<()> {
    let mut list = List::new(screen, &["FINDING", "ABOUT", "OWNER", "WHAT", "WHAT TO DO"], &[0]);
    for finding in findings {
        let kind = enum_value_name("keyledger.v1.FindingKind", finding.kind);
        let about = match (finding.key_id.as_str(), finding.role.as_str()) {
            ("", "") => "",
            ("", role) => role,
            (key_id, _) => key_id,
        };
        list.row(&[
            (&words(&kind), Tone::Plain),
            (about, Tone::Plain),
            (&owner(finding.owner.as_ref()), Tone::Plain),
            (&finding.sentence, Tone::Plain),
            (&finding.command, Tone::Faint),
        ]);
    }
    list.print()
}
