//! The client crate before services of others: who passes, what the others are told, nobody while Keyledger is away; and a
//! recorder whose events are each recorded once, whatever is killed meanwhile.

mod kept;
mod road;
pub(crate) mod services;

use axum::body::Body;
use futures_util::future::join_all;
use keyledger_client::{
    Access, Ask, CallError, Client, Config, ConnectError, Guard, GuardConfig, GuardLayer,
    RecordError, Recorder, RecorderConfig, Verified,
};
use keyledger_proto::entry::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::Code;
use tonic_types::StatusExt;
use tower::Layer;

use crate::harness::*;
use road::Road;
use services::{Texts, ask, bearer, get, serve_grpc, serve_http, with_token};

/// The key of a service that checks keys, and says why one is not valid.
async fn checker(replica: &Replica) -> CreateKeyResponse {
    let grants = vec![grant("keys.verify", "keys"), grant("keys.explain", "keys")];
    replica.admin().call(service_key("shop/gateway", grants)).await.unwrap()
}

fn guard(endpoint: &str, token: &str, config: GuardConfig) -> Guard {
    Guard::new(Client::lazy(Config::new(endpoint, token)).unwrap(), config)
}

/// `/logs/error` needs `audit.read` on `logs/error`; a gRPC method on `logs/error`.
fn layer(guard: &Guard) -> GuardLayer {
    GuardLayer::new(guard.clone(), |call| match call.uri.path() {
        "/health" => Access::Open,
        services::METHOD => Access::Needs(Ask::new("audit.read", "logs/error")),
        path if path.starts_with("/logs/") => {
            Access::Needs(Ask::new("audit.read", path.trim_start_matches('/')))
        }
        _ => Access::Nobody,
    })
    .address(|_| Some([203, 0, 113, 7].into()))
}

async fn tonic_service(guard: &Guard) -> String {
    let texts = Texts::new(|request| async move {
        let verified: Verified = request.extensions().get().cloned().expect("the layer has passed");
        Ok(verified.key_id)
    });
    serve_grpc(layer(guard).layer(texts)).await
}

async fn axum_service(guard: &Guard) -> String {
    serve_http(layer(guard), |request| {
        let verified: Option<Verified> = request.extensions().get().cloned();
        Box::pin(async move {
            let key_id = verified.map_or("nobody".into(), |verified| verified.key_id);
            axum::response::Response::new(Body::from(key_id))
        })
    })
    .await
}

/// The uses of a key since a mark, by what was checked.
async fn verdicts(d: &Deployment, mark: &Mark, key_id: &str) -> Vec<(Decision, DecisionReason)> {
    let key_id = uuid::Uuid::parse_str(key_id).unwrap();
    let records = d.since(mark).await.into_values().flatten();
    let uses = records.filter_map(|record| match record {
        Record::Use { r#use, .. } if r#use.key_id == key_id.as_bytes() => Some(verdict(&r#use)),
        _ => None,
    });
    uses.collect()
}

#[test]
fn a_tonic_service_lets_through_whom_it_should_and_tells_others_no_more_than_it_must() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let other = service_key("other", vec![grant("audit.read", "logs/payroll")]);
        let other = replica.admin().call(other).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let guard = guard(
            &format!("http://{}", replica.address),
            &checker(&replica).await.token,
            GuardConfig::default(),
        );
        let service = tonic_service(&guard).await;
        let mark = d.mark().await;

        assert_eq!(ask(&service, with_token("a", &made.token)).await.unwrap(), key_id);
        let lacking = ask(&service, with_token("a", &other.token)).await.unwrap_err();
        assert_eq!(lacking.code(), Code::PermissionDenied);
        replica.admin().call(revoke(&key_id)).await.unwrap();
        let revoked = ask(&service, with_token("a", &made.token)).await.unwrap_err();
        let nobody = ask(&service, with_token("a", "klk_of-nobody")).await.unwrap_err();
        let without = ask(&service, tonic::Request::new("a".into())).await.unwrap_err();
        let long = ask(&service, with_token("a", &"x".repeat(257))).await.unwrap_err();
        for status in [&revoked, &nobody, &without, &long] {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(status.message(), without.message(), "the same for all causes");
        }
        assert_eq!(
            verdicts(d, &mark, &key_id).await,
            [(Decision::Allow, DecisionReason::Granted), (Decision::Deny, DecisionReason::Revoked)]
        );
    });
}

