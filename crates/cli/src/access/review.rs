//! `keyledger access review`: a report of who held what when, for those who review access.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use keyledger_proto::document;
use keyledger_proto::review::{Report, digest};
use keyledger_proto::{DocumentMoment, GetAccessReviewRequest, GetCheckpointRequest};
use prost_types::Timestamp;
use tonic::Code;
use uuid::Uuid;

use crate::connection::Session;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::table::Facts;
use crate::values::parse_time;

/// Write a report of a period: who held what when, what was changed by whom and why, rights that are not used, what stands out, and
/// who signed so far. Needs to read keys, and the log's category keyledger/lifecycle.
///
/// What is signed is the report as JSON, by its SHA-256, which is printed. With --format html or csv that JSON is written too, beside
/// the file.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger access review --from 2026-07-01T00:00:00Z --to 2026-10-01T00:00:00Z --format html --output q3.html"
)]
pub(super) struct Review {
    /// From when on: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Timestamp,
    /// Until when, exclusively. Without it: until now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
    /// Show what is signed and used as of just before this position. Without it: as of now.
    #[arg(long, value_name = "POSITION")]
    as_of_position: Option<u64>,
    /// Only this key: a UUID.
    #[arg(long, value_name = "KEY_ID")]
    key: Option<Uuid>,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// Where to. Nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page without outside assets, for people.
    Html,
    /// One table, for spreadsheets.
    Csv,
    /// What is signed, for programs.
    Json,
}

impl Review {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let json_file = match self.format {
            Format::Json => self.output.clone(),
            Format::Html | Format::Csv => with_json(&self.output),
        };
        // The file that was named comes first: it is the one that is known to who asked.
        for file in [&self.output, &json_file] {
            check_new(file)?;
        }
        let report = self.get(session).await?;
        let json = report.json();
        let digest = digest(&json);
        // First what is signed: whoever finds a page finds its JSON, too.
        write_new(&json_file, json.as_bytes())?;
        match self.format {
            Format::Json => {}
            Format::Csv => write_new(&self.output, &report.csv())?,
            Format::Html => {
                let moment = moment(session, &report).await?;
                let page = document::review::page(&report, &digest, &moment);
                write_new(&self.output, page.as_bytes())?;
            }
        }
        let mut facts = Facts::new(screen);
        facts.add("report", &self.output.display().to_string());
        facts.add("signed is", &json_file.display().to_string());
        facts.add("sha256", &hex::encode(digest));
        let moment = |time: Option<Timestamp>| time.unwrap_or_default().to_string();
        facts.add("from", &moment(report.summary.from_time));
        facts.add("to", &moment(report.summary.to_time));
        let as_of = report.summary.as_of_position.unwrap_or_default();
        facts.add("as of position", &as_of.to_string());
        facts.add("keys", &report.holdings.len().to_string());
        facts.add("changes", &report.changes.len().to_string());
        facts.add("unused", &report.unused.len().to_string());
        facts.add("to look at", &report.exceptions.len().to_string());
        let signatures = report.signatures();
        facts.add("approved so far", &signatures.approved.len().to_string());
        facts.add("rejected so far", &signatures.rejected.len().to_string());
        facts.add(
            "other signatures",
            &format!("{}, of other periods or keys", signatures.others.len()),
        );
        Ok(facts.print()?)
    }

    async fn get(&self, session: &Session) -> anyhow::Result<Report> {
        let request = GetAccessReviewRequest {
            from_time: Some(self.from),
            to_time: self.to,
            as_of_position: self.as_of_position,
            key_id: self.key.map(|id| id.to_string()).unwrap_or_default(),
        };
        gathered(session, request).await
    }
}

/// The report that the server gives, whole.
pub(super) async fn gathered(
    session: &Session,
    request: GetAccessReviewRequest,
) -> anyhow::Result<Report> {
    let parts = session.keys().get_access_review(session.call(request)).await;
    let mut parts = parts.map_err(|s| session.failure(&s))?.into_inner();
    let mut report = Report::default();
    while let Some(reply) = parts.message().await.map_err(|s| session.failure(&s))? {
        reply.part.into_iter().for_each(|part| report.add(part));
    }
    match report.is_complete() {
        true => Ok(report),
        false => Err(Failure::new("the report came without its end: it is not complete")
            .next("run the command again")
            .into()),
    }
}

/// Which checkpoint covers what is told, if the token may read one.
async fn moment(session: &Session, report: &Report) -> anyhow::Result<DocumentMoment> {
    let checkpoint = session.audit().get_checkpoint(session.call(GetCheckpointRequest {})).await;
    let checkpoint = match checkpoint {
        Ok(reply) => reply.into_inner(),
        // The page says so.
        Err(status) if status.code() == Code::PermissionDenied => Default::default(),
        Err(status) => return Err(session.failure(&status).into()),
    };
    Ok(DocumentMoment {
        position: report.summary.as_of_position,
        // The position is that of the newest entry of the report, the period may have ended long before.
        time: None,
        checkpoint: checkpoint.note,
        checkpoint_size: checkpoint.size,
        verifier_key: checkpoint.verifier_key,
    })
}

/// `q3.html` has its JSON in `q3.html.json`.
fn with_json(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// A report isn't asked for when there is no place for it.
fn check_new(file: &Path) -> anyhow::Result<()> {
    match file.symlink_metadata() {
        Ok(_) => Err(not_written(file, &ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(not_written(file, &ErrorKind::NotFound.into()))
            }
            _ => Ok(()),
        },
        Err(error) => Err(not_written(file, &error)),
    }
}

fn write_new(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| not_written(file, &error))
}

fn not_written(file: &Path, error: &std::io::Error) -> anyhow::Error {
    let next = match error.kind() {
        ErrorKind::AlreadyExists => "name another file: nothing is overwritten",
        ErrorKind::NotFound => "name a file in a folder that exists",
        _ => "name a file that can be written",
    };
    Failure::new(format!("{} can't be written: {error}", file.display())).next(next).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(refused: anyhow::Result<()>) -> String {
        format!("{:?}", refused.unwrap_err().downcast::<Failure>().unwrap())
    }

    #[test]
    fn a_report_has_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let free = folder.path().join("q.html");
        assert!(check_new(&free).is_ok() && check_new(Path::new("no-such-file.html")).is_ok());
        write_new(&free, b"x").unwrap();
        for taken in [check_new(&free), write_new(&free, b"y")] {
            let problem = shown(taken);
            assert!(problem.contains("q.html can't") && problem.contains("nothing is overwritten"));
        }
        assert_eq!(std::fs::read(&free).unwrap(), b"x");
        let nowhere = shown(check_new(&folder.path().join("none/q.html")));
        assert!(nowhere.contains("a folder that exists"), "{nowhere}");
    }
}
