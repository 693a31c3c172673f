//! Bad input: each fault is refused with its code, reason and field path; it leaves one refused use and no change.

use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::*;

/// A request that is good, with some fields replaced.
fn with(base: &Value, fields: Value) -> Value {
    let mut request = base.clone();
    for (name, value) in fields.as_object().expect("fields by name") {
        request[name] = value.clone();
    }
    request
}

fn create_key() -> Value {
    json!({
        "owner": {"user": "alice@example.com"}, "purpose": "export error logs", "reason": "ticket 4711",
        "grants": [{"permissions": ["audit.read"], "resource": "logs/error"}], "ttl": "3600s",
    })
}

fn verify_key() -> Value {
    json!({"token": "klk_", "permission": "audit.read", "resource": "logs/error", "reason": "nightly export"})
}

const SOME_KEY: &str = "01a2009e-7983-8000-8000-06eea8bb72ed";

/// Each request is wrong in the field that stands beside it, and nowhere else.
fn wrong_in_one_field() -> Vec<(&'static str, Value, &'static str)> {
    let long = |n: usize| "x".repeat(n);
    let grants =
        |n: usize| vec![json!({"permissions": ["audit.read"], "resource": "logs/error"}); n];
    let a_grant = |permission: &str, resource: &str| json!({"grants": [{"permissions": [permission], "resource": resource}]});
    let roles = |n: usize| (0..n).map(|i| format!("role-{i}")).collect::<Vec<_>>();
    let create = |fields| ("KeyService/CreateKey", with(&create_key(), fields));
    let verify = |fields| ("KeyService/VerifyKey", with(&verify_key(), fields));
    let rotation = json!({"key_id": SOME_KEY, "overlap": "0s", "reason": "monthly rotation"});
    let rotate = |fields| ("KeyService/RotateKey", with(&rotation, fields));
    let revocation = json!({"key_id": SOME_KEY, "kind": 2, "reason": "left the company"});
    let revoke = |fields| ("KeyService/RevokeKey", with(&revocation, fields));
    let a_role = json!({"name": "log-readers", "grants": grants(1), "reason": "the audit team asked for it"});
    let role = |fields| ("KeyService/CreateRole", with(&a_role, fields));
    let an_update = |field: &str| {
        json!({"key_id": SOME_KEY, "update_mask": field, "reason": "the team moved offices",
               "purpose": "export", "ttl": "60s"})
    };
    let update = |field, fields| ("KeyService/UpdateKey", with(&an_update(field), fields));
    let networks = |n: &[&str]| json!({"restrictions": {"networks": n}});
    let labels = |name: &str, value: &str| json!({"labels": [{"name": name, "value": value}]});
    let test = |permission: &str, resource: &str| {
        let asked = json!([{"permission": permission, "resource": resource}]);
        ("KeyService/TestPermissions", json!({"key_id": SOME_KEY, "permissions": asked}))
    };
    let a_permission = &json!({"name": "billing.read", "description": "See invoices."});
    let permission = |name: &str| json!([with(a_permission, json!({"name": name}))]);
    let described =
        |text: &str| json!({"permissions": [with(a_permission, json!({"description": text}))]});
    let permissions = |n: usize| {
        (0..n)
            .map(|i| with(a_permission, json!({"name": format!("billing.p{i}")})))
            .collect::<Vec<_>>()
    };
    let registration = |fields| {
        let good =
            json!({"prefix": "billing", "permissions": [a_permission], "reason": "a new service"});
        ("KeyService/RegisterPermissions", with(&good, fields))
    };
    let cases = vec![
        (create(networks(&["203.0.113.7/24"])), "restrictions.networks[0]"),
        (create(networks(&["10.0.0.0/8", "somewhere"])), "restrictions.networks[1]"),
        (create(networks(&["10.0.0.0/8"; 65])), "restrictions"),
        (create(json!({"restrictions": {"audiences": [""]}})), "restrictions.audiences[0]"),
        (create(labels("Team", "x")), "labels[0].name"),
        (create(labels("team", "two\nlines")), "labels[0].value"),
        (create(json!({"responsible": "bob@example.com"})), "responsible"),
        (create(json!({"roles": ["log-reader(*)"]})), "roles[0]"),
        (update("", json!({})), "update_mask"),
        (update("keyId", json!({})), "update_mask"),
        (update("purpose", json!({"purpose": ""})), "purpose"),
        (update("expiry", json!({"ttl": null})), "expiry"),
        (update("expiry", json!({"ttl": "0s"})), "ttl"),
        (update("purpose", json!({"reason": ""})), "reason"),
        (("KeyService/SuspendKey", json!({"key_id": "x", "reason": "odd"})), "key_id"),
        (("KeyService/ResumeKey", json!({"key_id": SOME_KEY, "reason": ""})), "reason"),
        (("KeyService/UpdateRole", json!({"name": "x", "reason": "less"})), "update_mask"),
        (("KeyService/RetireRole", json!({"name": "X", "reason": "gone"})), "name"),
        (("KeyService/BatchVerifyKeys", json!({})), "requests"),
        (
            (
                "KeyService/BatchVerifyKeys",
                json!({"requests": [verify_key(), {"permission": "a.b"}]}),
            ),
            "requests[1].resource",
        ),
        (("KeyService/TestPermissions", json!({"key_id": SOME_KEY})), "permissions"),
        (test("audit.*", "logs"), "permissions[0].permission"),
        (test("audit.read", "logs/**"), "permissions[0].resource"),
        (("KeyService/WhoHasAccess", json!({"permission": "*", "resource": "logs"})), "permission"),
        (create(json!({"reason": ""})), "reason"),
        (create(json!({"reason": " \u{3000}"})), "reason"),
        (create(json!({"reason": long(1025)})), "reason"),
        (create(json!({"reason": "two\nlines"})), "reason"),
        (create(json!({"reason": "bell\u{7}"})), "reason"),
        (create(json!({"purpose": ""})), "purpose"),
        (create(json!({"purpose": long(1025)})), "purpose"),
        (create(json!({"purpose": "turned \u{202e}around"})), "purpose"),
        (create(json!({"owner": {}})), "owner"),
        (create(json!({"owner": {"user": ""}})), "owner.user"),
        (create(json!({"owner": {"user": long(257)}})), "owner.user"),
        (create(json!({"owner": {"user": "alice\u{200b}@example.com"}})), "owner.user"),
        (create(json!({"owner": {"service": "Not A Name"}})), "owner.service"),
        (create(json!({"owner": {"service": long(129)}})), "owner.service"),
        (create(json!({"ttl": "0s"})), "ttl"),
        (create(json!({"ttl": "-1s"})), "ttl"),
        (create(json!({"ttl": "34560001s"})), "ttl"),
        (create(json!({"ttl": null, "expire_time": "2001-01-01T00:00:00Z"})), "expire_time"),
        (create(json!({"ttl": null, "expire_time": "9999-12-31T23:59:59Z"})), "expire_time"),
        (create(json!({"ttl": null, "expire_time": "0001-01-01T00:00:00Z"})), "expire_time"),
        (create(json!({"grants": grants(65)})), "grants"),
        (create(json!({"grants": [{"permissions": [], "resource": "logs"}]})), "grants[0]"),
        (
            create(json!({"grants": [{"permissions": vec!["a.b"; 33], "resource": "logs"}]})),
            "grants[0]",
        ),
        (create(a_grant("Audit.Read", "logs")), "grants[0]"),
        (create(a_grant("audit.*.read", "logs")), "grants[0]"),
        (create(a_grant(&long(129), "logs")), "grants[0]"),
        (create(a_grant("audit.read", "")), "grants[0]"),
        (create(a_grant("audit.read", "logs//error")), "grants[0]"),
        (create(a_grant("audit.read", "**/error")), "grants[0]"),
        (create(a_grant("audit.read", "logs/\u{202e}rorre")), "grants[0]"),
        (create(a_grant("audit.read", &long(513))), "grants[0]"),
        (create(json!({"roles": roles(17)})), "roles"),
        (create(json!({"roles": ["Auditor"]})), "roles[0]"),
        (create(json!({"roles": [long(65)]})), "roles[0]"),
        (create(json!({"roles": ["auditor", "auditor"]})), "roles[1]"),
        (create(json!({"request_id": "4711"})), "request_id"),
        (rotate(json!({"key_id": "4711"})), "key_id"),
        (rotate(json!({"overlap": "-1s"})), "overlap"),
        (rotate(json!({"overlap": "7776001s"})), "overlap"),
        (rotate(json!({"reason": ""})), "reason"),
        (rotate(json!({"request_id": SOME_KEY.replace('-', "")})), "request_id"),
        (revoke(json!({"key_id": ""})), "key_id"),
        (revoke(json!({"kind": 0})), "kind"),
        (revoke(json!({"kind": 99})), "kind"),
        (revoke(json!({"kind": -1})), "kind"),
        (revoke(json!({"reason": ""})), "reason"),
        (role(json!({"name": ""})), "name"),
        (role(json!({"name": "no spaces"})), "name"),
        (role(json!({"name": long(65)})), "name"),
        (role(json!({"grants": []})), "grants"),
        (role(json!({"grants": grants(65)})), "grants"),
        (role(json!({"description": long(1025)})), "description"),
        (role(json!({"reason": ""})), "reason"),
        (registration(json!({"prefix": ""})), "prefix"),
        (registration(json!({"prefix": "Billing"})), "prefix"),
        (registration(json!({"prefix": "billing.invoices"})), "prefix"),
        (registration(json!({"prefix": long(65)})), "prefix"),
        (
            registration(json!({"prefix": "keys", "permissions": permission("keys.steal")})),
            "prefix",
        ),
        (registration(json!({"permissions": []})), "permissions"),
        (registration(json!({"permissions": permissions(101)})), "permissions"),
        (registration(json!({"permissions": permission("billing")})), "permissions[0].name"),
        (registration(json!({"permissions": permission("billing.")})), "permissions[0].name"),
        (registration(json!({"permissions": permission("billings.x")})), "permissions[0].name"),
        (registration(json!({"permissions": permission("billing.*")})), "permissions[0].name"),
        (registration(json!({"permissions": permission("billing.Read")})), "permissions[0].name"),
        (registration(json!({"permissions": [a_permission, a_permission]})), "permissions[1].name"),
        (registration(described("")), "permissions[0].description"),
        (registration(described(&long(257))), "permissions[0].description"),
        (registration(described("two\nlines")), "permissions[0].description"),
        (registration(json!({"reason": ""})), "reason"),
        (registration(json!({"request_id": "4711"})), "request_id"),
        (("KeyService/ListPermissions", json!({"page_size": -1})), "page_size"),
        (
            ("KeyService/WatchKeys", json!({"from_position": "9223372036854775808"})),
            "from_position",
        ),
        (("KeyService/OpenLedger", json!({"name": "No", "reason": "a new tenant"})), "name"),
        (("KeyService/OpenLedger", json!({"name": "billing", "reason": ""})), "reason"),
        (verify(json!({"permission": ""})), "permission"),
        (verify(json!({"permission": "audit.*"})), "permission"),
        (verify(json!({"permission": "*"})), "permission"),
        (verify(json!({"permission": long(129)})), "permission"),
        (verify(json!({"resource": ""})), "resource"),
        (verify(json!({"resource": "logs/**"})), "resource"),
        (verify(json!({"resource": "/logs"})), "resource"),
        (verify(json!({"resource": long(513)})), "resource"),
        (verify(json!({"resource": "a/".repeat(32) + "a"})), "resource"),
        (verify(json!({"audience": long(129)})), "audience"),
        (verify(json!({"reason": long(1025)})), "reason"),
        (verify(json!({"client": {"address": "203.0.113.7:443"}})), "client.address"),
        (verify(json!({"client": {"user_agent": long(513)}})), "client.user_agent"),
        (verify(json!({"client": {"user_agent": "curl\u{1b}[31m"}})), "client.user_agent"),
        (("KeyService/GetKey", json!({"key_id": "*"})), "key_id"),
        (("KeyService/ListKeys", json!({"page_size": -1})), "page_size"),
        (("KeyService/ListRoles", json!({"page_size": -1})), "page_size"),
        (("KeyService/ListLedgers", json!({"page_size": i32::MIN})), "page_size"),
        (("AuditService/ListEvents", json!({"page_size": -1})), "page_size"),
        (("AuditService/ListEvents", json!({"key_id": "x"})), "key_id"),
        (("AuditService/ListEvents", json!({"category": "keyledger/*"})), "category"),
        (("AuditService/GetTrace", json!({})), "trace_id"),
        (
            ("AuditService/GetTrace", json!({"trace_id": "0AF7651916CD43DD8448EB211C80319C"})),
            "trace_id",
        ),
        (("AuditService/GetEvent", json!({})), "position"),
        (("AuditService/GetEvent", json!({"position": "9223372036854775808"})), "position"),
        (("AuditService/GetEvent", json!({"position": "0", "view": 99})), "view"),
        (("AuditService/StreamEvents", json!({"view": 99})), "view"),
        (
            ("AuditService/StreamEvents", json!({"from_position": "18446744073709551615"})),
            "from_position",
        ),
        (("AuditService/StreamEvents", json!({"category": "no such"})), "category"),
    ];
    cases.into_iter().map(|((method, request), field)| (method, request, field)).collect()
}

