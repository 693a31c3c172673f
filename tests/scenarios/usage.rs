//! How often keys were used, and for what: exact at once and for ever, whichever replica counted, and whichever was killed.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use keyledger_ledger::anomaly::Observation;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::usage::{self, Span};
use keyledger_proto::entry::Decision;
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::event_pages::until_indexed;
use crate::harness::*;
use crate::offline::connection;

/// Allowed and refused.
type Tally = (u64, u64);

async fn key_usage(caller: &Caller, key_id: &str) -> Usage {
    let request = GetKeyUsageRequest { key_id: key_id.into(), ..Default::default() };
    adding_up(caller.call(request).await.unwrap().usage.unwrap())
}

/// Steps and each breakdown are those of all uses.
fn adding_up(usage: Usage) -> Usage {
    let total = (usage.allowed, usage.refused);
    let steps = usage.steps.iter().map(|s| (s.allowed, s.refused));
    assert_eq!(sum(steps), total);
    for by in [
        &usage.by_permission,
        &usage.by_resource,
        &usage.by_network,
        &usage.by_version,
        &usage.by_reason,
    ] {
        let by = by.as_ref().unwrap();
        let counts = by.counts.iter().map(|c| (c.allowed, c.refused));
        assert_eq!(sum(counts.chain([(by.other_allowed, by.other_refused)])), total);
        let all = |c: &UsageCount| c.allowed + c.refused;
        assert!(by.counts.is_sorted_by(|a, b| all(a) >= all(b)), "most used first: {by:?}");
        assert!(by.counts.len() <= 64);
    }
    assert_eq!(usage.first_use_time.is_some(), total != (0, 0));
    usage
}

fn sum(tallies: impl Iterator<Item = Tally>) -> Tally {
    tallies.fold((0, 0), |sum, tally| (sum.0 + tally.0, sum.1 + tally.1))
}

fn total(usage: &Usage) -> Tally {
    (usage.allowed, usage.refused)
}

fn by(breakdown: &Option<UsageBreakdown>) -> BTreeMap<String, Tally> {
    let counts = breakdown.as_ref().unwrap().counts.iter();
    counts.map(|c| (c.value.clone(), (c.allowed, c.refused))).collect()
}

fn tallies<const N: usize>(expected: [(&str, Tally); N]) -> BTreeMap<String, Tally> {
    expected.map(|(value, tally)| (value.into(), tally)).into()
}

fn denied(token: &str) -> VerifyKeyRequest {
    VerifyKeyRequest { permission: "audit.write".into(), ..check(token) }
}

#[test]
fn one_hundred_thirty_seven_allowed_and_twenty_three_refused_uses_are_counted_after_a_kill() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        let admin = replicas[0].admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let mut clients = vec![];
        for n in 0..20 {
            let client = service_key(&format!("client-{n}"), vec![grant("keys.verify", "keys")]);
            clients.push(admin.call(client).await.unwrap());
        }
        let callers: Vec<Caller> = clients
            .iter()
            .zip(replicas.iter().cycle())
            .map(|(client, replica)| replica.caller_on_new_connection(&client.token))
            .collect();
        // 137 and 23, mixed, over 20 clients of two replicas.
        let calls = (0..160).map(|n| {
            let refused = n % 7 == 3 && n < 161;
            let request = if refused { denied(&made.token) } else { check(&made.token) };
            let caller = callers[n % 20].clone();
            tokio::spawn(async move { caller.call(request).await.unwrap().decision() })
        });
        let decisions = join_all(calls.collect::<Vec<_>>()).await;
        let of = |decision| decisions.iter().filter(|d| *d.as_ref().unwrap() == decision).count();
        assert_eq!((of(Decision::Allow), of(Decision::Deny)), (137, 23));
        for replica in &replicas {
            replica.kill().await;
        }

        let again = d.replica().await;
        for indexed in [false, true] {
            if indexed {
                until_indexed(d).await;
            }
            let usage = key_usage(&again.admin(), &key_id).await;
            assert_eq!((usage.allowed, usage.refused), (137, 23));
            let both = (137, 23);
            let permissions = tallies([("audit.read", (137, 0)), ("audit.write", (0, 23))]);
            assert_eq!(by(&usage.by_permission), permissions);
            assert_eq!(by(&usage.by_resource), tallies([("logs/error", both)]));
            assert_eq!(by(&usage.by_network), tallies([("203.0.113.0/24", both)]));
            assert_eq!(by(&usage.by_version), tallies([("1", both)]));
            let reasons =
                [("DECISION_REASON_GRANTED", (137, 0)), ("DECISION_REASON_NO_GRANT", (0, 23))];
            assert_eq!(by(&usage.by_reason), tallies(reasons));
            // Whoever asked was allowed to ask, whatever the verdict.
            let mut asked = (0, 0);
            for client in &clients {
                let client = &client.key.as_ref().unwrap().key_id;
                asked = sum([asked, total(&key_usage(&again.admin(), client).await)].into_iter());
            }
            assert_eq!(asked, (160, 0));
        }
    });
}

