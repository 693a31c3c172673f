//! Entries and uses leave as log records, at least once and in order, and the checkpoint that closes an export proves them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::merkle::{Hash, root_of};
use keyledger_ledger::note::{self, NoteKey};
use keyledger_proto::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use tonic::metadata::MetadataMap;

use crate::forwarders::{Configured, forwarder, only, record, until};
use crate::harness::*;

/// Where a record stands: position, and index if it is a use.
type Address = (u64, Option<u32>);

/// What a collector was sent by one forwarder.
#[derive(Default)]
struct Sent {
    records: Vec<LogRecord>,
    checkpoints: Vec<LogRecord>,
    /// Addresses, in the order in which each came first.
    firsts: Vec<Address>,
    repeats: usize,
    bytes: Vec<u8>,
    headers: Vec<MetadataMap>,
}

impl Sent {
    /// Takes the next export. Its last record is the checkpoint, which covers all the others.
    async fn take(&mut self, collector: &Collector) {
        let (headers, _, export) = collector.logs().await.into_parts();
        self.bytes.extend(export.encode_to_vec());
        self.headers.push(headers);
        let mut records = records_of(export);
        let checkpoint = records.pop().expect("no export is empty");
        assert_eq!(checkpoint.event_name, "keyledger.checkpoint");
        let size = number(&checkpoint, "keyledger.checkpoint.size").unwrap();
        let addresses: Vec<Address> = records.iter().map(address).collect();
        assert!(addresses.is_sorted(), "an export is in order");
        assert!(addresses.iter().all(|(position, _)| *position < size), "it covers all of them");
        for address in addresses {
            match self.firsts.contains(&address) {
                true => self.repeats += 1,
                false => self.firsts.push(address),
            }
        }
        self.records.extend(records);
        self.checkpoints.push(checkpoint);
    }

    async fn take_until(&mut self, collector: &Collector, last: Address) {
        while !self.firsts.contains(&last) {
            self.take(collector).await;
        }
    }

    /// Takes what is needed for the newest checkpoint.
    async fn take_all_that_is_covered(&mut self, collector: &Collector) -> u64 {
        loop {
            let newest = self.checkpoints.last().expect("an export has come");
            let size = number(newest, "keyledger.checkpoint.size").unwrap();
            if self.firsts.last().is_some_and(|(position, _)| position + 1 == size) {
                return size;
            }
            self.take(collector).await;
        }
    }

    /// The record of an address.
    fn at(&self, at: Address) -> &LogRecord {
        let found = self.records.iter().find(|record| address(record) == at);
        found.unwrap_or_else(|| panic!("{at:?} was sent"))
    }
}

fn records_of(export: ExportLogsServiceRequest) -> Vec<LogRecord> {
    let scopes = export.resource_logs.into_iter().flat_map(|resource| {
        let attributes = resource.resource.unwrap_or_default().attributes;
        assert!(attributes.iter().any(|a| a.key == "service.name"));
        resource.scope_logs
    });
    let records = scopes.flat_map(|scope| {
        assert_eq!(scope.scope.unwrap().name, "keyledger");
        scope.log_records
    });
    records.collect()
}

fn value<'a>(record: &'a LogRecord, name: &str) -> Option<&'a Value> {
    record.attributes.iter().find(|a| a.key == name)?.value.as_ref()?.value.as_ref()
}

fn text<'a>(record: &'a LogRecord, name: &str) -> &'a str {
    match value(record, name) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn number(record: &LogRecord, name: &str) -> Option<u64> {
    match value(record, name)? {
        Value::IntValue(number) => Some(*number as u64),
        _ => None,
    }
}

fn hash(record: &LogRecord, name: &str) -> Hash {
    hex::decode(text(record, name)).unwrap().try_into().expect("a hash has 32 bytes")
}

fn address(record: &LogRecord) -> Address {
    let index = number(record, "keyledger.entry.index").map(|index| index as u32);
    (number(record, "keyledger.entry.position").expect("each has a position"), index)
}

/// A target that is this collector.
fn otlp(collector: &Collector, more: &str) -> String {
    format!("otlp = {{ endpoint = \"{}\", allow_private = true{more} }}", collector.endpoint)
}