#[test]
fn each_wrong_field_is_named_and_changes_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let mark = d.mark().await;
        let cases = wrong_in_one_field();
        for (method, request, field) in &cases {
            let refusal = refused(admin.json(method, &request.to_string()).await);
            assert_eq!(refusal.fields, [*field], "{method} {request}");
            refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        }
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!(ledger, 1);
        // Equal refusals within a second share a record, which says how many it stands for.
        let total: u32 = left.iter().map(|record| record.as_use().count.max(1)).sum();
        assert_eq!(total as usize, cases.len());
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Deny, DecisionReason::InvalidRequest));
        }
    });
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let refusal = refused(admin.call(CreateKeyRequest::default()).await);
        assert_eq!(refusal.fields, ["owner", "purpose", "reason"]);
        refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
    });
}

#[test]
fn a_malformed_token_under_check_is_a_verdict_and_not_an_error() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let good = admin.call(user_key("alice@example.com")).await.unwrap().token;
        let mut misspelled = good.clone().into_bytes();
        misspelled[20] = if misspelled[20] == b'A' { b'B' } else { b'A' };
        let misspelled = String::from_utf8(misspelled).unwrap();
        let mark = d.mark().await;
        let malformed = [
            "klk_".into(),
            "not a token at all".into(),
            misspelled,
            good.to_uppercase(),
            format!("{good} "),
            good[..75].into(),
            format!("{good}A"),
            "klk_Zürich–naïve".into(),
            "\u{0}".repeat(76),
            "x".repeat(100_000),
        ];
        for token in &malformed {
            let answer = admin.call(check(token)).await.unwrap();
            assert_eq!(
                (answer.decision(), answer.reason()),
                (Decision::Deny, DecisionReason::Malformed)
            );
            assert_eq!((answer.key_id.as_str(), answer.matched_grant), ("", None));
        }
        let answer = admin.call(check("")).await.unwrap();
        assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, DecisionReason::Missing));

        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), malformed.len() + 1, "verdicts are never folded");
        assert!(left.iter().all(|record| record.as_use().key_id.is_empty()));
        assert!(left.iter().all(|record| record.as_use().caller.is_some()));
    });
}