#[test]
fn a_call_a_change_and_a_refusal_are_one_use_each_of_the_key_that_they_are_made_with() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let rights =
            vec![grant_of(&["keys.create", "keys.read"], "keys"), grant("keys.suspend", "keys/*")];
        let clerk = CreateKeyRequest {
            grants: [rights, user_key("").grants].concat(),
            ..service_key("clerk", vec![])
        };
        let clerk = admin.call(clerk).await.unwrap();
        let (clerk_id, clerk) = (clerk.key.unwrap().key_id, replica.caller(&clerk.token));
        assert_eq!(total(&key_usage(&admin, &clerk_id).await), (0, 0));
        let made = clerk.call(user_key("alice@example.com")).await.unwrap().key.unwrap().key_id;
        clerk.call(suspend(&made)).await.unwrap();
        clerk.call(ListKeysRequest::default()).await.unwrap();
        refused(clerk.call(revoke(&made)).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let expected = tallies([
            ("key.created", (1, 0)),
            ("key.suspended", (1, 0)),
            ("keys.read", (1, 0)),
            ("keys.revoke", (0, 1)),
        ]);
        for indexed in [false, true] {
            if indexed {
                until_indexed(d).await;
            }
            let usage = key_usage(&admin, &clerk_id).await;
            assert_eq!(total(&usage), (3, 1));
            assert_eq!(by(&usage.by_permission), expected);
            assert_eq!(by(&usage.by_network), tallies([("127.0.0.0/24", (3, 1))]));
            // Nobody has used this one, though it was changed.
            assert_eq!(total(&key_usage(&admin, &made).await), (0, 0));
        }
    });
}

