//! A good request for every method of the published services. Whoever adds a method adds its request here, and with it the
//! method is swept.

use bytes::Bytes;
use keyledger_proto::methods::{self, Method};
use keyledger_proto::*;
use prost::Message;
use tonic::Code;

use crate::harness::*;

/// What requests are about: a key that lives, its token, and something unusual that was noticed of another key.
pub(crate) struct Target {
    pub(crate) key_id: String,
    pub(crate) token: String,
    pub(crate) anomaly: u64,
}

impl Target {
    pub(crate) async fn new(caller: &Caller) -> Target {
        let made = caller.call(user_key("target@example.com")).await.unwrap();
        let anomaly = something_unusual(caller).await;
        Target { key_id: made.key.unwrap().key_id, token: made.token, anomaly }
    }
}

/// Somebody looks at what is not for them. At which position that was raised.
async fn something_unusual(caller: &Caller) -> u64 {
    let curious = caller.call(service_key("curious", vec![])).await.unwrap();
    let key_id = curious.key.unwrap().key_id;
    let others = ListEventsRequest { category: "payroll".into(), ..Default::default() };
    refused(caller.with_token(&curious.token).call(others).await)
        .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    let of_key = ListAnomaliesRequest { key_id, ..Default::default() };
    let noticed = caller.call(of_key).await.unwrap().anomalies;
    noticed[0].position.unwrap()
}

/// What a call does, as the table of records has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Change,
    Check,
    Read,
}

/// All methods that need a token. RevokeBySecret, which is open, has its scenarios in `lifecycle`.
pub(crate) fn all() -> Vec<Method> {
    let guarded = methods::guarded().into_iter();
    let (open, all): (Vec<Method>, Vec<Method>) = guarded.partition(|m| m.open);
    assert!(all.len() >= 30, "the published services have their methods");
    let open: Vec<&str> = open.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(open, ["KeyService/RevokeBySecret"], "nothing else may be open");
    all
}

/// How many uses or entries a good call leaves: a stream or an export of events tells of its end, too.
pub(crate) fn leaves(method: &Method) -> usize {
    match method.name.as_str() {
        "AuditService/StreamEvents"
        | "AuditService/ExportEvents"
        | "AuditService/WatchAnomalies" => 2,
        // It reads keys, and the log.
        "KeyService/GetAccessReview" => 2,
        _ => 1,
    }
}

