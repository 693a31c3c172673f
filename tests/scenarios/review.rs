//! Access reviews: what a report of a period shows is what was true then; and who signed it off.

use keyledger_proto::entry::RevocationKind;
use keyledger_proto::review::{Report, digest};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::harness::*;
use crate::offline::{connection, folder};
use crate::past::without_uses;
use crate::site::{LEAST_CONTRAST, MISSING_FOR_READERS, pictures, url};

async fn review(caller: &Caller, request: GetAccessReviewRequest) -> Result<Report, Status> {
    let mut parts = caller.stream(request).await?;
    let mut report = Report::default();
    while let Some(reply) = parts.message().await? {
        assert!(report.end.is_none(), "the end comes last");
        report.add(reply.part.expect("each reply holds a part"));
    }
    assert!(report.is_complete());
    Ok(report)
}

fn period(from: Timestamp, to: Timestamp) -> GetAccessReviewRequest {
    GetAccessReviewRequest { from_time: Some(from), to_time: Some(to), ..Default::default() }
}

/// When an entry was written.
async fn time_of(caller: &Caller, position: Option<u64>) -> Timestamp {
    let raw = EventView::Raw as i32;
    let request = GetEventRequest { position, view: raw, ..Default::default() };
    caller.call(request).await.unwrap().event.unwrap().time.unwrap()
}

fn just_before(time: Timestamp) -> Timestamp {
    match time.nanos {
        0 => Timestamp { seconds: time.seconds - 1, nanos: 999_999_000 },
        nanos => Timestamp { nanos: nanos - 1_000, ..time },
    }
}

async fn key_at(caller: &Caller, key_id: &str, time: Timestamp) -> Option<Key> {
    let as_of = Some(get_key_request::AsOf::AsOfTime(just_before(time)));
    let reply =
        caller.call(GetKeyRequest { key_id: key_id.into(), as_of, include_traces: false }).await;
    reply.ok().map(|reply| without_uses(vec![reply.key.unwrap()]).remove(0))
}

fn compared(key: Option<Key>) -> Option<Key> {
    key.map(|key| without_uses(vec![key]).remove(0))
}

/// Keys that lived before, in, and after a period, and the period.
struct Story {
    from: Timestamp,
    to: Timestamp,
    stays: String,
    changed: String,
    ended: String,
    came: String,
    before: String,
    after: String,
}

async fn tell(admin: &Caller) -> Story {
    let made = async |name: &str| {
        let request = service_key(name, vec![grant("audit.read", "logs/error")]);
        admin.call(request).await.unwrap().key.unwrap().key_id
    };
    let (stays, changed, ended) = (made("stays").await, made("changed").await, made("ended").await);
    let before = made("before").await;
    admin.call(revoke(&before)).await.unwrap();
    let begin = admin.call(role("readers", vec![grant("audit.read", "logs/**")])).await.unwrap();
    let came = made("came").await;
    let roles = vec!["readers".into()];
    let update = UpdateKeyRequest { roles, ..update(&changed, &["roles"]) };
    admin.call(update).await.unwrap();
    admin.call(revoke(&ended)).await.unwrap();
    let end = admin.call(suspend(&came)).await.unwrap();
    let after = made("after").await;
    admin.call(revoke(&stays)).await.unwrap();
    let from = time_of(admin, begin.role.unwrap().position).await;
    let to = time_of(admin, end.position).await;
    Story { from, to, stays, changed, ended, came, before, after }
}

