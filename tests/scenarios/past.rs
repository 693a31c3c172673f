//! The past of a ledger: lists and roles as they were at a position or a time, folded from the signed entries.

use keyledger_proto::entry::Restrictions;
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::harness::*;
use crate::offline::connection;

/// A moment, for whichever request.
#[derive(Clone, Copy, Debug)]
enum AsOf {
    Now,
    Position(u64),
    Time(Timestamp),
}

/// ListKeys, WhoHasAccess and GetRole of a role that comes and goes.
async fn list(caller: &Caller, as_of: AsOf) -> Result<ListKeysResponse, Status> {
    caller.call(list_request(as_of, 1000)).await
}

fn list_request(as_of: AsOf, page_size: i32) -> ListKeysRequest {
    use list_keys_request::AsOf::{AsOfPosition, AsOfTime};
    let as_of = match as_of {
        AsOf::Now => None,
        AsOf::Position(position) => Some(AsOfPosition(position)),
        AsOf::Time(time) => Some(AsOfTime(time)),
    };
    ListKeysRequest { page_size, as_of, ..Default::default() }
}

async fn who(caller: &Caller, as_of: AsOf) -> Result<WhoHasAccessResponse, Status> {
    use who_has_access_request::AsOf::{AsOfPosition, AsOfTime};
    let as_of = match as_of {
        AsOf::Now => None,
        AsOf::Position(position) => Some(AsOfPosition(position)),
        AsOf::Time(time) => Some(AsOfTime(time)),
    };
    let (permission, resource) = ("audit.read".into(), "logs/error".into());
    let request = WhoHasAccessRequest { permission, resource, as_of, ..Default::default() };
    caller.call(request).await
}

async fn get(caller: &Caller, name: &str, as_of: AsOf) -> Result<GetRoleResponse, Status> {
    use get_role_request::AsOf::{AsOfPosition, AsOfTime};
    let as_of = match as_of {
        AsOf::Now => None,
        AsOf::Position(position) => Some(AsOfPosition(position)),
        AsOf::Time(time) => Some(AsOfTime(time)),
    };
    caller.call(GetRoleRequest { name: name.into(), as_of }).await
}

/// Keys without what uses change, and what is said only of now.
pub(crate) fn without_uses(keys: Vec<Key>) -> Vec<Key> {
    let version = |v: KeyVersion| KeyVersion { last_use_time: None, ..v };
    let key = |k: Key| Key {
        versions: k.versions.into_iter().map(version).collect(),
        last_use_time: None,
        uses_left: None,
        ..k
    };
    keys.into_iter().map(key).collect()
}

fn accesses(reply: WhoHasAccessResponse) -> Vec<KeyAccess> {
    let access =
        |a: KeyAccess| KeyAccess { key: without_uses(a.key.into_iter().collect()).pop(), ..a };
    reply.access.into_iter().map(access).collect()
}

/// When the entry before a position was written.
async fn time_before(caller: &Caller, position: u64) -> Timestamp {
    let raw = EventView::Raw as i32;
    let request = GetEventRequest { position: Some(position - 1), view: raw, ..Default::default() };
    caller.call(request).await.unwrap().event.unwrap().time.unwrap()
}

/// What the lists said when they were live, just after a change.
struct Seen {
    /// The change lies just before it.
    position: u64,
    keys: Vec<Key>,
    who: Vec<KeyAccess>,
    role: Option<Role>,
}

async fn see(caller: &Caller, position: Option<u64>) -> Seen {
    Seen {
        position: position.unwrap() + 1,
        keys: without_uses(list(caller, AsOf::Now).await.unwrap().keys),
        who: accesses(who(caller, AsOf::Now).await.unwrap()),
        role: get(caller, "readers", AsOf::Now).await.ok().and_then(|reply| reply.role),
    }
}

