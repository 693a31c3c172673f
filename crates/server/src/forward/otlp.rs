//! Log records of OpenTelemetry, by OTLP over gRPC: each entry and each use, in order, and at the end of each export the checkpoint
//! that covers them.
//!
//! - `record`: what a log record says.
//! - `message`: the request.
//!
//! Only what a checkpoint covers is sent, so one that closes an export always covers it. A ledger that grows gets one each second:
//! so long does the newest entry wait at most, and a whole second's entries leave without waiting again.
//!
//! An export was taken when the collector says so. Records that it rejects by themselves (`partial_success`) are not sent again,
//! as the specification asks: that is said in the log. Everything else is a failure, and is sent again until it is taken, also where the
//! specification would let us drop it: `RetryInfo` says when.

mod message;
mod record;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::category;
use keyledger_proto::parse::EventFilter;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::Failed;
use super::connect::Destination;
use super::reader::Batch;
use crate::grpc::{Failure, damaged};
use crate::sequencer::Ledger;
use crate::store::entries::FullEntry;
use crate::telemetry;
use record::{Mapping, Read, uses_of};

/// Most records of one export, and most bytes of them; one may be larger.
pub(super) const MAX_RECORDS: usize = 1_024;
pub(super) const MAX_BYTES: usize = 2 << 20;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// Most bytes of what a collector says of records that it rejects.
const MAX_SAID: usize = 256;
/// A connection on which nothing is heard for so long is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A collector.
pub(super) struct Otlp {
    reached: Reached,
    headers: MetadataMap,
    gzip: bool,
    /// Kept from one export to the next, until one fails: then the host is resolved and judged again.
    connection: Mutex<Option<Channel>>,
}

/// Gives up a connection at its end, unless it was good.
struct GivenUp<'a>(Option<&'a Mutex<Option<Channel>>>);

impl GivenUp<'_> {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.lock().expect("no holder of this lock panics").take();
        }
    }
}

/// How a collector is reached.
enum Reached {
    /// As a configuration says: its addresses are judged. Host and port as they stand in the URL.
    Judged(Arc<Destination>, String),
    /// As the operator's own variables say, wherever that is.
    Trusted(telemetry::config::Otlp),
}

impl Otlp {
    pub(super) fn new(
        destination: Destination,
        authority: String,
        headers: MetadataMap,
        gzip: bool,
    ) -> Otlp {
        let reached = Reached::Judged(Arc::new(destination), authority);
        Otlp { reached, headers, gzip, connection: Mutex::default() }
    }

    pub(super) fn of_operator(to: telemetry::config::Otlp) -> Otlp {
        let (headers, gzip) = (to.metadata(), to.gzip);
        Otlp { reached: Reached::Trusted(to), headers, gzip, connection: Mutex::default() }
    }

    /// Returns once the collector has taken the records.
    pub(super) async fn send(
        &self,
        ledger_id: Uuid,
        resource: &Resource,
        batch: &mut Batch,
    ) -> Result<(), Failed> {
        let mut records = std::mem::take(&mut batch.events);
        let closing = batch.checkpoint.as_ref();
        records.extend(closing.map(|c| record::checkpoint(ledger_id, c).encode_to_vec()));
        // Also when nobody waits any longer: a connection on which nothing is heard must not be used again.
        let given_up = GivenUp(Some(&self.connection));
        let answer = self.export(message::export(resource, records)).await?;
        given_up.not();
        say_rejected(&answer, batch);
        Ok(())
    }

    async fn export(&self, export: message::Export) -> Result<ExportLogsServiceResponse, Failed> {
        let mut grpc = tonic::client::Grpc::new(self.channel()?);
        if self.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        grpc = grpc.accept_compressed(CompressionEncoding::Gzip);
        grpc = grpc.max_decoding_message_size(MAX_ANSWER);
        let mut request = Request::new(export);
        *request.metadata_mut() = self.headers.clone();
        grpc.ready().await.map_err(|error| {
            let text = of_destination(&error);
            Failed::new(text.unwrap_or_else(|| "the connection failed".into()))
        })?;
        let path =
            PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        let codec = ProstCodec::<message::Export, ExportLogsServiceResponse>::default();
        let answer = grpc.unary(request, path, codec).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| judge(&status))
    }

    fn channel(&self) -> Result<Channel, Failed> {
        let mut kept = self.connection.lock().expect("no holder of this lock panics");
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        let channel = match &self.reached {
            Reached::Judged(destination, authority) => judged(destination.clone(), authority),
            Reached::Trusted(to) => to.channel().ok(),
        };
        let channel = channel.ok_or_else(|| Failed::new("the endpoint can't be used"))?;
        *kept = Some(channel.clone());
        Ok(channel)
    }
}

