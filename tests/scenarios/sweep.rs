//! Every method refuses every bad caller and every bad message in the same way, and exactly one refused use is left: in the
//! ledger that the token names, or in ledger 0 where it names none.

use bytes::Bytes;
use keyledger_ledger::body::{Decision, DecisionReason, Use};
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::methods::Method;
use keyledger_proto::*;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::every_method::{Target, all, good_request, leaves};
use crate::harness::*;

/// A caller that is refused, and what its call leaves.
struct Bad {
    what: &'static str,
    caller: Caller,
    /// In which ledger.
    ledger: u32,
    reason: DecisionReason,
    /// To which key and version it is attributed.
    key: Option<(KeyId, u32)>,
}

fn token(key_id: KeyId) -> String {
    Token { key_id, secret: Secret::new([7; 32]) }.reveal()
}

async fn bad_callers(replica: &Replica) -> Vec<Bad> {
    let (admin, anonymous) = (replica.admin(), replica.anonymous());
    let make = async || {
        let made = admin.call(service_key("ended", vec![grant("*", "**")])).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        (KeyId::parse(&key_id).unwrap(), key_id, made.token)
    };
    let (ended, ended_text, ended_token) = make().await;
    admin.call(revoke(&ended_text)).await.unwrap();
    let (rotated, rotated_text, old_token) = make().await;
    admin.call(rotate(&rotated_text, 0)).await.unwrap();
    let (known, ..) = make().await;
    let unknown = KeyId::new(Time(1), LedgerNumber(1), 4711);
    let nowhere = KeyId::new(Time(1), LedgerNumber(77), 4711);
    let with_token = |key_id| replica.caller(&token(key_id));
    let bad = |what, caller, ledger, reason, key| Bad { what, caller, ledger, reason, key };
    vec![
        bad("no token", anonymous.clone(), 0, DecisionReason::Missing, None),
        bad(
            "no bearer",
            anonymous.with_header("authorization", "Basic YTpi"),
            0,
            DecisionReason::Malformed,
            None,
        ),
        bad(
            "a malformed token",
            anonymous.with_token("klk_4711"),
            0,
            DecisionReason::Malformed,
            None,
        ),
        bad("an unknown key", with_token(unknown), 1, DecisionReason::UnknownKey, None),
        bad("an unknown ledger", with_token(nowhere), 0, DecisionReason::Foreign, None),
        bad("a wrong secret", with_token(known), 1, DecisionReason::WrongSecret, Some((known, 0))),
        bad(
            "a revoked key",
            replica.caller(&ended_token),
            1,
            DecisionReason::Revoked,
            Some((ended, 1)),
        ),
        bad(
            "an old secret",
            replica.caller(&old_token),
            1,
            DecisionReason::Superseded,
            Some((rotated, 1)),
        ),
    ]
}

#[test]
fn every_method_refuses_every_bad_caller_and_records_one_refused_use() {
    scenario(async |d| {
        let replica = d.replica().await;
        let target = Target::new(&replica.admin()).await;
        let bad_callers = bad_callers(&replica).await;
        for method in all() {
            let (_, message) = good_request(&method, &target);
            for bad in &bad_callers {
                let mark = d.mark().await;
                let refusal = refused(bad.caller.raw(&method.path, message.clone()).await);
                refusal.with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
                let left = only_use(d, &mark, bad.ledger, &method).await;
                let what = format!("{} with {}: {left:?}", method.name, bad.what);
                assert_eq!(verdict(&left), (Decision::Deny, bad.reason), "{what}");
                let key = KeyId::from_slice(&left.key_id).map(|id| (id, left.version));
                assert_eq!(key, bad.key, "{what}");
            }
        }
    });
}

#[test]
fn every_method_refuses_a_key_that_lacks_its_permission() {
    scenario(async |d| {
        let replica = d.replica().await;
        let target = Target::new(&replica.admin()).await;
        let weak = replica.admin().call(service_key("weak", vec![])).await.unwrap();
        let weak_id = KeyId::parse(&weak.key.unwrap().key_id).unwrap();
        let caller = replica.caller(&weak.token);
        for method in all().iter().filter(|m| !m.permission.is_empty()) {
            let (_, message) = good_request(method, &target);
            let mark = d.mark().await;
            let refusal = refused(caller.raw(&method.path, message).await);
            assert_eq!(refusal.metadata["permission"], method.permission);
            let resource = refusal.metadata["resource"].clone();
            refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
            let left = only_use(d, &mark, 1, method).await;
            assert_eq!(verdict(&left), (Decision::Deny, DecisionReason::NoGrant));
            assert_eq!(left.key_id, weak_id.as_bytes());
            assert_eq!((&left.permission, &left.resource), (&method.permission, &resource));
        }
        let open: Vec<String> =
            all().into_iter().filter(|m| m.permission.is_empty()).map(|m| m.name).collect();
        assert_eq!(open, ["KeyService/WhoAmI"], "any valid key may call this, and nothing else");
    });
}