#[test]
fn refusals_that_share_a_record_count_in_full() {
    const REFUSALS: usize = 300;
    scenario(async |d| {
        let replica = d.replica().await;
        let weak = replica.admin().call(service_key("weak", vec![])).await.unwrap();
        let (id, token) = (weak.key.unwrap().key_id, weak.token);
        let calls = (0..REFUSALS).map(|_| {
            let caller = replica.caller(&token);
            tokio::spawn(async move { caller.call(ListKeysRequest::default()).await.unwrap_err() })
        });
        join_all(calls.collect::<Vec<_>>()).await;
        let records = d.records(1).await;
        let folded =
            records.iter().any(|r| matches!(r, Record::Use { r#use, .. } if r#use.count > 1));
        assert!(folded, "some shared a record");
        for indexed in [false, true] {
            if indexed {
                until_indexed(d).await;
            }
            let usage = key_usage(&replica.admin(), &id).await;
            assert_eq!(total(&usage), (0, REFUSALS as u64));
        }
    });
}

/// What the events of the log say: uses by key, and all of them under "".
fn counted(events: &[AuditEvent], before: u64) -> BTreeMap<String, Tally> {
    let mut counted: BTreeMap<String, Tally> = BTreeMap::new();
    let mut count = |key: &str, allowed: bool, count: u64| {
        for key in [key, ""] {
            let tally = counted.entry(key.into()).or_default();
            *(if allowed { &mut tally.0 } else { &mut tally.1 }) += count;
            if key.is_empty() {
                break;
            }
        }
    };
    for event in events.iter().filter(|e| e.position() < before) {
        let times = u64::from(event.count.max(1));
        if event.r#type == "key.used" {
            count(&event.key_id, event.decision() == Decision::Allow, times);
        }
        if !event.caller_key_id.is_empty() {
            count(&event.caller_key_id, true, times);
        }
    }
    counted
}

async fn all_events(caller: &Caller) -> Vec<AuditEvent> {
    let (mut events, mut page_token) = (vec![], String::new());
    loop {
        let request = ListEventsRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = caller.call(request).await.unwrap();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

/// Compares usage of every key, of an owner and of the ledger with the events, on a replica.
async fn compare(replica: &Replica, keys: &[String], owner: (&str, &[String])) {
    let admin = replica.admin();
    let mut told = vec![];
    for key_id in keys {
        let request = GetKeyUsageRequest { key_id: key_id.clone(), ..Default::default() };
        let reply = admin.call(request).await.unwrap();
        told.push((vec![key_id.clone()], reply.position(), adding_up(reply.usage.unwrap())));
    }
    let service = owner::Owner::Service(owner.0.into());
    let of_owner =
        GetUsageRequest { owner: Some(Owner { owner: Some(service) }), ..Default::default() };
    for (keys, request) in
        [(owner.1.to_vec(), of_owner), (vec![String::new()], GetUsageRequest::default())]
    {
        let reply = admin.call(request).await.unwrap();
        told.push((keys, reply.position(), adding_up(reply.usage.unwrap())));
    }
    let events = all_events(&admin).await;
    for (keys, position, usage) in told {
        let counted = counted(&events, position);
        let expected = keys.iter().map(|key| counted.get(key).copied().unwrap_or_default());
        assert_eq!(total(&usage), sum(expected), "{keys:?} before {position}");
    }
}

#[test]
fn usage_is_what_the_events_of_the_log_say() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        let admin = replicas[0].admin();
        // One owner gets a second key and a third one in between; others keep one.
        let mut made = vec![];
        let rights = || vec![grant("keys.verify", "keys"), grant("audit.read", "logs/error")];
        for name in ["batch", "gateway", "batch", "lonely", "batch"] {
            let replica = &replicas[made.len() % 2];
            made.push(replica.admin().call(service_key(name, rights())).await.unwrap());
            for n in 0..30usize {
                let (asker, subject) = (&made[n % made.len()], &made[(n * 7) % made.len()]);
                let caller = replicas[n % 2].caller(&asker.token);
                let request = match n % 5 {
                    0 => denied(&subject.token),
                    1 => check("no token at all"),
                    _ => check(&subject.token),
                };
                caller.call(request).await.unwrap();
                if n % 6 == 0 {
                    refused(caller.call(ListKeysRequest::default()).await);
                }
            }
            if made.len() == 3 {
                until_indexed(d).await;
            }
        }
        let rotated = rotate(&made[0].key.as_ref().unwrap().key_id, 600);
        let rotated = admin.call(rotated).await.unwrap();
        replicas[1].caller(&rotated.token).call(WhoAmIRequest {}).await.unwrap();
        replicas[0].anonymous().call(WhoAmIRequest {}).await.unwrap_err();
        let ids: Vec<String> = made.iter().map(|m| m.key.clone().unwrap().key_id).collect();
        let owner = [ids[0].clone(), ids[2].clone(), ids[4].clone()];
        for replica in &replicas {
            compare(replica, &ids, ("batch", &owner)).await;
        }
        until_indexed(d).await;
        let late = d.replica().await;
        for replica in [&replicas[0], &replicas[1], &late] {
            compare(replica, &ids, ("batch", &owner)).await;
        }
        let nobody = owner::Owner::User("nobody@example.com".into());
        let owner = Some(Owner { owner: Some(nobody) });
        refused(admin.call(GetUsageRequest { owner, ..Default::default() }).await)
            .with(Code::NotFound, ErrorReason::OwnerNotFound);
    });
}

/// Which replica has the lease on ledger 1.
async fn holder(d: &Deployment) -> Option<String> {
    let sql = "SELECT holder::text FROM event_index_progress p JOIN ledgers l USING (ledger_id) WHERE l.number = 1";
    d.superuser().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[test]
fn another_replica_looks_at_new_entries_when_the_one_that_did_is_killed_or_frozen() {
    scenario(async |d| {
        let mut replicas = vec![d.replica().await];
        let made = replicas[0].admin().call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let (mut holders, mut uses) = (vec![], 0);
        for round in 0..3 {
            for replica in &replicas {
                for _ in 0..10 {
                    replica.admin().call(check(&made.token)).await.unwrap();
                    uses += 1;
                }
            }
            until_indexed(d).await;
            let holder = holder(d).await;
            assert!(holder.is_some() && !holders.contains(&holder), "{holders:?} {holder:?}");
            holders.push(holder);
            let next = d.replica().await;
            let old = replicas.pop().unwrap();
            match round {
                0 => old.kill().await,
                _ => {
                    old.admin().call(check(&made.token)).await.unwrap();
                    uses += 1;
                    old.freeze();
                }
            }
            // Whoever was frozen goes on later, where it stood; nothing is counted twice.
            next.admin().call(check(&made.token)).await.unwrap();
            uses += 1;
            until_indexed(d).await;
            if round > 0 {
                old.thaw();
                old.admin().call(check(&made.token)).await.unwrap();
                uses += 1;
                assert_eq!(total(&key_usage(&old.admin(), &key_id).await), (uses, 0));
                old.kill().await;
            }
            assert_eq!(total(&key_usage(&next.admin(), &key_id).await), (uses, 0));
            until_indexed(d).await;
            assert_eq!(total(&key_usage(&next.admin(), &key_id).await), (uses, 0));
            replicas.push(next);
        }
    });
}

#[test]
fn a_damaged_row_begins_anew_and_stops_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        replica.admin().call(check(&made.token)).await.unwrap();
        until_indexed(d).await;
        replica.kill().await;
        let damage = "UPDATE usage_counts SET counts = '\\x00'";
        d.superuser().await.batch_execute(damage).await.unwrap();
        let again = d.replica().await;
        again.admin().call(check(&made.token)).await.unwrap();
        until_indexed(d).await;
        assert_eq!(total(&key_usage(&again.admin(), &key_id).await), (1, 0));
        assert!(again.log().contains("a row of usage_counts can't be read"));
    });
}

