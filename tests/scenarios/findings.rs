//! What is to be tidied up: each finding for exactly what it should be for, with its numbers and a command, until it is mended.
//! And owners who left.

use std::collections::BTreeMap;

use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

const DAY: i64 = 86_400;

fn asked(kinds: &[FindingKind]) -> ListFindingsRequest {
    ListFindingsRequest {
        kinds: kinds.iter().map(|k| *k as i32).collect(),
        thresholds: Some(FindingThresholds {
            expiring_days: 5,
            unused_days: 30,
            never_used_days: 30,
            many_keys: 2,
        }),
        page_size: 1_000,
        ..Default::default()
    }
}

async fn all(caller: &Caller, request: ListFindingsRequest) -> Vec<Finding> {
    let (mut findings, mut page_token) = (vec![], String::new());
    loop {
        let reply = caller.call(ListFindingsRequest { page_token, ..request.clone() }).await;
        let reply = reply.unwrap();
        assert!(reply.findings.len() <= request.page_size as usize);
        findings.extend(reply.findings);
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return findings;
        }
    }
}

/// Keys by a name that says what is to be found of them.
struct Made(BTreeMap<&'static str, (String, String)>);

impl Made {
    async fn add(&mut self, caller: &Caller, name: &'static str, request: CreateKeyRequest) {
        let made = caller.call(request).await.unwrap();
        self.0.insert(name, (made.key.unwrap().key_id, made.token));
    }

    fn id(&self, name: &str) -> String {
        self.0[name].0.clone()
    }

    /// Kinds with the names of what they are about.
    fn named(&self, findings: &[Finding]) -> Vec<(FindingKind, String)> {
        let name = |id: &str| {
            self.0.iter().find(|(_, (key_id, _))| key_id == id).map_or("admin", |(name, _)| name)
        };
        let about = |f: &Finding| match (&f.owner, f.role.as_str()) {
            _ if !f.key_id.is_empty() => name(&f.key_id).to_string(),
            (Some(Owner { owner: Some(owner::Owner::Service(service)) }), _) => service.clone(),
            (_, role) => role.to_string(),
        };
        let mut named: Vec<_> = findings.iter().map(|f| (f.kind(), about(f))).collect();
        named.sort_by_key(|(kind, about)| (*kind as i32, about.clone()));
        named
    }
}

/// A key of a service that somebody answers for, and that is used for all that it may do.
fn good(name: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        responsible: "ann@example.com".into(),
        ..service_key(name, vec![grant("audit.read", "logs/error")])
    }
}

fn person(name: &str) -> CreateKeyRequest {
    CreateKeyRequest { expiry: None, ..user_key(name) }
}

async fn make(admin: &Caller) -> Made {
    let mut made = Made(BTreeMap::new());
    for (name, grants) in [
        ("readers", vec![grant("audit.read", "logs/error"), grant("audit.read", "logs/warn")]),
        ("viewers", vec![grant("audit.read", "logs/warn"), grant("audit.read", "logs/error")]),
        ("unheld", vec![grant("audit.read", "logs/info")]),
    ] {
        admin.call(role(name, grants)).await.unwrap();
    }
    let held =
        |role: &str| CreateKeyRequest { roles: vec![role.into()], ..person("dan@example.com") };
    let broad = vec![grant_of(&["audit.read", "audit.write"], "logs/error")];
    let rotation = Some(RotationPolicy { max_age: Some(seconds(20 * DAY)), suspend_after: None });
    let soon = Some(Expiry::Ttl(seconds(44 * DAY)));
    let soon_too = soon;
    for (name, request) in [
        ("good", good("good")),
        ("reader", held("readers")),
        ("viewer", held("viewers")),
        ("soon", CreateKeyRequest { expiry: soon, ..good("soon") }),
        ("old secret", CreateKeyRequest { rotation, ..good("rotated") }),
        ("unused", good("unused")),
        ("never", good("never")),
        ("broad", CreateKeyRequest { grants: broad, ..good("broad") }),
        ("nobody's", CreateKeyRequest { responsible: String::new(), ..good("lonely") }),
        // Of a key whose owner left nothing else is found: it ends soon, and was not used for long.
        ("bob's", CreateKeyRequest { expiry: soon_too, ..person("bob@example.com") }),
        ("carol's", CreateKeyRequest { responsible: "carol@example.com".into(), ..good("c") }),
        ("many 1", good("many")),
        ("many 2", good("many")),
        ("many 3", good("many")),
    ] {
        made.add(admin, name, request).await;
    }
    made
}

