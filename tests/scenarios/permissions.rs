//! The catalogue of permissions: what services add to it, whose a prefix is, and how it is listed.

use keyledger_ledger::permissions::{MAX_PREFIXES, RESERVED};
use keyledger_proto::entry::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

/// A key of a service that may register whatever it likes, and see it.
async fn registrar(replica: &Replica, name: &str) -> Caller {
    let grants = vec![grant("permissions.register", "permissions/*"), grant("roles.read", "roles")];
    let made = replica.admin().call(service_key(name, grants)).await.unwrap();
    replica.caller(&made.token)
}

/// What services registered, in the order of the list.
async fn registered(caller: &Caller) -> Vec<Permission> {
    let all = ListPermissionsRequest { page_size: 1000, ..Default::default() };
    let reply = caller.call(all).await.unwrap();
    assert_eq!(reply.next_page_token, "");
    let ours = permissions::all();
    let (first, registered) = reply.permissions.split_at(ours.len());
    assert_eq!(first, ours, "Keyledger's own come first");
    registered.to_vec()
}

fn names(permissions: &[Permission]) -> Vec<&str> {
    permissions.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn a_service_adds_its_permissions_to_the_catalogue_of_its_ledger_with_a_sentence_each() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let billing = registrar(&a, "billing").await;
        let request = register("billing", &["billing.write", "billing.invoices.read"]);
        let reply = billing.call(request).await.unwrap();
        assert!(reply.position.is_some());
        let expected = |name: &str, sentence: &str| Permission {
            name: name.into(),
            description: sentence.into(),
            resources: vec![],
            registered_by: "billing".into(),
        };
        let expected = [
            expected("billing.invoices.read", "Lets do what billing invoices read means."),
            expected("billing.write", "Lets do what billing write means."),
        ];
        assert_eq!(reply.permissions, expected);
        assert_eq!(registered(&b.admin()).await, expected);

        // A whole set takes the place of the one before.
        let one = register("billing", &["billing.read"]);
        billing.with_token(&d.tokens.admin).call(one.clone()).await.unwrap_err();
        billing.call(one).await.unwrap();
        assert_eq!(names(&registered(&b.admin()).await), ["billing.read"]);
        // Another ledger knows nothing of it.
        assert_eq!(registered(&b.system_admin()).await, []);

        // A replica that starts later finds it beside its projected rows.
        let later = d.replica().await;
        assert_eq!(names(&registered(&later.admin()).await), ["billing.read"]);
        assert!(!later.log().contains("is not believed"), "{}", later.log());
    });
}

#[test]
fn the_first_registrar_owns_a_prefix_with_all_keys_of_the_same_owner() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        registrar(&a, "billing").await.call(register("billing", &["billing.read"])).await.unwrap();
        let taken = |result: Result<RegisterPermissionsResponse, tonic::Status>| {
            let refusal = refused(result);
            assert_eq!(refusal.metadata["prefix"], "billing");
            refusal.with(Code::AlreadyExists, ErrorReason::PrefixTaken);
        };
        let mark = d.mark().await;
        let other = registrar(&b, "payroll").await;
        taken(other.call(register("billing", &["billing.steal"])).await);
        let (_, left) = d.since_in_one(&mark).await;
        let left = left.last().unwrap().as_use();
        assert_eq!(verdict(left), (Decision::Deny, DecisionReason::Refused));
        // Not even who may do everything.
        taken(b.admin().call(register("billing", &["billing.steal"])).await);

        let same_owner = registrar(&b, "billing").await;
        same_owner.call(register("billing", &["billing.write"])).await.unwrap();
        let later = d.replica().await;
        assert_eq!(names(&registered(&later.admin()).await), ["billing.write"]);
        taken(later.admin().call(register("billing", &["billing.steal"])).await);
    });
}