/// Rows of a year in which a key was used a thousand times in each hour, as the observer would have written them.
async fn write_year(d: &Deployment, key_id: &str, end: i64) {
    let (mut hours, mut starts, mut counts) = (vec![], vec![], vec![]);
    for span in Span::EACH {
        let length = span as i64;
        for start in (end - YEAR..end).step_by(span as usize) {
            let mut usage = usage::Usage::default();
            for hour in start..start + length {
                for resource in 0..20 {
                    usage.add(&Observation {
                        position: 0,
                        time: Time(hour * HOUR * Time::MICROS_PER_SECOND),
                        key: Some((KeyId::parse(key_id).unwrap(), 1)),
                        allowed: resource % 10 != 0,
                        reason: entry::DecisionReason::Granted,
                        permission: "audit.read".into(),
                        resource: format!("logs/error/{resource}"),
                        network: Some([4, 203, 0, 113, 0, 0, 0]),
                        count: 50,
                    });
                }
            }
            hours.push(span as i16);
            starts.push(start);
            counts.push(usage.encode());
        }
    }
    let sql = "INSERT INTO usage_counts (ledger_id, meter, hours, start_hour, counts)
               SELECT l.ledger_id, $1::text::uuid, a.* FROM ledgers l, unnest($2::smallint[], $3::bigint[], $4::bytea[]) a
               WHERE l.number = 1";
    d.superuser().await.execute(sql, &[&key_id, &hours, &starts, &counts]).await.unwrap();
    d.superuser().await.batch_execute("ANALYZE usage_counts").await.unwrap();
}

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24;

#[test]
fn a_year_is_answered_from_as_many_rows_as_it_has_days() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        // 2025-11-22 to 2026-11-22, whole days.
        let end = 498_696;
        write_year(d, &key_id, end).await;
        let of = |hours: i64, skip: i64| {
            let at = |hour: i64| Some(Timestamp { seconds: hour * HOUR, nanos: 0 });
            let (start_time, end_time) = (at(end - hours), at(end - skip));
            GetKeyUsageRequest { key_id: key_id.clone(), start_time, end_time, interval: 0 }
        };
        let mut told = vec![];
        for (name, hours, skip) in
            [("a day", 24, 0), ("a year", YEAR, 0), ("a year less two hours", YEAR - 1, 1)]
        {
            let mut times = vec![];
            for _ in 0..21 {
                let begun = std::time::Instant::now();
                let usage = admin.call(of(hours, skip)).await.unwrap().usage.unwrap();
                times.push(begun.elapsed());
                let hours = (hours - skip) as u64;
                assert_eq!(total(&adding_up(usage)), (hours * 900, hours * 100));
            }
            times.sort();
            told.push(format!("{name}: {:?}", times[times.len() / 2]));
        }
        println!("GetKeyUsage, median of 21: {}", told.join(", "));
    });
}