#[test]
fn a_page_token_of_another_query_is_refused() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (admin, system) = (replica.admin(), replica.system_admin());
        for name in ["one", "two"] {
            admin.call(service_key(name, vec![])).await.unwrap();
            admin.call(role(name, vec![grant("audit.read", "logs/*")])).await.unwrap();
        }
        let keys = ListKeysRequest { page_size: 1, ..Default::default() };
        let of_keys = admin.call(keys).await.unwrap().next_page_token;
        let roles = ListRolesRequest { page_size: 1, ..Default::default() };
        let of_roles = admin.call(roles).await.unwrap().next_page_token;
        let ledgers = ListLedgersRequest { page_size: 1, ..Default::default() };
        let of_ledgers = system.call(ledgers).await.unwrap().next_page_token;
        let events = ListEventsRequest { page_size: 1, ..Default::default() };
        let of_events = admin.call(events.clone()).await.unwrap().next_page_token;
        let tokens = [&of_keys, &of_roles, &of_ledgers, &of_events];
        assert!(tokens.iter().all(|token| !token.is_empty()));

        let damaged = format!("{of_keys}AAAA");
        for page_token in
            [&of_roles, &of_ledgers, &of_events, &damaged, &"%".into(), &"é".repeat(400)]
        {
            let request = ListKeysRequest { page_token: page_token.clone(), ..Default::default() };
            page_token_invalid(admin.call(request).await);
        }
        let request = ListRolesRequest { page_token: of_keys.clone(), ..Default::default() };
        page_token_invalid(admin.call(request).await);
        let request = ListLedgersRequest { page_token: of_keys, ..Default::default() };
        page_token_invalid(system.call(request).await);
        let request = ListPermissionsRequest { page_token: of_roles.clone(), ..Default::default() };
        page_token_invalid(admin.call(request).await);
        let other_filter = [
            ListEventsRequest { category: "keyledger/use".into(), ..Default::default() },
            ListEventsRequest { key_id: SOME_KEY.into(), ..Default::default() },
        ];
        for filter in other_filter {
            let request = ListEventsRequest { page_token: of_events.clone(), ..filter };
            page_token_invalid(admin.call(request).await);
        }
        // Another size is the same query.
        let request = ListEventsRequest { page_token: of_events, page_size: 3, ..events };
        admin.call(request).await.unwrap();
    });
}

