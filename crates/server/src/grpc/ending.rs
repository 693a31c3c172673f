//! When a call has really ended, and how: with the status in the headers or the trailers of its answer, or without one,
//! because its client went away.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::gate::HttpResponse;
use crate::telemetry::{CallSpan, ContextReader};

/// Whether an answer is one message or a stream of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    One,
    Many,
}

/// A call that runs. Dropped before it was answered, it has ended as cancelled.
pub(super) struct Running {
    method: &'static str,
    began: Instant,
    span: CallSpan,
    over: bool,
}

impl Running {
    /// `method` is its name without the slash at its beginning.
    pub(super) fn begin(
        method: &'static str,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        reader: &ContextReader,
    ) -> Running {
        let span = CallSpan::arrived(method, headers, peer, reader);
        Running { method, began: Instant::now(), span, over: false }
    }

    pub(super) fn span(&self) -> &CallSpan {
        &self.span
    }

    /// The answer. A stream is watched until its status has left; that of one message can only be OK.
    pub(super) fn answered(mut self, response: HttpResponse, answers: Answers) -> HttpResponse {
        match (code_in(response.headers()), answers) {
            (Some(code), _) => self.end(code),
            (None, Answers::One) => self.end(Code::Ok),
            (None, Answers::Many) => {
                return response
                    .map(|body| tonic::body::Body::new(Watched { body, call: Some(self) }));
            }
        }
        response
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            ended(self.method, code, self.began.elapsed(), &self.span);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Every call ends here, once. `method` is `_OTHER` if there is no such method.
fn ended(_method: &'static str, code: Code, _elapsed: Duration, span: &CallSpan) {
    span.end(code);
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// The body of a stream: its status comes last.
struct Watched {
    body: tonic::body::Body,
    call: Option<Running>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let code = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(code_in),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(mut call) = self.call.take()
        {
            call.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