async fn addresses(d: &Deployment, ledger: u32) -> Vec<Address> {
    d.records(ledger).await.iter().map(Record::address).collect()
}

/// A life: created, used, rotated, used, suspended, resumed, something recorded, revoked, refused.
async fn live(replica: &Arc<Replica>) -> String {
    let admin = |trace: u128| {
        let parent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
        replica.admin().with_header("traceparent", &parent)
    };
    let made = admin(1).call(user_key("alice@example.com")).await.unwrap();
    let key_id = made.key.unwrap().key_id;
    admin(2).call(check(&made.token)).await.unwrap();
    let rotated = admin(3).call(rotate(&key_id, 0)).await.unwrap();
    let requests = vec![check(&rotated.token); 40];
    admin(4).call(BatchVerifyKeysRequest { requests }).await.unwrap();
    admin(5).call(suspend(&key_id)).await.unwrap();
    admin(6).call(resume(&key_id)).await.unwrap();
    let events = vec![login("bob@example.com", "security/login")];
    admin(7).call(RecordEventsRequest { events, atomic: false }).await.unwrap();
    admin(8).call(revoke(&key_id)).await.unwrap();
    admin(9).call(check(&rotated.token)).await.unwrap();
    key_id
}

#[test]
fn each_entry_and_use_leaves_once_in_order_and_is_proved_by_the_checkpoint_of_its_export() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let target = otlp(&collector, ", headers_file = \"headers\", compression = \"gzip\"");
        let configured = Configured::new(&[forwarder("logs", &target)]);
        configured.private_file("headers", "authorization: Bearer of-the-collector\n");
        d.secrets.text("a header", "of-the-collector");
        let replica = configured.replica(d).await;
        let verifier = replica.admin().call(GetCheckpointRequest {}).await.unwrap().verifier_key;
        let key_id = live(&replica).await;
        let expected = addresses(d, 1).await;
        let mut sent = Sent::default();
        sent.take_until(&collector, *expected.last().unwrap()).await;
        let size = sent.take_all_that_is_covered(&collector).await;
        let records = d.records(1).await;
        let expected: Vec<Address> = records.iter().map(Record::address).collect();
        let covered: Vec<Address> =
            expected.iter().filter(|(position, _)| *position < size).copied().collect();
        assert_eq!((sent.firsts.clone(), sent.repeats), (covered, 0), "each once, from the first");
        for headers in &sent.headers {
            assert_eq!(headers.get("authorization").unwrap(), "Bearer of-the-collector");
        }

        says_what_is_signed(&sent, &records, size);
        is_proved(d, &sent, &verifier).await;
        let of_key = |name: &str| {
            let name = format!("keyledger.{name}");
            let mut all = sent.records.iter().filter(|r| r.event_name == name);
            all.find(|r| text(r, "keyledger.key.id") == key_id).cloned()
        };
        for name in ["key.created", "key.rotated", "key.suspended", "key.resumed", "key.revoked"] {
            let record = of_key(name).unwrap_or_else(|| panic!("{name} of the key was sent"));
            assert_eq!(text(&record, "keyledger.subject.ref").len(), 32, "the person's reference");
        }
        let login = sent.records.iter().find(|r| r.event_name == "keyledger.event.recorded");
        let login = login.expect("what was recorded was sent");
        assert_eq!(text(login, "keyledger.category"), "security/login");
        assert_eq!(text(login, "keyledger.action"), "user.session.start");
        assert_eq!(text(login, "keyledger.actor.ref").len(), 32, "the person's reference");
        let mut scanner = d.secrets.scanner();
        // The header is the collector's own, and no part of the records.
        scanner.look_into("exported log records", &sent.bytes);
        scanner.finish();
        let done = until(&replica.admin(), "logs", |f| f.last_sent_time.is_some()).await;
        assert_eq!(done.kind(), ForwarderKind::Otlp);
    });
}

