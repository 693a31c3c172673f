//! All methods: which handler answers which, and whether its use is recorded before it runs. A test walks the descriptors
//! and fails if one is missing here.

use std::collections::HashMap;

use keyledger_proto::methods::{self, Method};
use keyledger_proto::parse::{self, Violation};
use keyledger_proto::{GetEventRequest, VerifyKeyRequest, WatchKeysRequest};

use super::gate::Recorded::{Before, Change, Verdict};
use super::gate::{Route, collecting, exchanging, opening, reading, streaming, unary};
use super::{
    access_review, anomalies, audit, checks, count_events, counts, describe, export, findings,
    forwarders, import, keys, ledgers, list_events, lists, logs, permissions, producers, record,
    reports, reviews, roles, stream, traces, usage, watch,
};

type Checked<T> = Result<T, Vec<Violation>>;

/// Method and handler by path.
pub(crate) type Routes = HashMap<String, (&'static Method, Route)>;

fn table() -> Vec<(&'static str, Route)> {
    vec![
        ("KeyService/CreateKey", unary(Change, parse::create_key, keys::create_key)),
        ("KeyService/ImportKeys", unary(Change, parse::import_keys, import::import_keys)),
        ("KeyService/GetKey", unary(Before, parse::get_key, keys::get_key)),
        ("KeyService/GetKeyUsage", unary(Before, parse::get_key_usage, usage::get_key_usage)),
        ("KeyService/GetUsage", unary(Before, parse::get_usage, usage::get_usage)),
        ("KeyService/ListKeys", unary(Before, parse::list_keys, lists::list_keys)),
        (
            "KeyService/RevokeBySecret",
            unary(Change, parse::revoke_by_secret, keys::revoke_by_secret),
        ),
        ("KeyService/RevokeKeys", unary(Before, parse::revoke_keys, lists::revoke_keys)),
        (
            "KeyService/ListOwners",
            unary(
                Before,
                |r: keyledger_proto::ListOwnersRequest| sized(r.page_size, r),
                lists::list_owners,
            ),
        ),
        ("KeyService/RotateKey", unary(Change, parse::rotate_key, keys::rotate_key)),
        ("KeyService/RevokeKey", unary(Change, parse::revoke_key, keys::revoke_key)),
        ("KeyService/UpdateKey", unary(Change, parse::update_key, keys::update_key)),
        ("KeyService/SuspendKey", unary(Change, parse::suspend_key, keys::suspend_key)),
        ("KeyService/ResumeKey", unary(Change, parse::resume_key, keys::resume_key)),
        (
            "KeyService/BatchVerifyKeys",
            unary(Verdict, parse::batch_verify_keys, checks::batch_verify_keys),
        ),
        ("KeyService/ReportUses", unary(Verdict, parse::report_uses, reports::report_uses)),
        (
            "KeyService/TestPermissions",
            unary(Before, parse::test_permissions, checks::test_permissions),
        ),
        (
            "KeyService/LookupKey",
            unary(Before, |r: keyledger_proto::LookupKeyRequest| Ok(r), checks::lookup_key),
        ),
        ("KeyService/WhoHasAccess", unary(Before, parse::who_has_access, lists::who_has_access)),
        (
            "KeyService/SetOwnerStatus",
            unary(Change, parse::set_owner_status, reviews::set_owner_status),
        ),
        ("KeyService/ListFindings", unary(Before, parse::list_findings, findings::list_findings)),
        (
            "KeyService/GetAccessReview",
            streaming(Before, parse::get_access_review, access_review::get_access_review),
        ),
        (
            "KeyService/SignAccessReview",
            unary(Change, parse::sign_access_review, reviews::sign_access_review),
        ),
        (
            "KeyService/ListPermissions",
            unary(
                Before,
                |r: keyledger_proto::ListPermissionsRequest| sized(r.page_size, r),
                permissions::list_permissions,
            ),
        ),
        (
            "KeyService/RegisterPermissions",
            unary(Change, parse::register_permissions, permissions::register_permissions),
        ),
        ("KeyService/DescribeKey", unary(Before, parse::describe_key, describe::describe_key)),
        (
            "KeyService/DescribeLedger",
            streaming(Before, parse::describe_ledger, describe::describe_ledger),
        ),
        ("KeyService/WatchKeys", streaming(Before, watch_keys, watch::watch_keys)),
        ("KeyService/VerifyKey", unary(Verdict, verify_key, checks::verify_key)),
        (
            "KeyService/WhoAmI",
            unary(Before, |_: keyledger_proto::WhoAmIRequest| Ok(()), checks::who_am_i),
        ),
        ("KeyService/CreateRole", unary(Change, parse::create_role, roles::create_role)),
        ("KeyService/GetRole", unary(Before, parse::get_role, roles::get_role)),
        ("KeyService/UpdateRole", unary(Change, parse::update_role, roles::update_role)),
        ("KeyService/RetireRole", unary(Change, parse::retire_role, roles::retire_role)),
        (
            "KeyService/ListRoles",
            unary(
                Before,
                |r: keyledger_proto::ListRolesRequest| sized(r.page_size, r),
                roles::list_roles,
            ),
        ),
        ("KeyService/OpenLedger", unary(Change, parse::open_ledger, ledgers::open_ledger)),
        ("KeyService/GetLedger", unary(Verdict, parse::get_ledger, ledgers::get_ledger)),
        (
            "KeyService/UpdateLedgerPolicy",
            unary(Change, parse::update_policy, ledgers::update_policy),
        ),
        (
            "KeyService/ListLedgers",
            unary(
                Before,
                |r: keyledger_proto::ListLedgersRequest| sized(r.page_size, r),
                ledgers::list_ledgers,
            ),
        ),
        ("AuditService/RecordEvents", unary(Verdict, parse::record_events, record::record_events)),
        ("AuditService/RecordEventStream", exchanging(record::record_event_stream)),
        ("LogsService/Export", collecting(logs::check, logs::export)),
        (
            "AuditService/RegisterProducerKeys",
            unary(Change, parse::register_producer_keys, producers::register_producer_keys),
        ),
        ("AuditService/ListEvents", reading(parse::list_events, list_events::list_events)),
        ("AuditService/CountEvents", reading(parse::count_events, count_events::count_events)),
        ("AuditService/GetEvent", reading(get_event, audit::get_event)),
        ("AuditService/GetTrace", reading(parse::get_trace, traces::get_trace)),
        ("AuditService/StreamEvents", opening(parse::stream_events, stream::stream_events)),
        (
            "AuditService/GetCategoryCounts",
            reading(
                |_: keyledger_proto::GetCategoryCountsRequest| Ok(()),
                counts::get_category_counts,
            ),
        ),
        ("AuditService/ListAnomalies", reading(parse::list_anomalies, anomalies::list_anomalies)),
        (
            "AuditService/WatchAnomalies",
            opening(parse::watch_anomalies, anomalies::watch_anomalies),
        ),
        (
            "AuditService/AcknowledgeAnomaly",
            unary(Change, parse::acknowledge_anomaly, anomalies::acknowledge_anomaly),
        ),
        ("AuditService/ExportEvents", opening(parse::export_events, export::export_events)),
        (
            "AuditService/GetCheckpoint",
            unary(Before, |_: keyledger_proto::GetCheckpointRequest| Ok(()), audit::get_checkpoint),
        ),
        (
            "AuditService/ListForwarders",
            unary(
                Before,
                |_: keyledger_proto::ListForwardersRequest| Ok(()),
                forwarders::list_forwarders,
            ),
        ),
    ]
}

/// Panics if a method has no handler, or a handler no method: that is a bug of ours, and every start would show it.
pub(crate) fn routes() -> Routes {
    let mut handlers: HashMap<&str, Route> = table().into_iter().collect();
    let routes = methods::guarded()
        .into_iter()
        .map(|method| {
            let route = handlers
                .remove(method.name.as_str())
                .unwrap_or_else(|| panic!("{} has no handler", method.name));
            let method: &'static Method = Box::leak(Box::new(method));
            (method.path.clone(), (method, route))
        })
        .collect();
    assert!(handlers.is_empty(), "handlers without a method: {:?}", handlers.keys());
    routes
}

fn sized<R>(page_size: i32, request: R) -> Checked<(R, usize)> {
    Ok((request, parse::page_size(page_size)?))
}

fn verify_key(r: VerifyKeyRequest) -> Checked<VerifyKeyRequest> {
    parse::verify_key(&r).map(|()| r)
}

fn watch_keys(r: WatchKeysRequest) -> Checked<WatchKeysRequest> {
    parse::position("from_position", r.from_position, false)?;
    Ok(r)
}

fn get_event(r: GetEventRequest) -> Checked<GetEventRequest> {
    parse::position("position", r.position, true)?;
    parse::view(r.view)?;
    Ok(r)
}
