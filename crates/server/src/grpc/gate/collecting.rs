//! A method that collectors call: its messages may be compressed. The bound of a message holds for what it is inflated to.

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
    let recorded = Recorded::Verdict;
    let mut gzip = EnabledCompressionEncodings::default();
    gzip.enable(CompressionEncoding::Gzip);
    route(recorded, Answers::One, move |gate, method, arrival, request| {
        let decoded = Arc::new(AtomicBool::new(false));
        let service =
            decoding(gate, method, arrival, recorded, check, run.clone(), decoded.clone());
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Resp, Req>::default())
            .apply_compression_config(gzip, EnabledCompressionEncodings::default())
            .apply_max_message_size_config(Some(MAX_MESSAGE), None);
        Box::pin(
            async move { (grpc.unary(service, request).await, decoded.load(Ordering::Relaxed)) },
        )
    })
}
