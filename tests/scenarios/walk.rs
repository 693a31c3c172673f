//! From any trace to its keys and from any key to its traces, across services: a key is created, used, rotated, used, revoked and
//! refused in three small services. What is told of it is read from the collector's files alone, and compared with the signed
//! bytes of the ledger only at the end.

pub(crate) mod files;
mod shop;
mod written;

use std::collections::BTreeSet;
use std::fs::{self, File};

use futures_util::FutureExt;
use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::entry::Entry;
use keyledger_ledger::page::read_uses;
use keyledger_proto::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use crate::client::services::{bearer, get};
use crate::harness::*;
use files::{Files, Log, Span};
use shop::{ASKED, Shop};

#[test]
fn one_walks_from_a_refused_use_to_the_creation_of_its_key_and_back_across_services_and_traces() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let folder = tempfile::tempdir().unwrap();
        let forwarders = folder.path().join("forwarders.toml");
        let forwarder = format!(
            "[[forwarder]]\nname = \"otel\"\nledger = \"default\"\nstart = \"beginning\"\n\
             otlp = {{ endpoint = \"{}\", allow_private = true }}\n",
            collector.endpoint
        );
        fs::write(&forwarders, forwarder).unwrap();
        let forwarders = forwarders.display().to_string();
        let replica = d
            .replica_with_all(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
                ("KEYLEDGER_FORWARDERS", &forwarders),
            ])
            .await;
        let shop = Shop::open(&replica, &collector.endpoint).await;
        let key_id = live(&replica, &shop).await;
        let entries = raw_entries(&replica, &key_id).await;

        let spans_file = folder.path().join("spans.jsonl");
        let logs_file = folder.path().join("logs.jsonl");
        let mut logs = File::create(&logs_file).unwrap();
        loop {
            let export = collector.logs().await.into_inner();
            written::logs(&mut logs, &export);
            if tells_of_a_refusal(&export) {
                break;
            }
        }
        shop.close().await;
        replica.stop().await;
        let mut spans = File::create(&spans_file).unwrap();
        // Whoever sends waits for the answer: all that was made is there.
        while let Some(export) = collector.traces().now_or_never() {
            written::spans(&mut spans, export.into_inner());
        }

        let files = Files::read(&[&spans_file, &logs_file]);
        let told = walk(&files);
        assert_eq!(told, key_id);
        agree(&files, &key_id, &entries);
    });
}

/// Create, use, rotate, use, revoke, refused use.
async fn live(replica: &Replica, shop: &Shop) -> String {
    let admin = replica.admin();
    let grants = ASKED.map(|(permission, resource)| grant(permission, resource)).to_vec();
    let made = CreateKeyRequest { grants, ..user_key("alice@example.com") };
    let made = admin.call(made).await.unwrap();
    let key_id = made.key.unwrap().key_id;
    let used = async |token: &str| get(&shop.gateway, "/", &bearer(token)).await;
    let first = used(&made.token).await;
    assert!(first.status == 200 && first.body.contains("file of 4711"), "{first:?}");
    let rotated = admin.call(rotate(&key_id, 0)).await.unwrap();
    assert_eq!(used(&rotated.token).await.status, 200);
    admin.call(revoke(&key_id)).await.unwrap();
    assert_eq!(used(&rotated.token).await.status, 401);
    key_id
}

fn tells_of_a_refusal(export: &ExportLogsServiceRequest) -> bool {
    let scopes = export.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    let mut records = scopes.flat_map(|scope| &scope.log_records);
    records.any(|record| {
        let told = format!("{:?}", record.attributes);
        record.event_name == "keyledger.key.used" && told.contains("\"REVOKED\"")
    })
}

