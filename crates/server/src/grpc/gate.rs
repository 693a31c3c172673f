//! The one place through which every call goes: admit, authenticate, decode, authorise, run, record. No handler does any of
//! it by hand.
//!
//! 1. **admit**: a bound on calls in flight; what is above it is shed and counted.
//! 2. **authenticate**: the token is looked at before the body is read. A bad one leaves a refused use.
//! 3. **decode and check** the message; what is wrong with it leaves a refused use.
//! 4. **authorise, run, record**: a read leaves its use before it reads (one of the log, which tells how much it gave, after it
//!    and before the answer); a change is authorised where it is decided, under
//!    the ledger's lock, and leaves its entry.

mod unary;

pub(crate) use unary::{collecting, unary};

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use http::request::Parts;
use keyledger_ledger::body::{DecisionReason, Texts};
use keyledger_ledger::command::{Action, Answer, Call, Command, Refusal};
use keyledger_ledger::id::LedgerNumber;
use keyledger_ledger::judge::{self, Credential, Identity};
use keyledger_ledger::state::{Key, Owner};
use keyledger_ledger::text::Sealed;
use keyledger_proto::methods::Method;
use keyledger_proto::parse::Violation;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::call::CallContext;
use super::deadline::deadline;
use super::ending::{Answers, Running};
use super::headers::{bearer, peer};
use super::status::Failure;
use crate::replica::{Replica, own_clock};
use crate::sealing::{About, random};
use crate::sequencer::{Ledger, SequencerError};
use crate::telemetry::{CallSpan, ContextReader, Known, Place};

pub(crate) type HttpRequest = http::Request<tonic::body::Body>;
pub(crate) type HttpResponse = http::Response<tonic::body::Body>;

/// Largest message that is read.
const MAX_MESSAGE: usize = 1 << 20;
/// Most calls at once of callers that this replica knows.
const MAX_IN_FLIGHT: usize = 4_096;
/// Most calls at once of callers that it doesn't: they can't take the places of those it does.
const MAX_STRANGERS: usize = 512;