/// A connection that is made when it is needed. TLS is ours: to tonic it is a plain one, and the origin says what it is.
fn judged(destination: Arc<Destination>, authority: &str) -> Option<Channel> {
    let scheme = if destination.tls.is_some() { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{authority}").parse().ok()?;
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).ok()?.origin(origin);
    let endpoint = endpoint
        .user_agent(concat!("keyledger/", env!("CARGO_PKG_VERSION")))
        .ok()?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let connector = tower::service_fn(move |_: Uri| {
        let destination = destination.clone();
        async move { destination.connect().await.map(TokioIo::new) }
    });
    Some(endpoint.connect_with_connector_lazy(connector))
}

/// Who sends.
pub(super) fn resource(attributes: Vec<(String, String)>) -> Resource {
    Resource { attributes: record::texts(attributes), ..Resource::default() }
}

/// Records that the collector took, and doesn't keep. Sending them again would not help.
fn say_rejected(answer: &ExportLogsServiceResponse, batch: &Batch) {
    let Some(partial) = &answer.partial_success else { return };
    let why = &partial.error_message;
    let why = &why[..why.floor_char_boundary(MAX_SAID)];
    if partial.rejected_log_records > 0 {
        let (rejected, from) = (partial.rejected_log_records, batch.first.position);
        tracing::warn!(rejected, from, why, "a collector rejected log records for good");
    }
}

fn judge(status: &Status) -> Failed {
    let unreached = || {
        let cause = innermost(status.source()?);
        Some(format!("the collector can't be reached: {cause}"))
    };
    let answered = || {
        let code = status.code();
        format!("the collector answered {code:?}: {}", code.description())
    };
    Failed {
        text: of_destination(status).or_else(unreached).unwrap_or_else(answered),
        retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
    }
}

/// What began it: a connection that was refused, TLS that the other side doesn't speak.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error.source().map_or(error, innermost)
}

/// What was said of the destination, if that is the cause.
fn of_destination(error: &(dyn Error + 'static)) -> Option<String> {
    match error.downcast_ref::<Failed>() {
        Some(failed) => Some(failed.text.clone()),
        None => of_destination(error.source()?),
    }
}

/// The log records of an entry that a filter means, each with its index in the page and encoded.
pub(super) fn records_of(
    ledger: &Ledger,
    categories: &[String],
    filter: &EventFilter,
    entry: &FullEntry,
) -> Result<Vec<(u32, Vec<u8>)>, Failure> {
    let unreadable = || damaged(entry.position);
    let event = Event::from_signed(&entry.entry.body).map_err(|_| unreadable())?;
    let head = ledger.snapshot();
    let mapping = Mapping { ledger_id: ledger.id, state: &head.state };
    let read = Read::new(entry, &event);
    let wants = |category: &str| categories.is_empty() || categories.iter().any(|c| c == category);
    let Some(Kind::UsePage(page)) = &event.kind else {
        let meant = wants(category::of_entry(&event)) && filter.may_match_entry(&event);
        let record = meant.then(|| (0, mapping.entry(&read).encode_to_vec()));
        return Ok(record.into_iter().collect());
    };
    let uses = uses_of(page, &entry.uses).ok_or_else(unreadable)?;
    let meant = uses
        .iter()
        .enumerate()
        .filter(|(_, (u, _))| wants(category::of_use(page, u)) && filter.may_match_use(u));
    let record =
        |(index, found)| (index as u32, mapping.r#use(&read, page, index, found).encode_to_vec());
    Ok(meant.map(record).collect())
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_failure_names_the_code_and_waits_as_long_as_the_collector_asks() {
        let asked = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let busy = Status::with_error_details(Code::ResourceExhausted, "of alice", asked);
        let failed = judge(&busy);
        assert_eq!(failed.retry_after, Some(Duration::from_secs(7)));
        assert!(failed.text.starts_with("the collector answered ResourceExhausted: "));
        assert!(!failed.text.contains("alice"), "what a collector says is not shown");
        // It would let us drop what it can't take: we don't.
        let wrong = judge(&Status::new(Code::InvalidArgument, ""));
        assert_eq!(wrong.retry_after, None);
    }

    #[test]
    fn what_is_wrong_with_the_destination_is_said_itself() {
        let why = "the host resolves to a private address";
        let caused = Status::from_error(Box::new(Failed::new(why)));
        assert_eq!(judge(&caused).text, why);
    }
}