#[test]
fn a_prefix_of_a_person_is_that_persons_and_names_nobody() {
    scenario(async |d| {
        let replica = d.replica().await;
        let key_of = async |name: &str| {
            let grants = vec![grant("permissions.register", "permissions/tools")];
            let request = CreateKeyRequest { grants, ..user_key(name) };
            replica.caller(&replica.admin().call(request).await.unwrap().token)
        };
        let tools = || register("tools", &["tools.run"]);
        key_of("alice@example.com").await.call(tools()).await.unwrap();
        key_of("alice@example.com").await.call(tools()).await.unwrap();
        let bob = key_of("bob@example.com").await;
        refused(bob.call(tools()).await).with(Code::AlreadyExists, ErrorReason::PrefixTaken);
        let listed = registered(&replica.admin()).await;
        assert_eq!((names(&listed), listed[0].registered_by.as_str()), (vec!["tools.run"], ""));
        // The permission is asked for on the prefix.
        let refusal = refused(bob.call(register("other", &["other.run"])).await);
        assert_eq!(refusal.metadata["resource"], "permissions/other");
        refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn a_prefix_of_keyledger_itself_can_not_be_registered() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        for prefix in RESERVED {
            let mark = d.mark().await;
            let name = format!("{prefix}.anything");
            let refusal = refused(admin.call(register(prefix, &[&name])).await);
            assert_eq!(refusal.fields, ["prefix"]);
            refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
            let (_, left) = d.since_in_one(&mark).await;
            assert_eq!(left.len(), 1);
            assert_eq!(verdict(left[0].as_use()), (Decision::Deny, DecisionReason::InvalidRequest));
        }
        assert_eq!(registered(&admin).await, []);
    });
}

#[test]
fn a_dry_run_registers_nothing_and_a_repeat_registers_once() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let request = register("billing", &["billing.read"]);
        let tried = RegisterPermissionsRequest { validate_only: true, ..request.clone() };
        let tried = admin.call(tried).await.unwrap();
        assert_eq!((names(&tried.permissions), tried.position), (vec!["billing.read"], None));
        assert_eq!(tried.permissions[0].description, "Lets do what billing read means.");
        assert_eq!(registered(&admin).await, []);

        let request_id = "01a2009e-7983-8000-8000-06eea8bb72ed".to_string();
        let request = RegisterPermissionsRequest { request_id, ..request };
        let made = admin.call(request.clone()).await.unwrap();
        assert_eq!(admin.call(request.clone()).await.unwrap(), made);
        let other = register("billing", &["billing.write"]);
        let other = RegisterPermissionsRequest { request_id: request.request_id, ..other };
        refused(admin.call(other).await).with(Code::AlreadyExists, ErrorReason::RequestIdReused);
        assert_eq!(registered(&admin).await, made.permissions);
    });
}

#[test]
fn the_largest_set_fits_and_a_ledger_holds_so_many_prefixes_and_no_more() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let name = |n: usize| format!("largest.{n:02}{}", "x".repeat(118));
        let permissions = (0..100).map(|n| NewPermission {
            name: name(n),
            description: format!("{n:02}{}", "y".repeat(254)),
        });
        let largest = RegisterPermissionsRequest {
            prefix: "largest".into(),
            permissions: permissions.collect(),
            ..register("", &[])
        };
        assert_eq!((largest.permissions[0].name.len(), largest.permissions.len()), (128, 100));
        admin.call(largest).await.unwrap();
        // In another order than that of the names as wholes: `-` comes before `.`.
        let prefix = |n: usize| if n == 1 { "p".to_string() } else { format!("p-{n:02}") };
        let some = |n: usize| {
            let prefix = prefix(n);
            register(&prefix, &[&format!("{prefix}.a"), &format!("{prefix}.b")])
        };
        let all = (1..MAX_PREFIXES).map(|n| admin.call(some(n)));
        futures_util::future::try_join_all(all).await.unwrap();
        let refusal = refused(admin.call(some(MAX_PREFIXES)).await);
        assert_eq!(refusal.metadata["limit"], "prefixes");
        refusal.with(Code::ResourceExhausted, ErrorReason::LedgerLimit);
        admin.call(some(1)).await.unwrap();

        let under = |n: usize| [format!("{}.a", prefix(n)), format!("{}.b", prefix(n))];
        let mut expected: Vec<String> = (0..100).map(name).collect();
        expected.extend((1..MAX_PREFIXES).flat_map(under));
        let whole = registered(&admin).await;
        assert_eq!(names(&whole), expected);
        for page_size in [1, 7, 100] {
            let (mut listed, mut page_token) = (vec![], String::new());
            loop {
                let request = ListPermissionsRequest { page_size, page_token };
                let page = admin.call(request).await.unwrap();
                let own = page.permissions.iter().filter(|p| !p.resources.is_empty()).count();
                assert!(page.permissions.len() - own <= page_size as usize);
                assert_eq!(own, if listed.is_empty() { permissions::all().len() } else { 0 });
                listed.extend(page.permissions);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(&listed[permissions::all().len()..], whole);
        }
    });
}