/// A request that an admin of the target's ledger may make (OpenLedger: an admin of ledger 0).
pub(crate) fn good_request(method: &Method, target: &Target) -> (Does, Bytes) {
    let key_id = target.key_id.clone();
    let (does, bytes) = match method.name.as_str() {
        "KeyService/CreateKey" => (Does::Change, user_key("bob@example.com").encode_to_vec()),
        "KeyService/ImportKeys" => {
            let token = format!("acme_live_{key_id}");
            let request = import(vec![sha256_of(&token, user_import("bob@example.com"))]);
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/GetKey" => (
            Does::Read,
            GetKeyRequest { key_id, as_of: None, include_traces: false }.encode_to_vec(),
        ),
        "KeyService/GetKeyUsage" => {
            (Does::Read, GetKeyUsageRequest { key_id, ..Default::default() }.encode_to_vec())
        }
        "KeyService/GetUsage" => (Does::Read, GetUsageRequest::default().encode_to_vec()),
        "KeyService/ListKeys" => (Does::Read, ListKeysRequest::default().encode_to_vec()),
        "KeyService/RotateKey" => (Does::Change, rotate(&key_id, 60).encode_to_vec()),
        "KeyService/RevokeKey" => (Does::Change, revoke(&key_id).encode_to_vec()),
        "KeyService/UpdateKey" => {
            let request = UpdateKeyRequest {
                purpose: "export warnings".into(),
                ..update(&key_id, &["purpose"])
            };
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/SuspendKey" => (Does::Change, suspend(&key_id).encode_to_vec()),
        "KeyService/ResumeKey" => (Does::Change, resume(&key_id).encode_to_vec()),
        "KeyService/BatchVerifyKeys" => {
            let requests = vec![check(&target.token)];
            (Does::Check, BatchVerifyKeysRequest { requests }.encode_to_vec())
        }
        "KeyService/ReportUses" => {
            let request =
                ReportUsesRequest { session_id: new_session_id(), end: true, ..Default::default() };
            (Does::Read, request.encode_to_vec())
        }
        "KeyService/TestPermissions" => {
            (Does::Read, test(&key_id, "audit.read", "logs/error").encode_to_vec())
        }
        "KeyService/LookupKey" => {
            (Does::Read, LookupKeyRequest { token: target.token.clone() }.encode_to_vec())
        }
        "KeyService/WhoHasAccess" => {
            let (permission, resource) = ("audit.read".into(), "logs/error".into());
            let request = WhoHasAccessRequest { permission, resource, ..Default::default() };
            (Does::Read, request.encode_to_vec())
        }
        "KeyService/RevokeKeys" => {
            let filter = KeyFilter { role: "error-readers".into(), ..Default::default() };
            let request = RevokeKeysRequest {
                filter: Some(filter),
                kind: entry::RevocationKind::Unused as i32,
                reason: "nobody holds it".into(),
                ..Default::default()
            };
            (Does::Read, request.encode_to_vec())
        }
        "KeyService/ListOwners" => (Does::Read, ListOwnersRequest::default().encode_to_vec()),
        "KeyService/SetOwnerStatus" => {
            let request = owner_left("target@example.com");
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/ListFindings" => (Does::Read, ListFindingsRequest::default().encode_to_vec()),
        "KeyService/GetAccessReview" => {
            let request = GetAccessReviewRequest {
                from_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                to_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..Default::default()
            };
            (Does::Read, request.encode_to_vec())
        }
        "KeyService/SignAccessReview" => {
            let request = SignAccessReviewRequest {
                from_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                to_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                as_of_position: Some(0),
                report_sha256: vec![7; 32],
                approved: true,
                reason: "nothing was there yet".into(),
                ..Default::default()
            };
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/ListPermissions" => {
            (Does::Read, ListPermissionsRequest::default().encode_to_vec())
        }
        "KeyService/RegisterPermissions" => {
            (Does::Change, register("billing", &["billing.read"]).encode_to_vec())
        }
        "KeyService/DescribeKey" => {
            (Does::Read, DescribeKeyRequest { key_id, format: 2 }.encode_to_vec())
        }
        "KeyService/DescribeLedger" => {
            (Does::Read, DescribeLedgerRequest::default().encode_to_vec())
        }
        "KeyService/WatchKeys" => {
            (Does::Read, WatchKeysRequest { from_position: Some(0) }.encode_to_vec())
        }
        "KeyService/GetRole" => {
            (Does::Read, GetRoleRequest { name: "auditor".into(), as_of: None }.encode_to_vec())
        }
        "KeyService/UpdateRole" => {
            let request = update_role("error-readers", vec![grant("audit.read", "logs/error")]);
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/RetireRole" => (Does::Change, retire_role("error-readers").encode_to_vec()),
        "KeyService/VerifyKey" => (Does::Check, check(&target.token).encode_to_vec()),
        "KeyService/WhoAmI" => (Does::Read, WhoAmIRequest {}.encode_to_vec()),
        "KeyService/CreateRole" => (
            Does::Change,
            role("error-readers", vec![grant("audit.read", "logs/**")]).encode_to_vec(),
        ),
        "KeyService/ListRoles" => (Does::Read, ListRolesRequest::default().encode_to_vec()),
        "KeyService/OpenLedger" => {
            let reason = "a new tenant".into();
            let request = OpenLedgerRequest { name: "swept".into(), reason, ..Default::default() };
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/GetLedger" => {
            (Does::Read, GetLedgerRequest { name: "default".into() }.encode_to_vec())
        }
        "KeyService/UpdateLedgerPolicy" => {
            let request = UpdateLedgerPolicyRequest {
                name: "default".into(),
                ..update_policy(
                    &["default_life"],
                    LedgerPolicy { default_life: Some(seconds(86_400)), ..Default::default() },
                )
            };
            (Does::Change, request.encode_to_vec())
        }
        "KeyService/ListLedgers" => (Does::Read, ListLedgersRequest::default().encode_to_vec()),
        "AuditService/RecordEvents" => {
            let events = vec![login("alice@example.com", "security/login")];
            (Does::Change, RecordEventsRequest { events, atomic: false }.encode_to_vec())
        }
        "AuditService/RecordEventStream" => {
            let event = Some(login("alice@example.com", "security/login"));
            (Does::Change, RecordEventStreamRequest { event }.encode_to_vec())
        }
        "LogsService/Export" => {
            let record = log_record("user.session.start", &[("user.id", "alice@example.com")]);
            (Does::Change, export_of(&[], vec![record]).encode_to_vec())
        }
        "AuditService/RegisterProducerKeys" => {
            let request =
                RegisterProducerKeysRequest { reason: "ticket 4711".into(), ..Default::default() };
            (Does::Change, request.encode_to_vec())
        }
        "AuditService/ListEvents" => (Does::Read, ListEventsRequest::default().encode_to_vec()),
        "AuditService/CountEvents" => (Does::Read, CountEventsRequest::default().encode_to_vec()),
        "AuditService/GetEvent" => (
            Does::Read,
            GetEventRequest { position: Some(0), ..Default::default() }.encode_to_vec(),
        ),
        "AuditService/GetTrace" => {
            let trace_id = "0af7651916cd43dd8448eb211c80319c".into();
            (Does::Read, GetTraceRequest { trace_id, ..Default::default() }.encode_to_vec())
        }
        "AuditService/StreamEvents" => {
            let from_start = StreamEventsRequest { from_position: Some(0), ..Default::default() };
            (Does::Read, from_start.encode_to_vec())
        }
        "AuditService/GetCategoryCounts" => {
            (Does::Read, GetCategoryCountsRequest {}.encode_to_vec())
        }
        "AuditService/ExportEvents" => {
            let changes = ExportEventsRequest {
                category: "keyledger/lifecycle".into(),
                ..Default::default()
            };
            (Does::Read, changes.encode_to_vec())
        }
        "AuditService/GetCheckpoint" => (Does::Read, GetCheckpointRequest {}.encode_to_vec()),
        "AuditService/ListAnomalies" => {
            (Does::Read, ListAnomaliesRequest::default().encode_to_vec())
        }
        "AuditService/WatchAnomalies" => {
            (Does::Read, WatchAnomaliesRequest { from_position: Some(0) }.encode_to_vec())
        }
        "AuditService/AcknowledgeAnomaly" => {
            let request = AcknowledgeAnomalyRequest {
                position: Some(target.anomaly),
                verdict: entry::AnomalyVerdict::Misuse as i32,
                reason: "ticket 4711".into(),
                ..Default::default()
            };
            (Does::Change, request.encode_to_vec())
        }
        "AuditService/ListForwarders" => (Does::Read, ListForwardersRequest {}.encode_to_vec()),
        new => panic!("{new} is new: give it a request here, so that it is swept"),
    };
    (does, bytes.into())
}