#[test]
fn every_method_refuses_bytes_that_are_not_its_message() {
    scenario(async |d| {
        let replica = d.replica().await;
        let me = replica.admin().call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let me = KeyId::parse(&me).unwrap();
        // No field number 0; a length beyond the end; a group that never ends.
        let garbage: [&'static [u8]; 3] =
            [b"\x00\x01", b"\x0a\xff\xff\xff\xff\x0f", b"\xfb\xff\x01"];
        for method in all() {
            for bytes in garbage {
                let mark = d.mark().await;
                let answer = replica.admin().raw(&method.path, Bytes::from_static(bytes)).await;
                refused(answer).with(Code::InvalidArgument, ErrorReason::MalformedMessage);
                let left = only_use(d, &mark, 1, &method).await;
                assert_eq!(
                    verdict(&left),
                    (Decision::Deny, DecisionReason::InvalidRequest),
                    "{left:?}"
                );
                assert_eq!((left.key_id.as_slice(), left.version), (me.as_bytes().as_slice(), 1));
            }
        }
        // Text that is not UTF-8, in a field that is text.
        let message = Bytes::from_static(b"\x0a\x02\xc3\x28");
        let answer = replica.admin().raw("/keyledger.v1.KeyService/GetKey", message).await;
        refused(answer).with(Code::InvalidArgument, ErrorReason::MalformedMessage);
    });
}

#[test]
fn every_method_called_with_a_key_of_another_ledger_touches_only_that_ledger() {
    scenario(async |d| {
        let replica = d.replica().await;
        let target = Target::new(&replica.admin()).await;
        let name = "billing".to_string();
        let open = OpenLedgerRequest {
            name,
            reason: "a new tenant".into(),
            request_id: String::new(),
            ..Default::default()
        };
        let tenant = replica.system_admin().call(open).await.unwrap().token;
        let tenant = replica.caller(&tenant);
        // At most once a minute this has Keyledger tell the counts, in an entry of its own.
        tenant.call(GetCategoryCountsRequest {}).await.unwrap();
        for method in all() {
            let (_, message) = good_request(&method, &target);
            let mark = d.mark().await;
            // Some find nothing there; what matters is where they looked.
            let _ = tenant.raw(&method.path, message).await;
            println!("{}", method.name);
            let (ledger, left) = d.since_in_one_until(&mark, leaves(&method)).await;
            assert_eq!((ledger, left.len()), (2, leaves(&method)), "{}: {left:?}", method.name);
        }
    });
}

#[test]
fn health_and_reflection_need_no_token_and_leave_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let mark = d.mark().await;
        for service in [
            "",
            "keyledger.v1.KeyService",
            "keyledger.v1.AuditService",
            "opentelemetry.proto.collector.logs.v1.LogsService",
        ] {
            let request = HealthCheckRequest { service: service.into() };
            let answer = replica.health().check(request).await.unwrap().into_inner();
            assert_eq!(answer.status, tonic_health::ServingStatus::Serving as i32);
        }
        for version in ["v1", "v1alpha"] {
            let method =
                format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            // `list_services`, field 7.
            let answer =
                replica.anonymous().raw(&method, b"\x3a\x00".as_slice().into()).await.unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                answer.contains("keyledger.v1.KeyService")
                    && answer.contains("keyledger.v1.AuditService")
            );
        }
        assert!(d.since(&mark).await.is_empty());
    });
}

/// The one use that a call left, in the ledger where it belongs.
async fn only_use(d: &Deployment, mark: &Mark, ledger: u32, method: &Method) -> Use {
    let (found, left) = d.since_in_one(mark).await;
    assert_eq!((found, left.len()), (ledger, 1), "{}: {left:?}", method.name);
    let left = left[0].as_use().clone();
    assert_eq!(left.method, method.name);
    assert_eq!(left.caller, None, "whoever calls for itself is the key that was used");
    left
}