#[test]
fn a_review_shows_what_was_true_in_its_period() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let story = tell(&admin).await;
        let report = review(&admin, period(story.from, story.to)).await.unwrap();
        for holding in &report.holdings {
            let end = holding.at_end.clone().unwrap();
            let was = key_at(&admin, &end.key_id, story.from).await;
            assert_eq!(compared(holding.at_start.clone()), was);
            let is = key_at(&admin, &end.key_id, story.to).await;
            assert_eq!(compared(holding.at_end.clone()), is);
            let came = end.key_id == story.came;
            assert_eq!((holding.at_start.is_none(), holding.come_time.is_some()), (came, came));
            assert_eq!(holding.go_time.is_some(), end.key_id == story.ended);
        }
        let mut held: Vec<&str> =
            report.holdings.iter().map(|h| h.at_end.as_ref().unwrap().key_id.as_str()).collect();
        let own = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let mut lived = vec![&*own, &story.stays, &story.changed, &story.ended, &story.came];
        held.sort_unstable();
        lived.sort_unstable();
        assert_eq!(held, lived, "neither {} nor {}", story.before, story.after);

        // Exactly the changes that the log has of that time; that which ends the period is not in it.
        let listed = ListEventsRequest {
            category: "keyledger/lifecycle".into(),
            filter: Some(EventFilter {
                start_time: Some(story.from),
                end_time: Some(story.to),
                ..Default::default()
            }),
            order: EventOrder::OldestFirst as i32,
            page_size: 1_000,
            ..Default::default()
        };
        let events = admin.call(listed).await.unwrap().events;
        let changes = |e: &AuditEvent| (e.position, e.r#type.clone(), e.key_id.clone());
        let of_log: Vec<_> = events.iter().filter(|e| e.index.is_none()).map(changes).collect();
        let of_review: Vec<_> = report
            .changes
            .iter()
            .map(|c| (c.position, c.r#type.clone(), c.key_id.clone()))
            .collect();
        assert_eq!(of_review, of_log);
        let types: Vec<&str> = report.changes.iter().map(|c| c.r#type.as_str()).collect();
        assert_eq!(types, ["role.created", "key.created", "key.updated", "key.revoked"]);
        assert_eq!(report.changes[0].subject, "readers");
        assert_eq!(report.changes[2].changed, ["roles"]);
        let given = |n: usize| report.changes[n].given.clone().unwrap();
        assert_eq!(given(0).grants, [grant("audit.read", "logs/**")]);
        assert_eq!(given(1).grants, [grant("audit.read", "logs/error")]);
        assert_eq!(
            given(1).owner,
            Some(Owner { owner: Some(owner::Owner::Service("came".into())) })
        );
        assert_eq!(given(2).roles, ["readers"]);
        assert!(report.changes[3].given.is_none() && !report.changes[3].sentence.is_empty());
        for (change, event) in report.changes.iter().zip(&events) {
            assert_eq!(change.leaf_hash, event.leaf_hash);
            assert_eq!((&change.reason, &change.caller_key_id), (&event.reason, &own));
            let caller = owner::Owner::Service("keyledger-admin".into());
            assert_eq!(change.caller.as_ref().unwrap().owner, Some(caller));
        }

        // The same from any replica, whenever it is asked for again.
        let again = GetAccessReviewRequest {
            as_of_position: report.summary.as_of_position,
            ..period(story.from, story.to)
        };
        admin.call(role("later", vec![grant("a.b", "c")])).await.unwrap();
        assert_eq!(review(&b.admin(), again.clone()).await.unwrap().json(), report.json());
        let one = GetAccessReviewRequest { key_id: story.changed.clone(), ..again };
        let one = review(&admin, one).await.unwrap();
        assert_eq!((one.holdings.len(), one.changes.len()), (1, 1));
    });
}

#[test]
fn what_a_role_gave_at_both_ends_is_told_and_who_held_it() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let narrow = vec![grant("audit.read", "logs/error")];
        admin.call(role("reporter", narrow.clone())).await.unwrap();
        let request = CreateKeyRequest {
            roles: vec!["reporter".into()],
            expiry: None,
            ..user_key("alice@example.com")
        };
        let holder = admin.call(request).await.unwrap().key.unwrap();
        let begin = admin.call(role("other", vec![grant("a.b", "c")])).await.unwrap();
        let from = time_of(&admin, begin.role.unwrap().position).await;
        let wide = vec![grant("audit.read", "logs/**")];
        let update = UpdateRoleRequest {
            name: "reporter".into(),
            grants: wide.clone(),
            update_mask: Some(prost_types::FieldMask { paths: vec!["grants".into()] }),
            reason: "they need more".into(),
            ..Default::default()
        };
        admin.call(update).await.unwrap();
        let policy = LedgerPolicy { notice_days: vec![60, 5], ..LedgerPolicy::default() };
        let policy = UpdateLedgerPolicyRequest {
            name: "default".into(),
            ..update_policy(&["notice_days"], policy)
        };
        admin.call(policy).await.unwrap();
        // Without an end it goes up to now: what was just changed is in it.
        admin.call(suspend(&holder.key_id)).await.unwrap();
        let request = GetAccessReviewRequest { from_time: Some(from), ..Default::default() };
        let report = review(&admin, request).await.unwrap();
        assert_eq!(report.changes.last().unwrap().r#type, "key.suspended");
        let held =
            report.holdings.iter().find(|h| h.at_end.as_ref().unwrap().key_id == holder.key_id);
        assert_eq!(held.unwrap().roles_changed, ["reporter"]);
        let [told] = &report.roles[..] else { panic!("{:?}", report.roles) };
        assert_eq!(told.name, "reporter");
        assert_eq!(told.at_start.as_ref().unwrap().grants, narrow);
        assert_eq!(told.at_end.as_ref().unwrap().grants, wide);
        let of = |kind: &str| report.changes.iter().find(|c| c.r#type == kind).unwrap();
        assert_eq!(of("role.updated").given.as_ref().unwrap().grants, wide);
        let policy = of("ledger.policy-updated").given.clone().unwrap().policy.unwrap();
        assert_eq!(policy.notice_days, [60, 5]);
        let csv = String::from_utf8(report.csv()).unwrap();
        assert!(
            csv.contains("notice days: 60, 5") && csv.contains("audit.read on logs/**"),
            "{csv}"
        );
    });
}