async fn use_all(admin: &Caller, made: &Made, but: &[&str]) {
    for (name, (_, token)) in made.0.iter().filter(|(name, _)| !but.contains(name)) {
        assert_eq!(admin.call(check(token)).await.unwrap().decision, 1, "{name}");
    }
}

#[test]
fn each_finding_is_of_exactly_what_it_should_be_and_vanishes_when_it_is_mended() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = make(&replica.admin()).await;
        use_all(&replica.admin(), &made, &["never"]).await;
        replica.stop().await;
        d.age(40).await;

        let replica = d.replica().await;
        let admin = replica.admin();
        use_all(&admin, &made, &["never", "unused", "bob's"]).await;
        // It is meant to end soon.
        let brief = Some(Expiry::Ttl(seconds(2 * DAY - 1)));
        admin.call(CreateKeyRequest { expiry: brief, ..good("brief") }).await.unwrap();
        for name in ["bob@example.com", "carol@example.com"] {
            let left = admin.call(owner_left(name)).await.unwrap();
            assert_eq!(left.keys + left.responsible_for, 1);
        }
        use FindingKind::*;
        let expected: Vec<(FindingKind, String)> = [
            (KeyExpiring, "soon"),
            (KeyRotationDue, "old secret"),
            (KeyUnused, "unused"),
            (KeyNeverUsed, "never"),
            (KeyBroaderThanUsed, "broad"),
            (KeyBroaderThanUsed, "reader"),
            (KeyBroaderThanUsed, "viewer"),
            (KeyWithoutResponsible, "admin"),
            (KeyWithoutResponsible, "nobody's"),
            (KeyOwnerLeft, "bob's"),
            (KeyResponsibleLeft, "carol's"),
            (RoleWithoutHolders, "unheld"),
            (RoleEqual, "viewers"),
            (OwnerManyKeys, "many"),
        ]
        .map(|(kind, name)| (kind, name.to_string()))
        .to_vec();
        let found = all(&admin, asked(&[])).await;
        assert_eq!(made.named(&found), expected);
        // The same, however it is asked for.
        for page_size in [1, 3] {
            let paged = all(&admin, ListFindingsRequest { page_size, ..asked(&[]) }).await;
            assert_eq!(paged, found);
        }
        for kind in expected.iter().map(|(kind, _)| *kind) {
            let only: Vec<_> = found.iter().filter(|f| f.kind() == kind).cloned().collect();
            assert_eq!(all(&admin, asked(&[kind])).await, only, "{kind:?}");
        }
        let of = |kind: FindingKind, name: &str| {
            let at = |f: &&Finding| f.kind() == kind && made.named(&[(*f).clone()])[0].1 == name;
            found.iter().find(at).unwrap().clone()
        };
        let number =
            |f: &Finding, name: &str| f.numbers.iter().find(|n| n.name == name).unwrap().value;
        assert_eq!(number(&of(KeyExpiring, "soon"), "days_left"), 3);
        let again = format!("keyledger keys update {} --ttl 44d --reason REASON", made.id("soon"));
        assert_eq!(of(KeyExpiring, "soon").command, again);
        let left = of(KeyOwnerLeft, "bob's");
        assert!(left.sentence.contains("as is known since today"), "{}", left.sentence);
        assert!(left.command.contains("revoke-all --user=bob@example.com "), "{}", left.command);
        assert_eq!(
            of(RoleEqual, "viewers").sentence,
            "The role gives exactly what readers gives. It is held by 1 key, and readers by 1 key."
        );
        assert_eq!(number(&of(KeyRotationDue, "old secret"), "days_overdue"), 20);
        assert_eq!(number(&of(KeyUnused, "unused"), "days_unused"), 40);
        assert_eq!(
            of(KeyNeverUsed, "never").sentence,
            "The key is 40 days old and was never used."
        );
        let broad = of(KeyBroaderThanUsed, "broad");
        assert_eq!(broad.unused_grants, [grant("audit.write", "logs/error")]);
        let command = format!(
            "keyledger keys update {} --grant='audit.read on logs/error' --reason REASON",
            made.id("broad")
        );
        assert_eq!(broad.command, command);
        assert_eq!(number(&of(OwnerManyKeys, "many"), "keys"), 3);

        mend(&admin, &made).await;
        // A year of life for the one that ended soon, and nothing else is left of what was found.
        let left = made.named(&all(&admin, asked(&[])).await);
        assert_eq!(left, [(KeyWithoutResponsible, "admin".to_string())]);
    });
}