#[test]
fn whoever_asks_for_nonsense_or_may_not_ask_is_told_so() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let at = |seconds: i64| Some(Timestamp { seconds, nanos: 0 });
        let of_key = |start_time, end_time, interval: i32| GetKeyUsageRequest {
            key_id: key_id.clone(),
            start_time,
            end_time,
            interval,
        };
        for (request, fields) in [
            (of_key(at(1), None, 0), vec!["start_time"]),
            (of_key(at(HOUR), at(HOUR + 1), 9), vec!["interval"]),
            (of_key(at(-HOUR), at(1), 1), vec!["start_time", "end_time"]),
            (of_key(at(HOUR), at(HOUR), 1), vec!["start_time"]),
            (of_key(at(0), at(1_001 * HOUR), 1), vec!["start_time"]),
            (of_key(at(0), None, 2), vec!["start_time"]),
            (of_key(at(i64::MAX), None, 2), vec!["start_time"]),
            (GetKeyUsageRequest { key_id: "x".into(), ..of_key(None, None, 0) }, vec!["key_id"]),
        ] {
            let refused = refused(admin.call(request).await);
            assert_eq!(refused.fields, fields);
            refused.with(Code::InvalidArgument, ErrorReason::InvalidField);
        }
        let nameless = Some(Owner { owner: None });
        let request = GetUsageRequest { owner: nameless, ..Default::default() };
        assert_eq!(refused(admin.call(request).await).fields, ["owner"]);
        // A time before all entries has none, and a thousand steps are told.
        let early = admin.call(of_key(at(0), at(1_000 * HOUR), 1)).await.unwrap();
        assert_eq!(total(&adding_up(early.usage.unwrap())), (0, 0));

        // A key that there isn't, and one of another ledger, are answered alike.
        let elsewhere = replica.system_admin();
        for (caller, key_id) in
            [(&admin, "00000000-0000-8000-8000-000000000000"), (&elsewhere, key_id.as_str())]
        {
            let request = GetKeyUsageRequest { key_id: key_id.into(), ..Default::default() };
            refused(caller.call(request).await).with(Code::NotFound, ErrorReason::KeyNotFound);
        }
        let reader = vec![grant("keys.read", &format!("keys/{key_id}"))];
        let reader = admin.call(service_key("reader", reader)).await.unwrap();
        let (own, reader) = (reader.key.unwrap().key_id, replica.caller(&reader.token));
        reader.call(of_key(None, None, 0)).await.unwrap();
        let other = GetKeyUsageRequest { key_id: own, ..Default::default() };
        refused(reader.call(other).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        refused(reader.call(GetUsageRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn the_command_shows_a_line_of_steps_and_what_a_key_was_used_for() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(service_key("exporter", vec![grant("audit.read", "logs/*")])).await;
        let made = made.unwrap();
        let key_id = made.key.unwrap().key_id;
        for _ in 0..3 {
            admin.call(check(&made.token)).await.unwrap();
        }
        admin.call(denied(&made.token)).await.unwrap();
        let run = async |line: &str| {
            // What it shows is not looked through for secrets.
            let words = line.split(' ').map(String::from).chain(connection(d, &replica));
            let output = d.program().args(words).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let shown = run(&format!("keys usage {key_id} --bucket hour")).await;
        for part in ["allowed", "each hour", "at most", "audit.write", "203.0.113.0/24", "no grant"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.is_ascii(), "nobody looks at it on a screen: {shown}");
        let json = run(&format!("keys usage {key_id} -o json")).await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["usage"]["allowed"], &json["usage"]["refused"]),
            (&"3".into(), &"1".into())
        );
        let owner = run("usage --owner-service exporter -o json").await;
        let owner: serde_json::Value = serde_json::from_str(&owner).unwrap();
        assert_eq!(owner["usage"]["byPermission"], json["usage"]["byPermission"]);
        assert!(run("usage").await.contains("key.created"));
    });
}
