//! Methods with one message and one reply. Those that collectors call take compressed messages; the bound of a message holds for
//! what it is inflated to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger_proto::parse::Violation;
use prost::Message;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};
use tonic_prost::ProstCodec;

use super::{MAX_MESSAGE, Recorded, Route, decoding, route};
use crate::grpc::call::CallContext;
use crate::grpc::ending::Answers;
use crate::grpc::status::Failure;

/// A method with one reply.
pub(crate) fn unary<Req, Checked, Resp, Run, Fut>(
    recorded: Recorded,
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Resp, Failure>> + Send + 'static,
{
    one_reply(recorded, EnabledCompressionEncodings::default(), check, run)
}

/// A method with one reply that takes gzip. What it asks is authorised and recorded by what its handler asks of the sequencer.
pub(crate) fn collecting<Req, Checked, Resp, Run, Fut>(
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Resp, Failure>> + Send + 'static,
{
    let mut gzip = EnabledCompressionEncodings::default();
    gzip.enable(CompressionEncoding::Gzip);
    one_reply(Recorded::Verdict, gzip, check, run)
}

fn one_reply<Req, Checked, Resp, Run, Fut>(
    recorded: Recorded,
    accepted: EnabledCompressionEncodings,
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Resp, Failure>> + Send + 'static,
{
    route(recorded, Answers::One, move |gate, method, arrival, request| {
        let decoded = Arc::new(AtomicBool::new(false));
        let service =
            decoding(gate, method, arrival, recorded, check, run.clone(), decoded.clone());
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Resp, Req>::default())
            .apply_compression_config(accepted, EnabledCompressionEncodings::default())
            .apply_max_message_size_config(Some(MAX_MESSAGE), None);
        Box::pin(
            async move { (grpc.unary(service, request).await, decoded.load(Ordering::Relaxed)) },
        )
    })
}
