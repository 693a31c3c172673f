//! grpcurl, called as a user calls it.
//!
//! Tokens go in by the environment and by standard input: the list of processes shows neither.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{fmt, io};

use crate::json::Json;

/// Seconds that a call may take.
const CALL_LIMIT: u32 = 30;
const TOKEN_VARIABLE: &str = "KEYLEDGER_INTEROP_TOKEN";

pub(crate) struct Grpcurl {
    program: PathBuf,
    address: String,
    token: Option<String>,
    /// Headers that are no secret.
    headers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct GrpcurlError {
    what: String,
    /// The gRPC status code as grpcurl names it, if the server answered with one.
    pub(crate) code: Option<String>,
    message: String,
}

impl Grpcurl {
    pub(crate) fn new(program: impl Into<PathBuf>, address: &str, token: Option<&str>) -> Grpcurl {
        Grpcurl {
            program: program.into(),
            address: address.to_owned(),
            token: token.map(str::to_owned),
            headers: Vec::new(),
        }
    }

    /// Calls as part of a trace, as a span of it would.
    pub(crate) fn in_trace(mut self, trace_id: &str, span_id: &str) -> Grpcurl {
        self.headers = vec![format!("traceparent: 00-{trace_id}-{span_id}-01")];
        self
    }

    /// The names of all services, one a line.
    pub(crate) fn list(&self) -> Result<String, GrpcurlError> {
        self.text(&["list"])
    }

    /// The definition of a service or message, with comments.
    pub(crate) fn describe(&self, symbol: &str) -> Result<String, GrpcurlError> {
        self.text(&["describe", symbol])
    }

    pub(crate) fn call(&self, method: &str, body: &str) -> Result<Json, GrpcurlError> {
        let output = self.run(CALL_LIMIT, &["-d", "@"], &[method], body)?;
        let error = |message: String| GrpcurlError {
            what: method.to_owned(),
            code: code_in(&output),
            message,
        };
        if !output.status.success() {
            return Err(error(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Json::parse(&String::from_utf8_lossy(&output.stdout)).map_err(error)
    }

    /// All replies that arrive within some seconds. A stream that goes on after that is no error.
    pub(crate) fn stream(
        &self,
        method: &str,
        body: &str,
        seconds: u32,
    ) -> Result<Vec<Json>, GrpcurlError> {
        let output = self.run(seconds, &["-d", "@"], &[method], body)?;
        let code = code_in(&output);
        let error =
            |message: String| GrpcurlError { what: method.to_owned(), code: code.clone(), message };
        if !output.status.success() && code.as_deref() != Some("DeadlineExceeded") {
            return Err(error(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Json::parse_all(&String::from_utf8_lossy(&output.stdout)).map_err(error)
    }

    fn text(&self, words: &[&str]) -> Result<String, GrpcurlError> {
        let output = self.run(CALL_LIMIT, &[], words, "")?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(GrpcurlError {
                what: words.join(" "),
                code: code_in(&output),
                message: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }

    fn run(
        &self,
        seconds: u32,
        flags: &[&str],
        words: &[&str],
        input: &str,
    ) -> Result<Output, GrpcurlError> {
        let mut command = Command::new(&self.program);
        command.args(["-plaintext", "-max-time", &seconds.to_string()]).args(flags);
        if let Some(token) = &self.token {
            command.env(TOKEN_VARIABLE, token);
            command.args([
                "-expand-headers",
                "-H",
                &format!("authorization: Bearer ${{{TOKEN_VARIABLE}}}"),
            ]);
        }
        for header in &self.headers {
            command.args(["-H", header]);
        }
        command.arg(&self.address).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        feed(&mut command, input).map_err(|error| GrpcurlError {
            what: words.join(" "),
            code: None,
            message: format!("cannot run grpcurl: {error}"),
        })
    }
}

fn feed(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // Our bodies fit into a pipe: this can't block. A grpcurl that has ended by now says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// From the lines `ERROR:\n  Code: Unauthenticated\n  Message: …` that grpcurl writes.
fn code_in(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().find_map(|line| Some(line.trim().strip_prefix("Code: ")?.to_owned()))
}

impl fmt::Display for GrpcurlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpcurl {}: {}", self.what, self.message.trim())
    }
}
