//! What the guard tells its parent, through the pipe that is its stdout.
//!
//! One line `serving <postmaster> <socket folder>` when the server was started; when all is over
//! `ended`, or `failed` or `in-use` with a message that goes on to the end of the pipe. A pipe that
//! ends without any of these belongs to a guard that was killed.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

use super::error::EmbeddedError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Started, which is not yet accepting connections.
    Serving {
        postmaster: u32,
        socket_dir: PathBuf,
    },
    /// As it was told to.
    Ended,
    Failed(String),
    InUse(String),
}

impl Report {
    pub(super) fn of_error(error: &EmbeddedError) -> Report {
        match error {
            EmbeddedError::InUse(message) => Report::InUse(message.clone()),
            other => Report::Failed(other.to_string()),
        }
    }

    pub(super) fn is_last(&self) -> bool {
        !matches!(self, Report::Serving { .. })
    }

    /// An error if the parent is gone.
    pub(super) fn send(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.encode().as_bytes())?;
        out.flush()
    }

    fn encode(&self) -> String {
        match self {
            Report::Serving { postmaster, socket_dir } => {
                format!("serving {postmaster} {}\n", socket_dir.display())
            }
            Report::Ended => "ended\n".to_owned(),
            Report::Failed(message) => format!("failed {message}"),
            Report::InUse(message) => format!("in-use {message}"),
        }
    }

    /// `None` at the end of the pipe.
    pub(super) fn receive(pipe: &mut impl BufRead) -> io::Result<Option<Report>> {
        let mut text = String::new();
        if pipe.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        let last = text.starts_with("failed ") || text.starts_with("in-use ");
        if last {
            pipe.take(LONGEST_MESSAGE).read_to_string(&mut text)?;
        }
        Report::decode(text.trim_end()).map(Some)
    }

    fn decode(text: &str) -> io::Result<Report> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let report = match word {
            "ended" => Report::Ended,
            "failed" => Report::Failed(rest.to_owned()),
            "in-use" => Report::InUse(rest.to_owned()),
            "serving" => decode_serving(rest).ok_or(io::ErrorKind::InvalidData)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(report)
    }
}

const LONGEST_MESSAGE: u64 = 64 * 1024;

fn decode_serving(text: &str) -> Option<Report> {
    let (postmaster, socket_dir) = text.split_once(' ')?;
    Some(Report::Serving {
        postmaster: postmaster.parse().ok()?,
        socket_dir: PathBuf::from(socket_dir),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_as_they_were_sent() {
        let sent = [
            Report::Serving { postmaster: 77, socket_dir: "/run/a b".into() },
            Report::Ended,
            Report::Failed("two\nlines of it".into()),
        ];
        let bytes: String = sent.iter().map(Report::encode).collect();
        let mut pipe = bytes.as_bytes();
        for report in sent {
            assert_eq!(Report::receive(&mut pipe).unwrap(), Some(report));
        }
        assert_eq!(Report::receive(&mut pipe).unwrap(), None);
    }

    #[test]
    fn a_program_that_is_no_guard_is_told_apart() {
        let mut usage = "Usage: thing [OPTIONS]\n".as_bytes();
        assert!(Report::receive(&mut usage).is_err());
    }
}
