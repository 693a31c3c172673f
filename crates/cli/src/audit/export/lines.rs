//! An export of events: lines as they come, then the manifest.

use std::path::Path;

use keyledger_proto::ExportEventsRequest;

use super::partial::Partial;
use crate::connection::Session;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::inert;

pub(super) async fn export(
    session: &Session,
    request: ExportEventsRequest,
    file: &Path,
) -> anyhow::Result<()> {
    let mut partial = Partial::open(file, &request)?;
    if partial.lines() > 0 {
        eprintln!("Going on after line {}", partial.lines());
    }
    let request = ExportEventsRequest { resume_token: partial.resume_token(), ..request };
    let broken = |failure: Failure, lines: u64| {
        failure.and_next(&format!("the same command goes on after line {lines}"))
    };
    let stream = session.audit().export_events(session.stream(request)).await;
    let mut stream = stream.map_err(|s| broken(session.failure(&s), partial.lines()))?.into_inner();
    let mut progress = Progress::new("positions exported");
    loop {
        let reply = stream.message().await;
        let reply = reply.map_err(|s| broken(session.failure(&s), partial.lines()))?;
        let Some(reply) = reply else {
            let failure = Failure::new("the stream ended without a manifest");
            return Err(broken(failure, partial.lines()).into());
        };
        if let Some(manifest) = reply.manifest {
            let lines = partial.finish(manifest)?;
            drop(progress);
            let name = inert(&file.display().to_string());
            eprintln!("Exported {lines} lines to {name}, with {name}.manifest");
            return Ok(());
        }
        let done = reply.progress.unwrap_or_default();
        partial.append(&reply.lines, done.lines, reply.resume_token)?;
        progress.at(done.positions_done, done.positions);
    }
}