/// Names, times, traces and keys are those of the signed bytes.
fn says_what_is_signed(sent: &Sent, records: &[Record], size: u64) {
    for signed in records.iter().filter(|signed| signed.address().0 < size) {
        let record = sent.at(signed.address());
        let key = |name: &str, id: &[u8]| {
            let id = KeyId::from_slice(id).map_or(String::new(), |id| id.to_string());
            assert_eq!(text(record, name), id, "{record:?}");
        };
        match signed {
            Record::Use { r#use, .. } => {
                assert_eq!(record.event_name, "keyledger.key.used");
                assert_eq!((&record.trace_id, &record.span_id), (&r#use.trace_id, &r#use.span_id));
                key("keyledger.key.id", &r#use.key_id);
                let caller = r#use.caller.as_ref();
                key("keyledger.caller.key.id", caller.map_or(&[], |c| c.key_id.as_slice()));
                let (decision, reason) = verdict(r#use);
                let said = text(record, "keyledger.decision");
                assert!(format!("{decision:?}").eq_ignore_ascii_case(said));
                let said = text(record, "keyledger.reason_code");
                assert_eq!(reason.as_str_name(), format!("DECISION_REASON_{said}"));
                assert_eq!(text(record, "keyledger.method"), r#use.method);
            }
            Record::Change { event, .. } => {
                let kind = event.kind.as_ref().unwrap();
                let name = kind.name().replace('-', "_");
                assert_eq!(record.event_name, format!("keyledger.{name}"));
                assert_eq!((&record.trace_id, &record.span_id), (&event.trace_id, &event.span_id));
                assert_eq!(record.time_unix_nano, event.time_us as u64 * 1_000);
                let caller = event.caller.as_ref();
                key("keyledger.caller.key.id", caller.map_or(&[], |c| c.key_id.as_slice()));
                if let Some(link) = kind.key_link() {
                    key("keyledger.key.id", &link.key_id);
                }
            }
        }
        assert!(record.observed_time_unix_nano > 0 && record.severity_number > 0);
    }
}

/// The leaf hashes give the root that is signed; those of uses that of their page; the signatures are those of the entries.
async fn is_proved(d: &Deployment, sent: &Sent, verifier: &str) {
    let key = NoteKey::parse_vkey(verifier).unwrap();
    let (mut leaves, mut pages) = (BTreeMap::new(), BTreeMap::<u64, Vec<Hash>>::new());
    for at in &sent.firsts {
        let record = sent.at(*at);
        leaves.insert(at.0, hash(record, "keyledger.entry.leaf_hash"));
        if at.1.is_some() {
            pages.entry(at.0).or_default().push(hash(record, "keyledger.use.leaf_hash"));
        }
    }
    let all: Vec<Hash> = leaves.values().copied().collect();
    for closing in &sent.checkpoints {
        let checkpoint = note::open(text(closing, "keyledger.checkpoint.note"), &key).unwrap();
        assert_eq!(number(closing, "keyledger.checkpoint.size"), Some(checkpoint.size));
        assert_eq!(hash(closing, "keyledger.checkpoint.root_hash"), checkpoint.root);
        assert_eq!(text(closing, "keyledger.checkpoint.origin"), checkpoint.origin);
        assert_eq!(root_of(&all[..checkpoint.size as usize]), checkpoint.root);
    }
    let entries =
        "SELECT e.position, e.body, e.signature FROM entries e JOIN ledgers l USING (ledger_id)
                   WHERE l.number = 1 ORDER BY e.position";
    let rows = d.superuser().await.query(entries, &[]).await.unwrap();
    for row in rows.iter().take(all.len()) {
        let position = row.get::<_, i64>(0) as u64;
        let event = Event::from_signed(row.get(1)).unwrap();
        let of_entry = |at: &&Address| at.0 == position;
        for at in sent.firsts.iter().filter(of_entry) {
            let signature = text(sent.at(*at), "keyledger.entry.signature");
            assert_eq!(BASE64_STANDARD.decode(signature).unwrap(), row.get::<_, Vec<u8>>(2));
        }
        if let Some(Kind::UsePage(page)) = event.kind {
            assert_eq!(root_of(&pages[&position]).as_slice(), page.root);
        }
    }
}

#[test]
fn a_collector_that_refuses_stalls_and_comes_back_misses_nothing_and_no_call_waits_for_it() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        until(&admin, "otlp", |f| !f.holder.is_empty()).await;
        collector.refuse();
        let mark = d.mark().await;
        let first = record(&admin, "login", 0..120).await.len();
        let failing = until(&admin, "otlp", |f| f.consecutive_failures >= 1).await;
        assert_eq!(
            (failing.kind(), failing.state()),
            (ForwarderKind::Otlp, ForwarderState::Failing)
        );
        assert!(failing.last_error.starts_with("the collector answered Unavailable"));
        collector.stall();
        let second = record(&admin, "login", 120..200).await.len();
        assert_eq!(first + second, 200);
        let expected: Vec<Address> = d.since(&mark).await[&1].iter().map(Record::address).collect();
        collector.accept();
        let mut sent = Sent::default();
        sent.take_until(&collector, *expected.last().unwrap()).await;
        let from = expected[0];
        let got: Vec<Address> = sent.firsts.iter().filter(|at| **at >= from).copied().collect();
        let last = expected.last().unwrap();
        let noticed = d.records(1).await;
        let all = noticed.iter().map(Record::address).filter(|at| (from..=*last).contains(at));
        let all: Vec<Address> = all.collect();
        assert_eq!(got[..all.len()], all, "without a gap, in order");
    });
}

#[test]
fn a_ledger_that_is_opened_later_is_sent_from_its_first_entry() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        until(&replica.system_admin(), "otlp", |f| !f.holder.is_empty()).await;
        let open = OpenLedgerRequest {
            name: "billing".into(),
            reason: "a new tenant".into(),
            ..Default::default()
        };
        let opened = replica.system_admin().call(open).await.unwrap();
        let ledger_id = opened.ledger.unwrap().ledger_id;
        let expected = addresses(d, 2).await;
        let mut of_ledger: Vec<Address> = vec![];
        while of_ledger.len() < expected.len() {
            let records = records_of(collector.logs().await.into_inner());
            let named = records.iter().filter(|r| text(r, "keyledger.ledger.id") == ledger_id);
            let entries = named.filter(|r| r.event_name != "keyledger.checkpoint");
            of_ledger.extend(entries.map(address));
        }
        assert_eq!(of_ledger[..expected.len()], expected);
    });
}