/// Nothing but what the files hold. Returns the key that was walked along.
fn walk(files: &Files) -> String {
    let refused = |span: &&Span| {
        span.service == "keyledger" && span.attribute("keyledger.reason_code") == Some("REVOKED")
    };
    let refused: Vec<&Span> = files.spans().filter(refused).collect();
    let [refused] = refused[..] else { panic!("one refused use: {refused:?}") };
    assert_eq!(refused.attribute("keyledger.decision"), Some("deny"));
    let key_id = refused.key_id().expect("a span that touches a key names it");

    // Back, by links, from trace to trace.
    let back = files.back(refused);
    let types: Vec<_> = back.iter().map(|span| span.entry_type().unwrap()).collect();
    assert_eq!(types, ["keyledger.key.revoked", "keyledger.key.rotated", "keyledger.key.created"]);
    let traces = back.iter().chain([&refused]).map(|span| &span.place.0);
    assert_eq!(traces.collect::<BTreeSet<_>>().len(), 4, "each in a trace of its own");
    assert!(back.is_sorted_by_key(|span| std::cmp::Reverse(span.position().unwrap())));

    // And forward, by the key's id, in the logs and from them to spans.
    let logs = files.logs_of(key_id);
    let names: Vec<_> = logs.iter().map(|log| log.event_name.as_str()).collect();
    let used = ["keyledger.key.used"; 3];
    let [created, rotated, revoked] =
        ["created", "rotated", "revoked"].map(|what| format!("keyledger.key.{what}"));
    let expected: Vec<&str> = [&created[..]]
        .into_iter()
        .chain(used)
        .chain([&rotated[..]])
        .chain(used)
        .chain([&revoked[..], "keyledger.key.used"])
        .collect();
    assert_eq!(names, expected);
    for log in &logs {
        let span = files.span(&log.place).unwrap_or_else(|| panic!("no span of {log:?}"));
        assert_eq!(span.key_id(), Some(key_id));
        assert_eq!(span.position(), Some(log.address().0));
        assert_eq!(span.entry_type(), Some(log.event_name.as_str()));
        assert_eq!(span.attribute("keyledger.subject.ref"), log.attribute("keyledger.subject.ref"));
    }
    services_saw(files, key_id, &logs, refused);
    key_id.to_string()
}

/// Each use is a child of the span of the service that asked, which names the key, too; and what was used links to the last change.
fn services_saw(files: &Files, key_id: &str, logs: &[&Log], refused: &Span) {
    let uses: Vec<&Span> = logs
        .iter()
        .filter(|log| log.event_name == "keyledger.key.used")
        .map(|log| files.span(&log.place).expect("it was looked for before"))
        .collect();
    for (index, r#use) in uses.iter().enumerate() {
        let service = files.parent(r#use).expect("its parent is the span of a service");
        assert_eq!(service.service, ["gateway", "orders", "storage"][index % 3]);
        assert_eq!(service.key_id(), Some(key_id));
        for name in ["keyledger.decision", "keyledger.reason_code", "keyledger.entry.position"] {
            assert_eq!(service.attribute(name), r#use.attribute(name), "{name}");
        }
        let last = files.last_change(r#use).and_then(Span::entry_type);
        let expected = ["keyledger.key.created", "keyledger.key.rotated", "keyledger.key.revoked"];
        assert_eq!(last, Some(expected[index / 3]));
    }
    let everybody = BTreeSet::from(["gateway", "orders", "storage", "keyledger"]);
    assert_eq!(files.services(&uses[0].place.0), everybody);
    assert_eq!(files.services(&uses[3].place.0), everybody);
    assert_eq!(files.services(&refused.place.0), BTreeSet::from(["gateway", "keyledger"]));
}

/// All entries with something about the key, as they were signed.
async fn raw_entries(replica: &Replica, key_id: &str) -> Vec<(u64, Entry, Vec<u8>)> {
    let admin = replica.admin();
    let listed =
        ListEventsRequest { key_id: key_id.into(), page_size: 1_000, ..Default::default() };
    let listed = admin.call(listed).await.unwrap().events;
    let positions: BTreeSet<u64> = listed.iter().filter_map(|event| event.position).collect();
    let mut entries = vec![];
    for position in positions {
        let view = EventView::Raw as i32;
        let one = GetEventRequest { position: Some(position), index: None, view };
        let raw = admin.call(one).await.unwrap().event.unwrap().raw.unwrap();
        let entry = Entry {
            payload_type: raw.payload_type,
            body: raw.body,
            public_key_sha256: raw.public_key_sha256.try_into().expect("32 bytes"),
            signature: raw.signature.try_into().expect("64 bytes"),
        };
        entries.push((position, entry, raw.uses));
    }
    entries
}

/// Ids, positions and hashes are those of the signed bytes.
fn agree(files: &Files, key_id: &str, entries: &[(u64, Entry, Vec<u8>)]) {
    let signed = |position: u64| {
        let found = entries.iter().find(|(at, ..)| *at == position);
        found.unwrap_or_else(|| panic!("no entry at {position}"))
    };
    for log in files.logs_of(key_id) {
        let (position, index) = log.address();
        let (_, entry, column) = signed(position);
        assert_eq!(
            log.attribute("keyledger.entry.leaf_hash"),
            Some(hex::encode(entry.leaf_hash()).as_str())
        );
        let event = Event::from_signed(&entry.body).unwrap();
        let ids = match (&event.kind, index) {
            (Some(Kind::UsePage(page)), Some(index)) => {
                let read = read_uses(page, column).unwrap().swap_remove(index as usize).r#use;
                (read.trace_id, read.span_id)
            }
            _ => (event.trace_id, event.span_id),
        };
        assert_eq!(log.place, (hex::encode(ids.0), hex::encode(ids.1)));
    }
}