#[test]
fn what_stands_out_is_named() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let policy = LedgerPolicy {
            approval_permissions: vec!["keys.create".into()],
            ..LedgerPolicy::default()
        };
        let longer = CreateKeyRequest {
            expiry: Some(create_key_request::Expiry::Ttl(seconds(300 * 86_400))),
            ..user_key("alice@example.com")
        };
        let longer = admin.call(longer).await.unwrap().key.unwrap().key_id;
        let manager = CreateKeyRequest {
            grants: vec![grant_of(&["keys.create", "audit.read"], "**")],
            expiry: None,
            ..user_key("bob@example.com")
        };
        let manager = admin.call(manager).await.unwrap();
        let bob = admin.with_token(&manager.token);
        let own = CreateKeyRequest { expiry: None, ..user_key("bob@example.com") };
        let own = bob.call(own).await.unwrap().key.unwrap().key_id;
        admin.call(owner_left("alice@example.com")).await.unwrap();
        let changed = update_policy(&["approval_permissions"], policy);
        let changed = UpdateLedgerPolicyRequest { name: "default".into(), ..changed };
        admin.call(changed).await.unwrap();
        let shorter = LedgerPolicy {
            default_life: Some(seconds(86_400)),
            max_life: Some(seconds(100 * 86_400)),
            ..LedgerPolicy::default()
        };
        let shorter = update_policy(&["default_life", "max_life"], shorter);
        let shorter = UpdateLedgerPolicyRequest { name: "default".into(), ..shorter };
        admin.call(shorter).await.unwrap();
        let last =
            admin.call(role("last", vec![grant("a.b", "c")])).await.unwrap().role.unwrap().position;
        let to = time_of(&admin, last).await;
        let from = Timestamp { seconds: 1, nanos: 0 };
        let report = review(&admin, period(from, to)).await.unwrap();
        let admins = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let manager = manager.key.unwrap().key_id;
        use ReviewExceptionKind::*;
        let mut expected = vec![
            (NoExpiry, &admins, false),
            (Everything, &admins, false),
            (WithoutResponsible, &admins, false),
            (LongerThanPolicy, &longer, false),
            (Left, &longer, false),
            (WithoutApproval, &longer, true),
            (WithoutApproval, &manager, true),
            (WithoutApproval, &own, true),
            (SelfGranted, &own, true),
        ];
        let mut found: Vec<_> =
            report.exceptions.iter().map(|e| (e.kind(), &e.key_id, e.position.is_some())).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_review_needs_both_keys_and_the_log_and_says_what_is_wrong_with_a_request() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let good = period(at(1), at(2));
        let with = async |role: &str, grants: Vec<entry::Grant>| {
            let roles = if role.is_empty() { vec![] } else { vec![role.into()] };
            let request = CreateKeyRequest { roles, ..service_key("reader", grants) };
            admin.with_token(&admin.call(request).await.unwrap().token)
        };
        let auditor = with("auditor", vec![]).await;
        assert_eq!(review(&auditor, good.clone()).await.unwrap().holdings, []);
        let keys_only = with("", vec![grant("keys.read", "keys")]).await;
        let refusal = refused(review(&keys_only, good.clone()).await);
        assert_eq!(refusal.metadata["permission"], "audit.read");
        assert_eq!(refusal.metadata["resource"], "logs/keyledger/lifecycle");
        refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let log_only = with("log-reader(keyledger/lifecycle)", vec![]).await;
        refused(review(&log_only, good.clone()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);

        let wrong = async |request| refused(review(&admin, request).await).fields;
        let none = GetAccessReviewRequest::default();
        assert_eq!(wrong(none).await, ["from_time"]);
        assert_eq!(wrong(period(at(2), at(2))).await, ["to_time"]);
        assert_eq!(wrong(period(at(1), at(1 << 40))).await, ["to_time"]);
        let far = GetAccessReviewRequest { as_of_position: Some(1 << 40), ..good.clone() };
        assert_eq!(wrong(far).await, ["as_of_position"]);
        let key_id = "no key".into();
        assert_eq!(wrong(GetAccessReviewRequest { key_id, ..good.clone() }).await, ["key_id"]);
        let key_id = "0198c5a0-0000-8000-8000-000000000001".into();
        refused(review(&admin, GetAccessReviewRequest { key_id, ..good }).await)
            .with(Code::NotFound, ErrorReason::KeyNotFound);
    });
}

