//! What commands share that follow a ledger until they are stopped.

use tonic::{Status, Streaming};

use crate::connection::Session;
use crate::failure::Failure;

/// Takes each reply of a stream, for ever. `take` returns where to continue after it. The stream has no end of its own, so
/// its end is a failure; it says where to continue.
pub(crate) async fn follow<Reply>(
    session: &Session,
    mut stream: Streaming<Reply>,
    from: Option<u64>,
    mut take: impl FnMut(Reply) -> anyhow::Result<Option<u64>>,
) -> anyhow::Result<()> {
    let mut next_position = from;
    loop {
        let reply = match stream.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(broken(session, None, next_position).into()),
            Err(status) => return Err(broken(session, Some(&status), next_position).into()),
        };
        next_position = take(reply)?.or(next_position);
    }
}

/// The failure of a stream that has broken off, or ended, which it shouldn't.
pub(crate) fn broken(
    session: &Session,
    status: Option<&Status>,
    next_position: Option<u64>,
) -> Failure {
    let failure = match status {
        Some(status) => session.failure(status),
        None => Failure::new("the server ended the stream").next("run the command again"),
    };
    match next_position {
        Some(position) => failure.and_next(&format!("--from {position} continues where it broke")),
        None => failure,
    }
}