/// Guards all methods of this server.
pub(crate) struct Gate {
    pub(crate) replica: Arc<Replica>,
    reader: ContextReader,
    in_flight: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// A call whose caller is known.
struct Arrival {
    ledger: Arc<Ledger>,
    credential: Credential,
    caller: Option<Arc<Key>>,
    span: CallSpan,
    peer: Option<IpAddr>,
    _in_flight: OwnedSemaphorePermit,
}

/// A handler behind the gate.
pub(crate) type Route = Arc<
    dyn Fn(Arc<Gate>, &'static Method, HttpRequest) -> BoxFuture<'static, super::Answer>
        + Send
        + Sync,
>;

/// Whether a call is recorded by the gate before its handler runs, or by the sequencer as part of what the handler asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// A read: its use is durable before it reads.
    Before,
    /// A read of the log: its use tells what was asked and how many events it gives, and is durable before the answer leaves.
    After,
    /// A stream of the log: its use tells what was asked; another one, when it ends, how many events it gave.
    Opened,
    /// A check of another key: its use is the verdict's.
    Verdict,
    /// A change: its entry, or the use that says why not.
    Change,
}

/// A reply that gives events of the log.
pub(crate) trait GivesEvents {
    fn events_given(&self) -> u64;
}

/// A method with one reply that gives events of the log.
pub(crate) fn reading<Req, Checked, Resp, Run, Fut>(
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + GivesEvents + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Resp, Failure>> + Send + 'static,
{
    unary(Recorded::After, check, move |context: CallContext, checked| {
        let run = run.clone();
        async move {
            let mut recorder = context.again();
            recorder.refuse_early().await?;
            let reply = or_recorded(&recorder, run(context, checked).await).await?;
            recorder.record_access(Some(reply.events_given())).await?;
            Ok(reply)
        }
    })
}

/// A method with a stream of replies that gives events of the log. Its handler records the end of the stream.
pub(crate) fn opening<Req, Checked, Resp, Run, Fut, Replies>(
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Replies, Failure>> + Send + 'static,
    Replies: tokio_stream::Stream<Item = Result<Resp, Status>> + Send + 'static,
{
    streaming(Recorded::Opened, check, move |context: CallContext, checked| {
        let run = run.clone();
        async move {
            let recorder = context.again();
            or_recorded(&recorder, run(context, checked).await).await
        }
    })
}

/// That a read of the log failed after it was let in is recorded as a refusal.
async fn or_recorded<T>(recorder: &CallContext, result: Result<T, Failure>) -> Result<T, Failure> {
    if let Err(failure) = &result {
        recorder.refuse(failure.recorded_reason()).await?;
    }
    result
}

/// A method with a stream of replies. The handler's stream begins after the call is recorded.
pub(crate) fn streaming<Req, Checked, Resp, Run, Fut, Replies>(
    recorded: Recorded,
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Replies, Failure>> + Send + 'static,
    Replies: tokio_stream::Stream<Item = Result<Resp, Status>> + Send + 'static,
{
    route(recorded, Answers::Many, move |gate, method, arrival, request| {
        let decoded = Arc::new(AtomicBool::new(false));
        let service =
            decoding(gate, method, arrival, recorded, check, run.clone(), decoded.clone());
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Resp, Req>::default())
            .apply_max_message_size_config(Some(MAX_MESSAGE), None);
        Box::pin(async move {
            (grpc.server_streaming(service, request).await, decoded.load(Ordering::Relaxed))
        })
    })
}

/// A method with a stream of messages and a stream of replies. What each message asks is authorised and recorded by what the
/// handler asks of the sequencer.
pub(crate) fn exchanging<Req, Resp, Run, Fut, Replies>(run: Run) -> Route
where
    Req: Message + Default + 'static,
    Resp: Message + Default + 'static,
    Run: Fn(CallContext, Streaming<Req>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Replies, Failure>> + Send + 'static,
    Replies: tokio_stream::Stream<Item = Result<Resp, Status>> + Send + 'static,
{
    route(Recorded::Verdict, Answers::Many, move |gate, method, arrival, request| {
        let run = run.clone();
        let service = tower::service_fn(move |messages: Request<Streaming<Req>>| {
            let (gate, arrival, run) = (gate.clone(), arrival.clone(), run.clone());
            Box::pin(async move {
                let check = |_: Req| Ok(());
                let opened = move |context, ()| run(context, messages.into_inner());
                let recorded = Recorded::Verdict;
                let work = gate.pass(method, &arrival, Req::default(), recorded, check, opened);
                work.await.map(Response::new).map_err(Status::from)
            })
        });
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Resp, Req>::default())
            .apply_max_message_size_config(Some(MAX_MESSAGE), None);
        Box::pin(async move { (grpc.streaming(service, request).await, true) })
    })
}

/// Response, and whether the message could be decoded.
type Served = BoxFuture<'static, (HttpResponse, bool)>;

/// Steps 1 and 2, then what `serve` does; and the call's end, however it comes.
fn route(
    recorded: Recorded,
    answers: Answers,
    serve: impl Fn(Arc<Gate>, &'static Method, Arc<Arrival>, HttpRequest) -> Served
    + Clone
    + Send
    + Sync
    + 'static,
) -> Route {
    Arc::new(move |gate, method, request| {
        let serve = serve.clone();
        let running = gate.running(&method.path[1..], &request);
        let span = running.span().clone();
        let end = Instant::now() + deadline(request.headers());
        let work = async move {
            let (head, body) = request.into_parts();
            let arrival = match gate.admit(method, &head, span).await {
                Ok(arrival) => Arc::new(arrival),
                Err(failure) => return Status::from(failure).into_http(),
            };
            let request = HttpRequest::from_parts(head, body);
            match serve(gate.clone(), method, arrival.clone(), request).await {
                (response, true) => response,
                (response, false) => {
                    Box::pin(gate.refuse_undecoded(method, &arrival, response)).await
                }
            }
        };
        // In its place before it is wrapped: a future is as large as all that it may wait for.
        let work = Box::pin(work);
        // One limit for all steps: also for a body that doesn't come.
        let limited = async move {
            let late = Failure::Deadline { changing: recorded == Recorded::Change };
            let response = tokio::time::timeout_at(end, work).await;
            let response = response.unwrap_or_else(|_| Status::from(late).into_http());
            Ok(running.answered(response, answers))
        };
        Box::pin(limited)
    })
}

/// Steps 3 and 4, once the message is decoded.
fn decoding<Req, Checked, Out, Run, Fut>(
    gate: Arc<Gate>,
    method: &'static Method,
    arrival: Arc<Arrival>,
    recorded: Recorded,
    check: fn(Req) -> Result<Checked, Vec<Violation>>,
    run: Run,
    decoded: Arc<AtomicBool>,
) -> impl tower::Service<Request<Req>, Response = Response<Out>, Error = Status, Future: Send> + Send
where
    Req: Message + 'static,
    Out: 'static,
    Checked: Send + 'static,
    Run: Fn(CallContext, Checked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Out, Failure>> + Send + 'static,
{
    tower::service_fn(move |message: Request<Req>| {
        decoded.store(true, Ordering::Relaxed);
        let (gate, arrival, run) = (gate.clone(), arrival.clone(), run.clone());
        // In a place of its own: tonic moves the future about.
        Box::pin(async move {
            let work = gate.pass(method, &arrival, message.into_inner(), recorded, check, run);
            work.await.map(Response::new).map_err(Status::from)
        })
    })
}

impl Gate {
    pub(crate) fn new(replica: Arc<Replica>, reader: ContextReader) -> Gate {
        Gate {
            replica,
            reader,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        }
    }

    /// A call begins. `name` is `_OTHER` if there is no such method.
    pub(super) fn running(&self, name: &'static str, request: &HttpRequest) -> Running {
        Running::begin(name, request.headers(), peer(request.extensions()), &self.reader)
    }

    /// Bounds what is in flight and finds out who calls, from the headers alone.
    async fn admit(
        &self,
        method: &'static Method,
        request: &Parts,
        span: CallSpan,
    ) -> Result<Arrival, Failure> {
        if method.open {
            return self.admit_stranger(request, span);
        }
        let mut credential = bearer(&request.headers);
        let number = credential.key_id().map_or(LedgerNumber::SYSTEM, |id| id.ledger());
        let known = self.replica.started(number);
        let caller = known.as_ref().and_then(|ledger| self.known_caller(ledger, &mut credential));
        let permit =
            self.permit(if caller.is_some() { &self.in_flight } else { &self.strangers })?;
        // A token of a ledger that doesn't exist is refused, and recorded, by ledger 0.
        let ledger = match known {
            Some(ledger) => ledger,
            None => {
                let found = Box::pin(self.replica.ledger(number)).await?;
                found.unwrap_or_else(|| self.replica.system.clone())
            }
        };
        let peer = peer(&request.extensions);
        let mut arrival = Arrival { ledger, credential, caller, span, peer, _in_flight: permit };
        if arrival.caller.is_none() {
            let span = arrival.span.clone();
            span.make(Known { caller: arrival.credential.key_id(), key: None });
            let work = Box::pin(self.authenticate_under_lock(method, &mut arrival));
            span.around(work).await?;
        }
        Ok(arrival)
    }

    /// A caller that needs no token. What is wrong with its message is recorded by ledger 0.
    fn admit_stranger(&self, request: &Parts, span: CallSpan) -> Result<Arrival, Failure> {
        Ok(Arrival {
            ledger: self.replica.system.clone(),
            credential: Credential::Internal,
            caller: None,
            span,
            peer: peer(&request.extensions),
            _in_flight: self.permit(&self.strangers)?,
        })
    }

    /// The caller, if this replica knows the key and it stands.
    fn known_caller(&self, ledger: &Ledger, credential: &mut Credential) -> Option<Arc<Key>> {
        let head = ledger.snapshot();
        match credential.identify(&head.state, &self.replica.keys.peppers) {
            Identity::Known { key_id, version } => {
                let key = head.state.keys.get(&key_id)?;
                judge::standing(key, version, own_clock()).is_ok().then(|| key.clone())
            }
            Identity::Internal | Identity::System(_) | Identity::Unknown { .. } => None,
        }
    }

    fn permit(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
        places.clone().try_acquire_owned().map_err(|_| {
            self.replica.system.count_shed();
            SequencerError::Overloaded.into()
        })
    }

    /// This replica may only be behind: what it doesn't accept is asked again under the lock, and recorded if refused.
    async fn authenticate_under_lock(
        &self,
        method: &'static Method,
        arrival: &mut Arrival,
    ) -> Result<(), Failure> {
        let call = self.call(method, arrival, String::new()).await?;
        let command =
            Command { call: Call { permission: "", ..call }, action: Action::Authenticate };
        match arrival.ledger.submit(command).await? {
            Answer::Allowed { caller } => {
                arrival.caller = caller;
                let head = arrival.ledger.snapshot();
                arrival.credential.identify(&head.state, &self.replica.keys.peppers);
                Ok(())
            }
            _ => Err(Refusal::Unauthenticated.into()),
        }
    }

    /// Checks the message, records what must be recorded before, and runs the handler.
    async fn pass<Req, Checked, Resp, Run, Fut>(
        &self,
        method: &'static Method,
        arrival: &Arrival,
        message: Req,
        recorded: Recorded,
        check: fn(Req) -> Result<Checked, Vec<Violation>>,
        run: Run,
    ) -> Result<Resp, Failure>
    where
        Req: Message,
        Run: FnOnce(CallContext, Checked) -> Fut,
        Fut: Future<Output = Result<Resp, Failure>>,
    {
        self.make_span(method, arrival, &message);
        // Whatever leads up to a handler has its own place, and is gone when the handler waits: thousands of calls may.
        let ready = Box::pin(async move {
            let (mut context, checked) =
                self.checked(method, arrival, message, recorded, check).await?;
            match recorded {
                Recorded::Before => context.record_read().await?,
                Recorded::Opened => context.record_access(None).await?,
                Recorded::After | Recorded::Verdict | Recorded::Change => {}
            }
            Ok::<_, Failure>(Box::pin(run(context, checked)))
        });
        let work = async move { ready.await?.await };
        arrival.span.around(work).await
    }

    /// Now it is known what the call is about.
    fn make_span<Req: Message>(&self, method: &Method, arrival: &Arrival, message: &Req) {
        if !arrival.span.is_wanted() {
            return;
        }
        let key = method.key_id(message);
        arrival.span.make(Known { caller: arrival.credential.key_id(), key });
        if let (Some(noted), Some(id)) = (arrival.span.noted(), key)
            && let Some(key) = arrival.ledger.snapshot().state.keys.get(&id)
        {
            noted.named(Place::of(&arrival.ledger), key);
        }
    }

    /// The message as the handler takes it. One that doesn't hold is recorded as refused.
    async fn checked<Req: Message, Checked>(
        &self,
        method: &'static Method,
        arrival: &Arrival,
        message: Req,
        recorded: Recorded,
        check: fn(Req) -> Result<Checked, Vec<Violation>>,
    ) -> Result<(CallContext, Checked), Failure> {
        let call = self.call(method, arrival, method.resource(&message)).await?;
        let mut context = CallContext::new(
            self.replica.clone(),
            arrival.ledger.clone(),
            arrival.caller.clone(),
            call,
        );
        match recorded {
            Recorded::Change => context.digest_request(&message),
            Recorded::After | Recorded::Opened => context.set_asked(method.asked(&message)),
            Recorded::Before | Recorded::Verdict => {}
        }
        match check(message) {
            Ok(checked) => Ok((context, checked)),
            Err(violations) => {
                context.refuse(DecisionReason::InvalidRequest).await?;
                Err(violations.into())
            }
        }
    }

    /// A body that could not be decoded, or was too large, is recorded like any other refusal.
    async fn refuse_undecoded(
        &self,
        method: &'static Method,
        arrival: &Arrival,
        response: HttpResponse,
    ) -> HttpResponse {
        let too_large =
            response.headers().get("grpc-status").is_some_and(|s| s == "11" || s == "8");
        let failure = if too_large { Failure::MessageTooLarge } else { Failure::MalformedMessage };
        let recorded = async {
            let call = self.call(method, arrival, String::new()).await?;
            let call = Call { permission: "", ..call };
            let context = CallContext::new(
                self.replica.clone(),
                arrival.ledger.clone(),
                arrival.caller.clone(),
                call,
            );
            context.refuse(DecisionReason::InvalidRequest).await
        };
        arrival.span.make(Known { caller: arrival.credential.key_id(), key: None });
        let recorded = arrival.span.around(recorded).await;
        Status::from(recorded.err().unwrap_or(failure)).into_http()
    }

    async fn call(
        &self,
        method: &'static Method,
        arrival: &Arrival,
        resource: String,
    ) -> Result<Call, Failure> {
        Ok(Call {
            credential: arrival.credential.clone(),
            method: &method.name,
            permission: &method.permission,
            resource,
            trace: arrival.span.trace(),
            peer: arrival.peer,
            request: None,
            unseen: None,
            texts: self.caller_texts(method, arrival).await?,
            salt: random(),
        })
    }

    /// Where the call came from, sealed under the key of the person who called.
    async fn caller_texts(
        &self,
        method: &'static Method,
        arrival: &Arrival,
    ) -> Result<Vec<Sealed>, Failure> {
        // VerifyKey is asked by services all day: what it records is the client that they name.
        let Some(peer) = arrival.peer.filter(|_| method.name != "KeyService/VerifyKey") else {
            return Ok(vec![]);
        };
        let about = match arrival.caller.as_ref().map(|key| &key.owner) {
            Some(Owner::User(reference)) => About::Reference(*reference),
            Some(Owner::Service(_)) | None => About::Nobody,
        };
        let key = self.replica.sealing.data_key(arrival.ledger.id, about, own_clock()).await?;
        let texts = Texts { peer_address: peer.to_string(), ..Texts::default() };
        Ok(vec![key.seal(arrival.ledger.id, &texts)])
    }
}
