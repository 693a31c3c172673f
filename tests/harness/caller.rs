//! A caller: a connection and a token. What it sends and gets is noted as secret where it is.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use keyledger_proto::{RecordEventStreamRequest, RecordEventStreamResponse, methods};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::rpc::{Rpc, StreamRpc};
use super::secrets::Secrets;

/// Raw events come with their whole page.
const LARGEST_REPLY: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct Caller {
    channel: Channel,
    secrets: Arc<Secrets>,
    headers: Vec<(&'static str, String)>,
}

impl Caller {
    /// Without a token.
    pub(super) fn new(channel: Channel, secrets: Arc<Secrets>) -> Caller {
        Caller { channel, secrets, headers: vec![] }
    }

    /// With one more header, as it is.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Caller {
        let mut caller = self.clone();
        caller.headers.push((name, value.into()));
        caller
    }

    /// With a token in place of its own.
    pub(crate) fn with_token(&self, token: &str) -> Caller {
        self.secrets.token(token);
        let mut caller = self.clone();
        caller.headers.retain(|(name, _)| *name != "authorization");
        caller.with_header("authorization", &format!("Bearer {token}"))
    }

    /// A call with one reply.
    pub(crate) async fn call<R: Rpc>(&self, message: R) -> Result<R::Reply, Status> {
        let descriptor = descriptor(R::PATH);
        self.secrets.request(descriptor.input(), &message.encode_to_vec());
        let codec = ProstCodec::<R, R::Reply>::default();
        let mut grpc = self.grpc().await?;
        let reply = grpc.unary(self.request(message), path(R::PATH), codec).await?.into_inner();
        self.secrets.reply(descriptor.output(), &reply.encode_to_vec());
        Ok(reply)
    }

    /// A call with a stream of replies.
    pub(crate) async fn stream<R: StreamRpc>(
        &self,
        message: R,
    ) -> Result<Streaming<R::Reply>, Status> {
        let codec = ProstCodec::<R, R::Reply>::default();
        let request = self.request(message);
        let mut grpc = self.grpc().await?;
        let replies = grpc.server_streaming(request, path(R::PATH), codec).await?;
        Ok(replies.into_inner())
    }

    /// Opens a stream of events to record.
    pub(crate) async fn record_stream(
        &self,
        events: impl futures_util::Stream<Item = RecordEventStreamRequest> + Send + 'static,
    ) -> Result<Streaming<RecordEventStreamResponse>, Status> {
        let codec = ProstCodec::<RecordEventStreamRequest, RecordEventStreamResponse>::default();
        let path = path("/keyledger.v1.AuditService/RecordEventStream");
        let replies = self.grpc().await?.streaming(self.request(events), path, codec).await?;
        Ok(replies.into_inner())
    }

    /// Any bytes to any method: the first reply's bytes, whatever the method is.
    pub(crate) async fn raw(&self, method: &str, message: Bytes) -> Result<Bytes, Status> {
        if let Some(descriptor) = find_descriptor(method) {
            self.secrets.request(descriptor.input(), &message);
        }
        let request = self.request(message);
        let replies = self.grpc().await?.server_streaming(request, path(method), RawCodec).await?;
        let mut replies = replies.into_inner();
        let first = replies.message().await?;
        // It ends by itself, and leaves a use when it does.
        let ends = method.ends_with("/ExportEvents") || method.ends_with("/GetAccessReview");
        while ends && replies.message().await?.is_some() {}
        let first = first.ok_or_else(|| Status::data_loss("a reply without a message"))?;
        if let Some(descriptor) = find_descriptor(method) {
            self.secrets.reply(descriptor.output(), &first);
        }
        Ok(first)
    }

    /// Any bytes to any method: all replies until the server ends them, and how it ended.
    pub(crate) async fn raw_all(
        &self,
        method: &str,
        message: Bytes,
    ) -> (Vec<Bytes>, Option<Status>) {
        let mut all = vec![];
        let ended = async {
            let request = self.request(message);
            let replies =
                self.grpc().await?.server_streaming(request, path(method), RawCodec).await?;
            let mut replies = replies.into_inner();
            while let Some(reply) = replies.message().await? {
                all.push(reply);
            }
            Ok(())
        };
        let ended: Result<(), Status> = ended.await;
        (all, ended.err())
    }

    /// A call as grpcurl makes it: JSON in, JSON out.
    pub(crate) async fn json(&self, method: &str, message: &str) -> Result<Value, Status> {
        let path = format!("/keyledger.v1.{method}");
        let descriptor = descriptor(&path);
        let mut json = serde_json::Deserializer::from_str(message);
        let message = DynamicMessage::deserialize(descriptor.input(), &mut json);
        let message = message.expect("JSON that the method takes").encode_to_vec();
        let reply = self.raw(&path, message.into()).await?;
        let reply = DynamicMessage::decode(descriptor.output(), reply);
        let reply = reply.expect("a reply of the published form");
        Ok(serde_json::to_value(reply).expect("a message can be written as JSON"))
    }

    /// Begins a call and never sends its message.
    pub(crate) async fn without_body(&self, method: &str) -> Result<Bytes, Status> {
        let request = self.request(futures_util::stream::pending::<Bytes>());
        let mut grpc = self.grpc().await?;
        Ok(grpc.client_streaming(request, path(method), RawCodec).await?.into_inner())
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_REPLY);
        grpc.ready().await.map_err(|e| Status::unavailable(format!("no connection: {e}")))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            let name = AsciiMetadataKey::from_static(name);
            let value = AsciiMetadataValue::try_from(value).expect("a header of visible ASCII");
            request.metadata_mut().insert(name, value);
        }
        request
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(method).expect("a path of ours")
}

fn descriptor(path: &str) -> MethodDescriptor {
    find_descriptor(path).unwrap_or_else(|| panic!("{path} is not in the published protos"))
}

fn find_descriptor(path: &str) -> Option<MethodDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    methods::pool().get_service_by_name(service)?.methods().find(|m| m.name() == method)
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