/// Keys and a role that change in every way, with uses in between.
async fn tell(admin: &Caller) -> Vec<Seen> {
    let mut seen = vec![];
    let alice = admin.call(user_key("alice@example.com")).await.unwrap();
    seen.push(see(admin, alice.position).await);
    let alice = alice.key.unwrap().key_id;
    let made = admin.call(role("readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
    seen.push(see(admin, made.position).await);
    let robot = CreateKeyRequest {
        roles: vec!["readers".into()],
        restrictions: Some(Restrictions { max_uses: 9, ..Restrictions::default() }),
        ..service_key("robot", vec![])
    };
    let robot = admin.call(robot).await.unwrap();
    admin.call(check(&robot.token)).await.unwrap();
    seen.push(see(admin, robot.position).await);
    let robot = robot.key.unwrap().key_id;
    let less = update_role("readers", vec![grant("audit.read", "logs/warning")]);
    seen.push(see(admin, admin.call(less).await.unwrap().position).await);
    let more = update_role("readers", vec![grant("audit.read", "**")]);
    seen.push(see(admin, admin.call(more).await.unwrap().position).await);
    seen.push(see(admin, admin.call(suspend(&alice)).await.unwrap().position).await);
    seen.push(see(admin, admin.call(rotate(&robot, 600)).await.unwrap().position).await);
    seen.push(see(admin, admin.call(resume(&alice)).await.unwrap().position).await);
    let purpose =
        UpdateKeyRequest { purpose: "export warnings".into(), ..update(&alice, &["purpose"]) };
    seen.push(see(admin, admin.call(purpose).await.unwrap().position).await);
    seen.push(see(admin, admin.call(retire_role("readers")).await.unwrap().position).await);
    seen.push(see(admin, admin.call(revoke(&alice)).await.unwrap().position).await);
    seen
}

#[test]
fn lists_and_roles_are_shown_as_they_were_at_any_position_or_time() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let seen = tell(&a.admin()).await;
        // Backwards and forwards: what was folded for one moment is gone on from for a later one.
        for seen in seen.iter().rev().chain(&seen) {
            let time = AsOf::Time(time_before(&a.admin(), seen.position).await);
            for (replica, as_of) in [(&a, AsOf::Position(seen.position)), (&b, time)] {
                let listed = list(&replica.admin(), as_of).await.unwrap();
                assert_eq!(listed.position, Some(seen.position), "{as_of:?}");
                assert_eq!(listed.keys, seen.keys, "{as_of:?}");
                let access = who(&replica.admin(), as_of).await.unwrap();
                assert_eq!(access.position, Some(seen.position), "{as_of:?}");
                assert_eq!(accesses(access), seen.who, "{as_of:?}");
                let role = get(&replica.admin(), "readers", as_of).await;
                assert_eq!(role.ok().and_then(|reply| reply.role), seen.role, "{as_of:?}");
            }
        }
    });
}

#[test]
fn a_role_was_not_there_before_it_was_made_and_is_there_when_it_was_retired() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.call(role("readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
        let other = vec![grant("audit.read", "logs/error")];
        let updated = admin.call(update_role("readers", other)).await.unwrap();
        let retired = admin.call(retire_role("readers")).await.unwrap();
        let at = |position: Option<u64>| AsOf::Position(position.unwrap());
        refused(get(&admin, "readers", at(made.position)).await)
            .with(Code::NotFound, ErrorReason::RoleNotFound);
        for (end, role) in [(updated.position, made.role), (retired.position, updated.role)] {
            let shown = get(&admin, "readers", at(end)).await.unwrap();
            assert_eq!((shown.role, shown.position), (role, end));
        }
        let head = list(&admin, AsOf::Now).await.unwrap().position;
        let shown = get(&admin, "readers", at(head)).await.unwrap();
        assert_eq!((shown.role, shown.position), (retired.role, head));
        // The predefined ones were always there.
        assert!(get(&admin, "auditor", AsOf::Position(0)).await.unwrap().role.unwrap().predefined);
    });
}