/// Does what the findings say.
async fn mend(admin: &Caller, made: &Made) {
    let change = |name: &str, fields: &[&str]| update(&made.id(name), fields);
    admin
        .call(UpdateKeyRequest {
            expiry: Some(update_key_request::Expiry::Ttl(seconds(300 * DAY))),
            ..change("soon", &["expiry"])
        })
        .await
        .unwrap();
    admin.call(rotate(&made.id("old secret"), 0)).await.unwrap();
    for name in ["unused", "never"] {
        admin.call(suspend(&made.id(name))).await.unwrap();
    }
    for (name, grants) in [("broad", vec![grant("audit.read", "logs/error")])] {
        admin.call(UpdateKeyRequest { grants, ..change(name, &["grants"]) }).await.unwrap();
    }
    let only = vec![grant("audit.read", "logs/error")];
    admin.call(update_role("readers", only)).await.unwrap();
    for name in ["reader", "viewer"] {
        let roles = vec!["readers".into()];
        admin.call(UpdateKeyRequest { roles, ..change(name, &["roles"]) }).await.unwrap();
    }
    for name in ["nobody's", "carol's"] {
        let responsible = "ann@example.com".into();
        let update = UpdateKeyRequest { responsible, ..change(name, &["responsible"]) };
        admin.call(update).await.unwrap();
    }
    for name in ["bob's", "many 3"] {
        admin.call(revoke(&made.id(name))).await.unwrap();
    }
    for name in ["unheld", "viewers"] {
        admin.call(retire_role(name)).await.unwrap();
    }
}