#[test]
fn an_axum_service_is_told_who_calls_and_answers_as_rfc_6750_says() {
    scenario(async |d| {
        let replica = d.replica().await;
        let mut request = user_key("alice@example.com");
        request.restrictions = Some(entry::Restrictions {
            networks: vec!["203.0.113.0/24".into()],
            ..entry::Restrictions::default()
        });
        let made = replica.admin().call(request).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let guard = guard(
            &format!("http://{}", replica.address),
            &checker(&replica).await.token,
            GuardConfig::default(),
        );
        let service = axum_service(&guard).await;
        let head = bearer(&made.token);
        let allowed = get(&service, "/logs/error", &head).await;
        assert!(allowed.status == 200 && allowed.body.contains(&key_id), "{allowed:?}");
        let open = get(&service, "/health", "").await;
        assert!(open.status == 200 && open.body.contains("nobody"), "{open:?}");
        let lacking = get(&service, "/logs/payroll", &head).await;
        assert!(lacking.head.contains(r#"www-authenticate: bearer error="insufficient_scope""#));
        let without = get(&service, "/logs/error", "").await;
        assert!(without.head.contains("www-authenticate: bearer\r\n"), "{without:?}");
        let unknown = get(&service, "/logs/error", &bearer("klk_of-nobody")).await;
        assert!(unknown.head.contains(r#"bearer error="invalid_token""#), "{unknown:?}");
        let nobody = get(&service, "/else", &head).await;
        let strange = get(&service, &format!("/logs/{}", "x".repeat(600)), &head).await;
        assert_eq!(
            [&lacking, &without, &unknown, &nobody, &strange].map(|told| told.status),
            [403, 401, 401, 403, 403]
        );
    });
}

#[test]
fn nobody_passes_while_keyledger_is_away_or_the_service_may_not_ask() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let may_not = replica.admin().call(service_key("shop/else", vec![])).await.unwrap();
        let endpoint = format!("http://{}", replica.address);
        let may_not = guard(&endpoint, &may_not.token, GuardConfig::default());
        let checker = checker(&replica).await.token;
        let asks = guard(&endpoint, &checker, GuardConfig::default());
        let none_at_once = GuardConfig { at_once: 0, ..GuardConfig::default() };
        let full = guard(&endpoint, &checker, none_at_once);
        let (grpc, http) = (tonic_service(&asks).await, axum_service(&asks).await);
        assert_eq!(get(&http, "/logs/error", &bearer(&made.token)).await.status, 200);
        let refused_by = async |grpc: &str, http: &str| {
            let status = ask(grpc, with_token("a", &made.token)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.get_error_details().retry_info().is_some());
            let told = get(http, "/logs/error", &bearer(&made.token)).await;
            assert_eq!(told.status, 503);
            assert!(told.head.contains("retry-after: 1"), "{told:?}");
        };
        for guard in [&may_not, &full] {
            refused_by(&tonic_service(guard).await, &axum_service(guard).await).await;
        }
        replica.kill().await;
        refused_by(&grpc, &http).await;
        assert_eq!(get(&http, "/health", "").await.status, 200);
    });
}

#[test]
fn a_client_says_precisely_what_went_wrong() {
    scenario(async |d| {
        let replica = d.replica().await;
        let endpoint = format!("http://{}", replica.address);
        let token = replica.admin().call(service_key("shop/else", vec![])).await.unwrap().token;
        let client = Client::connect(Config::new(&endpoint, &token)).await.unwrap();
        assert!(!format!("{client:?}").contains("klk_"));
        let denied = client.verify(check(&token)).await.unwrap_err();
        assert_eq!(denied.reason, Some(ErrorReason::PermissionDenied));
        assert_eq!(denied.metadata["permission"], "keys.verify");
        assert!(!denied.may_be_repeated());
        let me = client.keys().who_am_i(client.timed(WhoAmIRequest {})).await.unwrap();
        let me = me.into_inner().key.unwrap().key_id;
        let admin = Client::connect(Config::new(&endpoint, &d.tokens.admin)).await.unwrap();
        let nothing = RevokeKeyRequest { key_id: me, ..RevokeKeyRequest::default() };
        let invalid = admin.keys().revoke_key(admin.timed(nothing)).await.unwrap_err();
        let invalid = CallError::from(invalid);
        assert_eq!(invalid.reason, Some(ErrorReason::InvalidField));
        assert!(invalid.fields.iter().any(|problem| problem.field == "reason"), "{invalid}");
        replica.stop().await;
        let away = admin.verify(check(&token)).await.unwrap_err();
        assert!(away.reason.is_none() && away.may_be_repeated(), "{away}");
        let nobody = Client::connect(Config::new(&endpoint, &token)).await;
        assert!(matches!(nobody, Err(ConnectError::Unreachable { .. })));
    });
}

/// Events that are recorded while servers are killed.
const EVENTS: usize = 600;
/// After how many recorded events the server is killed.
const KILLS: [usize; 2] = [100, 300];

#[test]
fn events_are_each_recorded_once_though_servers_are_killed_in_the_middle() {
    scenario(async |d| {
        let mut replica = d.replica().await;
        let writer = service_key("shop/portal", vec![grant("audit.write", "logs/security/**")]);
        let writer = replica.admin().call(writer).await.unwrap();
        let road = Road::to(&replica.address).await;
        let client = Client::lazy(Config::new(&road.endpoint, &writer.token)).unwrap();
        let recorder = Recorder::start(client, RecorderConfig::default());
        let mark = d.mark().await;
        let (told, mut heard) = tokio::sync::mpsc::channel(EVENTS);
        let recording = join_all((0..EVENTS).map(|number| {
            let (recorder, told) = (recorder.clone(), told.clone());
            async move {
                let event = NewEvent {
                    resource: format!("events/{number}"),
                    ..login("alice@example.com", "security/login")
                };
                let recorded = recorder.record(event).await.unwrap();
                told.send(()).await.expect("somebody listens");
                (recorded.position, format!("events/{number}"))
            }
        }));
        let recording = tokio::spawn(recording);
        let mut recorded = 0;
        for kill in KILLS {
            while recorded < kill {
                heard.recv().await.expect("events go on being recorded");
                recorded += 1;
            }
            replica.kill().await;
            replica = d.replica().await;
            road.lead_to(&replica.address);
        }
        let mut positions = recording.await.unwrap();
        positions.sort();
        recorder.close().await.unwrap();
        let closed = recorder.record(login("alice@example.com", "security/login")).await;
        assert_eq!(closed, Err(RecordError::Closed));
        assert_eq!(events(d, &mark).await, positions, "each once, where it was said to be");
    });
}

/// Recorded events since a mark: their positions and resources, in order.
async fn events(d: &Deployment, mark: &Mark) -> Vec<(u64, String)> {
    let records = d.since(mark).await.remove(&1).unwrap_or_default();
    let recorded = records.into_iter().filter_map(|record| match record {
        Record::Change { position, event } => match event.kind {
            Some(keyledger_ledger::body::Kind::EventRecorded(e)) => Some((position, e.resource)),
            _ => None,
        },
        Record::Use { .. } => None,
    });
    recorded.collect()
}

#[test]
fn a_full_recorder_says_so_and_a_refused_event_is_told_precisely() {
    scenario(async |d| {
        let replica = d.replica().await;
        let writer = service_key("shop/portal", vec![grant("audit.write", "logs/security/**")]);
        let writer = replica.admin().call(writer).await.unwrap();
        let road = Road::to(&replica.address).await;
        road.cut();
        let client = Client::lazy(Config::new(&road.endpoint, &writer.token)).unwrap();
        let small = RecorderConfig { bytes: 1_000, ..RecorderConfig::default() };
        let recorder = Recorder::start(client, small);
        let mark = d.mark().await;
        let event = |category: &str| login("alice@example.com", category);
        let good = recorder.try_record(event("security/login")).unwrap();
        let forbidden = recorder.try_record(event("billing")).unwrap();
        let invalid = NewEvent { action: String::new(), ..event("security/login") };
        let invalid = recorder.try_record(invalid).unwrap();
        let mut waiting = vec![];
        let full = loop {
            match recorder.try_record(event("security/login")) {
                Ok(receipt) => waiting.push(receipt),
                Err(error) => break error,
            }
        };
        assert_eq!(full, RecordError::Full);
        road.lead_to(&replica.address);
        let position = good.await.unwrap().position;
        let Err(RecordError::Refused { reason, .. }) = forbidden.await else { panic!("forbidden") };
        assert_eq!(reason, ErrorReason::PermissionDenied);
        let Err(RecordError::Refused { problems, .. }) = invalid.await else { panic!("invalid") };
        assert_eq!(problems[0].field, "action");
        // Those that nobody listens for are recorded all the same.
        let count = waiting.len() + 1;
        drop(waiting);
        recorder.close().await.unwrap();
        let events = events(d, &mark).await;
        assert!(events.len() == count && events[0].0 <= position, "{events:?}");
    });
}

#[test]
fn a_recorder_that_can_reach_nobody_says_how_many_events_it_has_lost() {
    scenario(async |d| {
        let replica = d.replica().await;
        let road = Road::to(&replica.address).await;
        road.cut();
        let client = Client::lazy(Config::new(&road.endpoint, &d.tokens.admin)).unwrap();
        let brief = RecorderConfig {
            close_within: std::time::Duration::from_millis(1),
            ..RecorderConfig::default()
        };
        let recorder = Recorder::start(client, brief);
        let receipts: Vec<_> = (0..3)
            .map(|_| recorder.try_record(login("alice@example.com", "security/login")).unwrap())
            .collect();
        let unsent = recorder.close().await.unwrap_err();
        assert_eq!(unsent.events, 3);
        for receipt in receipts {
            assert_eq!(receipt.await, Err(RecordError::Unsent));
        }
    });
}