#[test]
fn moments_that_never_were_are_refused_and_before_the_first_entry_there_is_nothing() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let beyond = AsOf::Position(1_000_000);
        for refusal in [
            refused(list(&admin, beyond).await),
            refused(who(&admin, beyond).await),
            refused(get(&admin, "readers", beyond).await),
        ] {
            assert_eq!(refusal.fields, ["as_of_position"]);
        }
        let never = AsOf::Time(Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(refused(list(&admin, never).await).fields, ["as_of_time"]);
        assert_eq!(refused(who(&admin, never).await).fields, ["as_of_time"]);
        assert_eq!(refused(get(&admin, "readers", never).await).fields, ["as_of_time"]);
        for nothing in [AsOf::Position(0), AsOf::Time(Timestamp { seconds: 1, nanos: 0 })] {
            let listed = list(&admin, nothing).await.unwrap();
            assert_eq!((listed.keys.len(), listed.position), (0, Some(0)));
        }
        // When keys were last used is known of now only.
        let unused = KeyFilter { unused_since: Some(Timestamp::default()), ..Default::default() };
        let request =
            ListKeysRequest { filter: Some(unused), ..list_request(AsOf::Position(1), 10) };
        assert_eq!(refused(admin.call(request).await).fields, ["filter.unused_since"]);
    });
}

#[test]
fn all_pages_of_a_list_show_the_same_moment_whatever_happens_meanwhile() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let mut keys = vec![];
        for i in 0..6 {
            let made = admin.call(service_key(&format!("robot/{i}"), vec![])).await.unwrap();
            keys.push(made.key.unwrap().key_id);
        }
        let now = list(&admin, AsOf::Now).await.unwrap();
        // A time that is still to come when the first page is read: later entries are no part of the list.
        let seconds = now.keys[6].create_time.unwrap().seconds + 60;
        let soon = AsOf::Time(Timestamp { seconds, nanos: 0 });
        for as_of in [AsOf::Position(now.position.unwrap()), soon] {
            let (expected, mut found) = (list(&admin, as_of).await.unwrap().keys, vec![]);
            let (mut request, mut position) = (list_request(as_of, 2), None);
            for replica in [&a, &b].into_iter().cycle() {
                let page = replica.admin().call(request.clone()).await.unwrap();
                assert_eq!(*position.get_or_insert(page.position), page.position, "{as_of:?}");
                found.extend(page.keys);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
                let other = ListKeysRequest {
                    page_token: request.page_token.clone(),
                    ..list_request(AsOf::Position(1), 2)
                };
                refused(admin.call(other).await)
                    .with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
                // A new key, and one of the last page is another one now.
                admin.call(service_key("late", vec![])).await.unwrap();
                let purpose = UpdateKeyRequest {
                    purpose: "something else".into(),
                    ..update(&keys[5], &["purpose"])
                };
                admin.call(purpose).await.unwrap();
            }
            assert_eq!(found, expected, "{as_of:?}");
        }
    });
}