#[test]
fn a_list_of_findings_says_precisely_what_is_wrong_with_a_request() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let wrong = async |request: ListFindingsRequest| refused(admin.call(request).await);
        let kinds = wrong(ListFindingsRequest { kinds: vec![1, 99], ..Default::default() }).await;
        assert_eq!(kinds.fields, ["kinds[1]"]);
        let thresholds = FindingThresholds {
            expiring_days: 3_661,
            many_keys: 1_000_001,
            ..FindingThresholds::default()
        };
        let thresholds = Some(thresholds);
        let beyond = wrong(ListFindingsRequest { thresholds, ..Default::default() }).await;
        assert_eq!(beyond.fields, ["thresholds.expiring_days", "thresholds.many_keys"]);
        let page_token = "AAAA".to_string();
        wrong(ListFindingsRequest { page_token, ..Default::default() })
            .await
            .with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
        admin.call(person("alice@example.com")).await.unwrap();
        admin.call(service_key("b", vec![])).await.unwrap();
        let first = ListFindingsRequest { page_size: 1, ..Default::default() };
        let page_token = admin.call(first).await.unwrap().next_page_token;
        assert_ne!(page_token, "");
        let other = ListFindingsRequest { kinds: vec![6], page_token, ..Default::default() };
        wrong(other).await.with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
        let reader = admin.call(service_key("r", vec![grant("audit.read", "**")])).await.unwrap();
        let reader = admin.with_token(&reader.token);
        refused(reader.call(ListFindingsRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn who_has_left_is_shown_wherever_owners_are_until_they_are_back() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let bobs = admin.call(person("bob@example.com")).await.unwrap().key.unwrap();
        let robot = CreateKeyRequest { responsible: "bob@example.com".into(), ..good("robot") };
        let robots = admin.call(robot).await.unwrap().key.unwrap();
        let get = async |caller: &Caller, key: &Key| {
            let get =
                GetKeyRequest { key_id: key.key_id.clone(), as_of: None, include_traces: false };
            caller.call(get).await.unwrap().key.unwrap()
        };

        let tried = SetOwnerStatusRequest { validate_only: true, ..owner_left("bob@example.com") };
        let tried = admin.call(tried).await.unwrap();
        assert_eq!((tried.keys, tried.responsible_for, tried.position), (1, 1, None));
        assert_eq!(get(&admin, &bobs).await.owner_left_time, None);

        let request_id = "01a2009e-7983-8000-8000-06eea8bb72ed".to_string();
        let left = SetOwnerStatusRequest { request_id, ..owner_left("bob@example.com") };
        let marked = admin.call(left.clone()).await.unwrap();
        assert_eq!(admin.call(left).await.unwrap(), marked);
        for caller in [&admin, &b.admin()] {
            // A call of its own first: it takes the other replica to the head.
            caller.call(WhoAmIRequest {}).await.unwrap();
            assert!(get(caller, &bobs).await.owner_left_time.is_some());
            let describe = DescribeKeyRequest { key_id: bobs.key_id.clone(), format: 1 };
            let document = caller.call(describe).await.unwrap().document;
            assert!(document.contains("is accepted, though its owner has left."), "{document}");
            assert!(document.contains("**Owner:** bob@example.com (has left)"), "{document}");
            assert!(get(caller, &robots).await.responsible_left_time.is_some());
            assert_eq!(get(caller, &robots).await.owner_left_time, None);
            let owners = caller.call(ListOwnersRequest::default()).await.unwrap().owners;
            assert_eq!(owners.iter().filter(|o| o.left_time.is_some()).count(), 1);
        }
        refused(admin.call(owner_left("bob@example.com")).await)
            .with(Code::FailedPrecondition, ErrorReason::OwnerStatus);
        refused(admin.call(owner_left("nobody@example.com")).await)
            .with(Code::NotFound, ErrorReason::OwnerNotFound);
        let nameless = SetOwnerStatusRequest { owner: None, ..owner_left("") };
        assert_eq!(refused(admin.call(nameless).await).fields, ["owner"]);
        let event = GetEventRequest { position: marked.position, ..Default::default() };
        let event = admin.call(event).await.unwrap().event.unwrap();
        assert_eq!(
            (event.r#type.as_str(), event.reason.as_str()),
            ("owner.status-set", "the last day was Friday")
        );
        let bob = Owner { owner: Some(owner::Owner::User("bob@example.com".into())) };
        assert_eq!(event.owner, Some(bob));

        // What was folded is what a new replica folds.
        a.stop().await;
        let admin = d.replica().await.admin();
        assert!(get(&admin, &bobs).await.owner_left_time.is_some());
        let back = SetOwnerStatusRequest { left: false, ..owner_left("bob@example.com") };
        admin.call(back.clone()).await.unwrap();
        assert_eq!(get(&admin, &bobs).await.owner_left_time, None);
        refused(admin.call(back).await).with(Code::FailedPrecondition, ErrorReason::OwnerStatus);
    });
}