#[track_caller]
fn page_token_invalid<T>(result: Result<T, tonic::Status>) {
    refused(result).with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
}

#[test]
fn an_entry_that_fits_no_leaf_is_refused_and_one_that_just_fits_is_written() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let long = (0..32).map(|i| format!("{i:02}{}", "p".repeat(126))).collect::<Vec<_>>();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        let key = |count| service_key("robot", vec![grant_of(&long, "logs/error"); count]);
        let mark = d.mark().await;
        for count in [64, 16] {
            refused(admin.call(key(count)).await)
                .with(Code::InvalidArgument, ErrorReason::EntryTooLarge);
            let role = role("robots", key(count).grants);
            refused(admin.call(role).await).with(Code::InvalidArgument, ErrorReason::EntryTooLarge);
        }
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), 4);
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Deny, DecisionReason::InvalidRequest));
        }
        let made = admin.call(key(15)).await.unwrap();
        assert_eq!(made.key.unwrap().grants.len(), 15);
    });
}

#[test]
fn a_message_of_more_than_a_mebibyte_is_refused() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let create = "/keyledger.v1.KeyService/CreateKey";
        let of_size = |bytes: usize| {
            let purpose = "p".repeat(bytes - 100);
            CreateKeyRequest { purpose, ..CreateKeyRequest::default() }.encode_to_vec()
        };
        let mark = d.mark().await;
        for bytes in [1_100_000, 10_000_000] {
            refused(admin.raw(create, of_size(bytes).into()).await)
                .with(Code::ResourceExhausted, ErrorReason::MessageTooLarge);
        }
        refused(admin.raw(create, of_size(1_000_000).into()).await)
            .with(Code::InvalidArgument, ErrorReason::InvalidField);
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), 3);
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Deny, DecisionReason::InvalidRequest));
        }
    });
}

#[test]
fn a_caller_without_a_good_token_is_refused_before_its_message_is_read() {
    scenario(async |d| {
        let replica = d.replica().await;
        let anonymous = replica.anonymous();
        let callers = [
            anonymous.clone(),
            anonymous.with_header("authorization", "Basic YWxpY2U6c2VjcmV0"),
            anonymous.with_header("authorization", &format!("Bearer {}", "x".repeat(4_000))),
        ];
        for caller in &callers {
            // The message never comes; the answer does.
            let answer = caller.without_body("/keyledger.v1.KeyService/CreateKey").await;
            refused(answer).with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        }
    });
}

#[test]
fn a_method_that_does_not_exist_is_unimplemented() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let mark = d.mark().await;
        let answer = admin.raw("/keyledger.v1.KeyService/DeleteEverything", vec![].into()).await;
        refused(answer).with(Code::Unimplemented, ErrorReason::NoSuchMethod);
        assert!(d.since(&mark).await.is_empty());
    });
}