#[test]
fn a_signature_is_an_entry_and_stands_in_the_next_review() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let story = tell(&admin).await;
        let request = CreateKeyRequest {
            grants: vec![grant("reviews.sign", "reviews")],
            roles: vec!["auditor".into()],
            expiry: None,
            ..user_key("eve@example.com")
        };
        let eve = admin.with_token(&admin.call(request).await.unwrap().token);
        let report = review(&eve, period(story.from, story.to)).await.unwrap();
        let sign = SignAccessReviewRequest {
            from_time: report.summary.from_time,
            to_time: report.summary.to_time,
            as_of_position: report.summary.as_of_position,
            report_sha256: digest(&report.json()).to_vec(),
            approved: true,
            reason: "looked at every key".into(),
            request_id: "01a2009e-7983-8000-8000-06eea8bb72ed".into(),
            approval_ref: "AUD-2026-4".into(),
            ..Default::default()
        };
        let tried = SignAccessReviewRequest { validate_only: true, ..sign.clone() };
        assert_eq!(eve.call(tried).await.unwrap().position, None);
        let signed = eve.call(sign.clone()).await.unwrap();
        assert_eq!(eve.call(sign.clone()).await.unwrap(), signed);

        let next = review(&eve, period(story.from, story.to)).await.unwrap();
        let [found] = next.sign_offs.as_slice() else { panic!("{:?}", next.sign_offs) };
        assert_eq!((found.position, &found.report_sha256), (signed.position, &sign.report_sha256));
        assert_eq!((found.approved, found.reason.as_str()), (true, "looked at every key"));
        assert_eq!(found.approval_ref, "AUD-2026-4");
        assert_eq!(
            found.signer.clone().unwrap().owner,
            Some(owner::Owner::User("eve@example.com".into()))
        );
        assert_eq!((found.from_time, found.to_time), (Some(story.from), Some(story.to)));
        // As of before it was given, it isn't there.
        let before = GetAccessReviewRequest {
            as_of_position: report.summary.as_of_position,
            ..period(story.from, story.to)
        };
        assert_eq!(review(&admin, before).await.unwrap().sign_offs, []);
        let event = GetEventRequest { position: signed.position, ..Default::default() };
        let event = admin.call(event).await.unwrap().event.unwrap();
        assert_eq!(event.r#type, "review.signed");

        let wrong = async |request: SignAccessReviewRequest| {
            let request = SignAccessReviewRequest { request_id: String::new(), ..request };
            refused(eve.call(request).await).fields
        };
        let short = SignAccessReviewRequest { report_sha256: vec![7; 31], ..sign.clone() };
        assert_eq!(wrong(short).await, ["report_sha256"]);
        let far = SignAccessReviewRequest { as_of_position: Some(1 << 40), ..sign.clone() };
        assert_eq!(wrong(far).await, ["as_of_position"]);
        let none = SignAccessReviewRequest { as_of_position: None, ..sign.clone() };
        assert_eq!(wrong(none).await, ["as_of_position"]);
        let future = Some(Timestamp { seconds: 1 << 40, nanos: 0 });
        let future = SignAccessReviewRequest { to_time: future, ..sign.clone() };
        assert_eq!(wrong(future).await, ["to_time"]);
        let auditor = service_key("auditor", vec![]);
        let auditor = CreateKeyRequest { roles: vec!["auditor".into()], ..auditor };
        let auditor = admin.with_token(&admin.call(auditor).await.unwrap().token);
        refused(auditor.call(sign).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn the_command_writes_a_report_and_signs_exactly_that() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let hostile = CreateKeyRequest {
            purpose: "=cmd|' /C calc'!A0 <script>alert(1)</script>".into(),
            ..service_key("hostile", vec![])
        };
        admin.call(hostile).await.unwrap();
        let last =
            admin.call(role("last", vec![grant("a.b", "c")])).await.unwrap().role.unwrap().position;
        let to = time_of(&admin, last).await.to_string();
        let run = async |arguments: &[&str]| {
            let arguments = arguments.iter().map(|a| a.to_string());
            let output = d.run(arguments.chain(connection(d, &replica))).await;
            assert!(output.status.success(), "{}", output.text);
            output.text
        };
        let file = |name: &str| folder(d).join(name).display().to_string();
        for (format, name) in [("html", "q.html"), ("csv", "q.csv"), ("json", "q.json")] {
            let review = ["access", "review", "--from", "2020-01-01T00:00:00Z", "--to", &to];
            let output = file(name);
            let printed =
                run(&[&review[..], &["--format", format, "--output", &output]].concat()).await;
            let text = std::fs::read_to_string(&output).unwrap();
            let json = if format == "json" { output } else { format!("{output}.json") };
            let json = std::fs::read_to_string(json).unwrap();
            assert!(printed.contains(&hex::encode(digest(&json))), "{printed}");
            assert!(json.contains("hostile"));
            assert!(!text.contains("<script") || format != "html");
            assert!(!text.contains(",=cmd") && !text.contains(",\"=cmd"));
        }
        let report = file("q.json");
        let sign = ["access", "sign", &report, "--approve", "--reason", "looked at all of it"];
        let foreign =
            |arguments: Vec<String>| d.run(arguments.into_iter().chain(connection(d, &replica)));
        let arguments = |file: &str, more: &[&str]| -> Vec<String> {
            let sign = ["access", "sign", file, "--approve", "--reason", "tampered with"];
            sign.iter().chain(more).map(|a| a.to_string()).collect()
        };
        // What the server never gave isn't signed, unless that is asked for.
        let tampered = file("tampered.json");
        let text = std::fs::read_to_string(&report).unwrap().replace("hostile", "friendly");
        std::fs::write(&tampered, &text).unwrap();
        let refused = foreign(arguments(&tampered, &[])).await;
        assert!(!refused.status.success() && refused.text.contains("differ in holdings"));
        let unchecked = foreign(arguments(&tampered, &["--unchecked"])).await;
        assert!(unchecked.status.success(), "{}", unchecked.text);
        assert!(unchecked.text.contains("differ in holdings"), "{}", unchecked.text);
        let text: serde_json::Value = serde_json::from_str(&text).unwrap();
        let id = text["summary"]["ledger"]["ledgerId"].as_str().unwrap();
        let other = text.to_string().replace(id, "0198c5a0-0000-8000-8000-000000000001");
        std::fs::write(&tampered, other).unwrap();
        let refused = foreign(arguments(&tampered, &["--unchecked"])).await;
        assert!(!refused.status.success() && refused.text.contains("another ledger"));
        let printed = run(&sign).await;
        let signed = std::fs::read_to_string(&report).unwrap();
        assert!(printed.contains(&hex::encode(digest(&signed))));
        let next = file("next.json");
        let review = ["access", "review", "--from", "2020-01-01T00:00:00Z", "--to", &to];
        run(&[&review[..], &["--format", "json", "--output", &next]].concat()).await;
        let next: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&next).unwrap()).unwrap();
        let signed: Vec<&str> = next["signOffs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["reason"].as_str().unwrap())
            .collect();
        assert_eq!(signed, ["tampered with", "looked at all of it"]);
        let later = file("later.html");
        let review = ["access", "review", "--from", "2020-01-01T00:00:00Z", "--output", &later];
        let printed = run(&review).await;
        assert!(printed.contains("2, of other periods or keys"), "{printed}");
        let printed = run(&["access", "findings", "--kind", "key-without-responsible"]).await;
        assert!(printed.contains("--responsible NAME"), "{printed}");
    });
}