#[test]
fn another_replica_sends_on_what_one_that_was_killed_has_not_sent() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let lines = format!("{}\n{}", only("login"), otlp(&collector, ""));
        let configured = Configured::new(&[forwarder("logs", &lines)]);
        let mut replicas = [configured.replica(d).await, configured.replica(d).await].to_vec();
        let held = until(&replicas[0].admin(), "logs", |f| !f.holder.is_empty()).await;
        replicas.sort_by_key(|replica| !replica.log().contains(&held.holder));
        let [holder, other] = &replicas[..] else { unreachable!() };
        record(&other.admin(), "login", 0..40).await;
        let events = async || {
            let records = d.records(1).await;
            let is_login = |record: &&Record| match record {
                Record::Change { event, .. } => matches!(event.kind, Some(Kind::EventRecorded(_))),
                Record::Use { .. } => false,
            };
            records.iter().filter(is_login).map(Record::address).collect::<Vec<Address>>()
        };
        let mut sent = Sent::default();
        sent.take_until(&collector, *events().await.last().unwrap()).await;
        // It has a batch, and is killed before it knows that the collector has it, or not.
        collector.stall();
        record(&other.admin(), "login", 40..60).await;
        holder.kill().await;
        record(&other.admin(), "login", 60..90).await;
        collector.accept();
        let expected = events().await;
        sent.take_until(&collector, *expected.last().unwrap()).await;
        assert_eq!((expected.len(), sent.firsts), (90, expected));
        let now = until(&other.admin(), "logs", |f| f.state() == ForwarderState::Running).await;
        assert_ne!(now.holder, held.holder);
    });
}

#[test]
fn a_collector_on_a_private_address_is_refused_unless_that_is_allowed() {
    scenario(async |d| {
        let target = "otlp = { endpoint = \"https://127.0.0.1:4317\" }";
        let replica = Configured::new(&[forwarder("logs", target)]).replica(d).await;
        let refused = until(&replica.admin(), "logs", |f| f.consecutive_failures >= 1).await;
        let why = refused.last_error;
        assert!(why.contains("is refused without allow_private"), "{why}");
    });
}