#[test]
fn what_lies_behind_too_many_changes_is_refused_except_for_single_keys() {
    scenario(async |d| {
        let replica = d.replica_with("KEYLEDGER_MAX_FOLDED", "3").await;
        let admin = replica.admin();
        let key = admin.call(user_key("alice@example.com")).await.unwrap().key.unwrap();
        admin.call(role("readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
        let early = admin.call(suspend(&key.key_id)).await.unwrap().position.unwrap();
        let late = admin.call(resume(&key.key_id)).await.unwrap().position.unwrap();
        // The opening, the admin's key and alice's.
        assert_eq!(
            list(&admin, AsOf::Position(key.position.unwrap() + 1)).await.unwrap().keys.len(),
            2
        );
        for refusal in [
            refused(list(&admin, AsOf::Position(early)).await),
            refused(who(&admin, AsOf::Position(late)).await),
        ] {
            assert_eq!(refusal.metadata["max_folded"], "3");
            refusal.with(Code::FailedPrecondition, ErrorReason::TooFarBack);
        }
        let as_of = Some(get_key_request::AsOf::AsOfPosition(late));
        let request = GetKeyRequest { key_id: key.key_id, as_of, include_traces: false };
        assert_eq!(admin.call(request).await.unwrap().key.unwrap().state(), KeyState::Suspended);
        get(&admin, "readers", AsOf::Position(late)).await.expect("only two are about no key");
        // Since then nothing was changed: nothing is folded.
        list(&admin, AsOf::Position(late + 1)).await.unwrap();
    });
}

#[test]
fn commands_show_the_past_and_who_uses_what() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        admin.call(role("readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
        let robot = service_key("robot", vec![]);
        let robot = CreateKeyRequest { roles: vec!["readers".into()], ..robot };
        let robot = admin.call(robot).await.unwrap();
        admin.call(check(&robot.token)).await.unwrap();
        let position = (robot.position.unwrap() + 1).to_string();
        let key_id = robot.key.unwrap().key_id;
        admin.call(retire_role("readers")).await.unwrap();
        let run = async |words: &str| {
            let words = words.split(' ').map(String::from).chain(["-o".into(), "json".into()]);
            // It shows what is nobody's business: so not through what is looked through for secrets.
            let words = words.chain(connection(d, &replica));
            let output = d.program().args(words).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        let key = run(&format!("keys get {key_id}")).await["key"].clone();
        let (used, time) = (&key["lastUseTime"], key["createTime"].as_str().unwrap());
        assert!(used.is_string() && key["versions"][0]["lastUseTime"] == *used);
        let who = "keys who audit.read logs/error";
        assert_eq!(run(who).await["access"].as_array().unwrap().len(), 1);
        let can = "keys list --can audit.read:logs/error";
        for as_of in [format!("--as-of-position {position}"), format!("--as-of-time {time}")] {
            let who = run(&format!("{who} {as_of}")).await;
            assert_eq!(who["access"][1]["matchedRole"], "readers");
            let can = run(&format!("{can} {as_of}")).await;
            assert_eq!(can["keys"][1]["keyId"], key_id);
            assert_eq!(can["position"], position);
            let role = run(&format!("roles get readers {as_of}")).await;
            assert!(role["role"]["retireTime"].is_null(), "{role}");
        }
        assert_eq!(run(can).await["keys"].as_array().unwrap().len(), 1);
        let unused = run("keys list --unused-since 2999-01-01T00:00:00Z").await;
        assert_eq!(unused["keys"].as_array().unwrap().len(), 2);
        assert!(run(&format!("keys list --unused-since {time}")).await["keys"].is_null());
    });
}

#[test]
fn a_change_that_is_hidden_or_was_changed_is_missed() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let position = admin.call(suspend(&key_id)).await.unwrap().position.unwrap();
        let end = AsOf::Position(position + 1);
        let resumed = admin.call(resume(&key_id)).await.unwrap().position.unwrap();
        let client = d.superuser().await;
        client.batch_execute("ALTER TABLE entries DISABLE TRIGGER append_only").await.unwrap();
        let change = async |position: u64, what: &str| {
            let sql = format!(
                "UPDATE entries SET {what} WHERE position = {position}
                 AND ledger_id = (SELECT ledger_id FROM ledgers WHERE number = 1)"
            );
            client.batch_execute(&sql).await.unwrap();
        };
        let is_refused = async |as_of| {
            refused(list(&admin, as_of).await)
                .with(Code::FailedPrecondition, ErrorReason::LedgerStopped);
        };
        // Passed off as uses: the last change before that moment, and the only one since another.
        change(position, "kind = 23").await;
        is_refused(end).await;
        change(position, "kind = 25").await;
        change(resumed, "kind = 23").await;
        let listed = list(&admin, end).await.unwrap();
        assert!(listed.keys.iter().any(|key| key.state() == KeyState::Suspended));
        change(resumed, "kind = 26").await;
        // A fresh replica has kept nothing.
        let other = d.replica().await;
        change(position, "signature = set_byte(signature, 0, get_byte(signature, 0) # 1)").await;
        refused(list(&other.admin(), end).await)
            .with(Code::FailedPrecondition, ErrorReason::LedgerStopped);
        d.expect_damage("default");
    });
}