#[test]
fn the_page_of_a_review_is_inert_and_readable_in_a_real_browser() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        tell(&admin).await;
        let hostile =
            "</td><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>";
        for name in ["mallory@example.com", "<b onclick=alert(1)>mallory"] {
            let key = CreateKeyRequest { purpose: hostile.into(), ..user_key(name) };
            let key = admin.call(key).await.unwrap().key.unwrap().key_id;
            let update = UpdateKeyRequest { reason: hostile.into(), ..update(&key, &["purpose"]) };
            admin.call(UpdateKeyRequest { purpose: hostile.into(), ..update }).await.unwrap();
        }
        let last = admin.call(role("last", vec![grant("a.b", "c")])).await.unwrap();
        let to = time_of(&admin, last.role.unwrap().position).await.to_string();
        let parent = tempfile::tempdir().unwrap();
        let page = parent.path().join("review.html");
        let output = page.display().to_string();
        let arguments = [
            "access",
            "review",
            "--from",
            "2020-01-01T00:00:00Z",
            "--to",
            &to,
            "--output",
            &output,
        ];
        let arguments = arguments.iter().map(|a| a.to_string());
        let written = d.run(arguments.chain(connection(d, &replica))).await;
        assert!(written.status.success(), "{}", written.text);
        let mut browser = Browser::start().await;
        browser.look(360, false).await;
        browser.open(&url(&page)).await;
        assert_eq!(browser.value("window.owned === undefined").await, true);
        assert_eq!(browser.value("document.querySelectorAll('img, script, b').length").await, 0);
        assert!(
            browser.value("document.body.textContent").await.as_str().unwrap().contains(hostile)
        );
        assert_eq!(browser.complaints(), Vec::<String>::new());
        assert_eq!(browser.requests(), [url(&page)]);
        let beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.value(beyond).await, 0, "it is wider than a phone");
        assert_eq!(browser.value(MISSING_FOR_READERS).await, serde_json::json!([]));
        for dark in [false, true] {
            browser.look(1_280, dark).await;
            let least = browser.value(LEAST_CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "dark: {dark}: {least}");
        }
        for (width, dark) in [(360, false), (360, true), (1_280, false), (1_280, true)] {
            browser.look(width, dark).await;
            let scheme = if dark { "dark" } else { "light" };
            browser.picture(&pictures().join(format!("review-{width}-{scheme}.png"))).await;
        }
        browser.close().await;
    });
}

#[test]
fn how_a_key_went_is_told_once() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap().key.unwrap();
        admin.call(revoke(&made.key_id)).await.unwrap();
        let last =
            admin.call(role("last", vec![grant("a.b", "c")])).await.unwrap().role.unwrap().position;
        let to = time_of(&admin, last).await;
        let request = GetAccessReviewRequest {
            key_id: made.key_id,
            ..period(Timestamp { seconds: 1, nanos: 0 }, to)
        };
        let [holding] = &review(&admin, request).await.unwrap().holdings[..] else { panic!() };
        let end = holding.at_end.clone().unwrap();
        let revocation = end.revocation.unwrap();
        assert_eq!(revocation.kind(), RevocationKind::OwnerLeft);
        assert_eq!(holding.go_time, revocation.time);
        assert_eq!(holding.come_time, end.create_time);
    });
}
