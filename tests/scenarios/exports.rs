//! Exports of events: what was asked for and nothing else, in each format, resumable, and verifiable later line by line.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use base64::prelude::{BASE64_STANDARD, Engine};
use ed25519_dalek::SigningKey;
use keyledger_ledger::entry::EntrySigner;
use keyledger_ledger::export::{self, Envelope, ExportFormat};
use keyledger_proto::entry::{Outcome, Restrictions};
use keyledger_proto::event_attribute::Value as AttributeValue;
use keyledger_proto::*;
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::harness::*;
use crate::offline::{connection, folder};

const FORMATS: [(&str, ExportFormat); 4] = [
    ("jsonl", ExportFormat::JsonLines),
    ("cloudevents", ExportFormat::CloudEvents),
    ("ocsf", ExportFormat::Ocsf),
    ("csv", ExportFormat::Csv),
];

/// What a stream of an export gave.
struct Exported {
    lines: Vec<u8>,
    /// Of each message, in order.
    tokens: Vec<Vec<u8>>,
    progress: ExportProgress,
    manifest: SignedManifest,
}

impl Exported {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.lines).unwrap()
    }

    fn manifest(&self) -> export::ExportManifest {
        envelope(&self.manifest).open().unwrap().manifest
    }
}

fn envelope(signed: &SignedManifest) -> Envelope {
    let fixed = |s: &ManifestSignature| {
        let digest = s.public_key_sha256.as_slice().try_into().unwrap();
        (digest, s.signature.as_slice().try_into().unwrap())
    };
    Envelope {
        payload_type: signed.payload_type.clone(),
        payload: signed.payload.clone(),
        signatures: signed.signatures.iter().map(fixed).collect(),
    }
}

async fn exported(caller: &Caller, request: ExportEventsRequest) -> Exported {
    let mut stream = caller.stream(request).await.unwrap();
    let (mut lines, mut tokens) = (vec![], vec![]);
    while let Some(reply) = stream.message().await.unwrap() {
        assert!(reply.lines.is_empty() || reply.lines.ends_with(b"\n"), "lines are whole");
        lines.extend(reply.lines);
        tokens.push(reply.resume_token);
        if let Some(manifest) = reply.manifest {
            let progress = reply.progress.unwrap();
            assert!(stream.message().await.unwrap().is_none(), "the manifest is the last");
            return Exported { lines, tokens, progress, manifest };
        }
    }
    panic!("the stream ended without a manifest");
}

fn of(category: &str, format: ExportFormat) -> ExportEventsRequest {
    ExportEventsRequest { category: category.into(), format: format as i32, ..Default::default() }
}

/// Changes, uses of both sorts, and recorded events of several categories.
async fn tell(replica: &Replica) {
    let admin = replica.admin();
    let alice = admin.call(user_key("alice@example.com")).await.unwrap();
    admin.call(role("viewers", vec![grant("audit.read", "logs/**")])).await.unwrap();
    for _ in 0..3 {
        admin.call(check(&alice.token)).await.unwrap();
    }
    let alice = alice.key.unwrap().key_id;
    admin.call(rotate(&alice, 600)).await.unwrap();
    admin.call(revoke(&alice)).await.unwrap();
    for category in ["security/login", "error"] {
        let event = |n: usize| NewEvent {
            resource: format!("portal/{n}"),
            outcome: Outcome::Success as i32,
            attributes: vec![EventAttribute {
                name: "share".into(),
                value: Some(AttributeValue::Number(0.1 + n as f64 / 3.0)),
                personal: n.is_multiple_of(2),
            }],
            ..login("bob@example.com", category)
        };
        let events = (0..6).map(event).collect();
        admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
    }
    admin.call(ListEventsRequest::default()).await.unwrap();
}

/// Runs `audit export` to its end; the file that it wrote.
async fn export_file(d: &Deployment, replica: &Replica, arguments: &[&str], name: &str) -> PathBuf {
    let file = folder(d).join(name);
    let export = ["audit", "export", "--out"].iter().map(|a| a.to_string());
    let export = export.chain([file.display().to_string()]);
    let export = export.chain(arguments.iter().map(|a| a.to_string()));
    let output = d.run(export.chain(connection(d, replica))).await;
    assert!(output.status.success(), "{}", output.text);
    file
}

/// What `verify` says of an export.
async fn verify(d: &Deployment, file: &std::path::Path, more: &[&str]) -> Value {
    let verify = ["verify", "-o", "json", "--export"].iter().map(|a| a.to_string());
    let verify = verify.chain([file.display().to_string()]);
    let output = d.run(verify.chain(more.iter().map(|a| a.to_string()))).await;
    let report: Value = serde_json::from_str(output.text.lines().next().unwrap_or_default())
        .unwrap_or_else(|_| panic!("no report: {}", output.text));
    let good = report["good"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if good { 0 } else { 10 }), "{}", output.text);
    report
}

fn problems(report: &Value) -> Vec<&str> {
    report["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect()
}

/// The records of a CSV (RFC 4180).
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell) = (vec![], vec![], String::new());
    let (mut inside, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match (inside, c) {
            (true, '"') if chars.peek() == Some(&'"') => {
                cell.push('"');
                chars.next();
            }
            (_, '"') => inside = !inside,
            (false, ',') => record.push(std::mem::take(&mut cell)),
            (false, '\r') => {}
            (false, '\n') => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
            }
            (_, c) => cell.push(c),
        }
    }
    records
}

#[test]
fn every_format_verifies_and_is_the_same_through_two_replicas() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        tell(&a).await;
        for (name, format) in FORMATS {
            // The first token fixes the snapshot.
            let first = a.admin().stream(of("", format)).await.unwrap().message().await.unwrap();
            let token = first.unwrap().resume_token;
            let from = ExportEventsRequest { resume_token: token, ..of("", format) };
            let on_a = exported(&a.admin(), from.clone()).await;
            let on_b = exported(&b.admin(), from).await;
            assert_eq!(on_a.text(), on_b.text(), "{name}");
            let (of_a, of_b) = (on_a.manifest(), on_b.manifest());
            assert_eq!(of_a.root, of_b.root);
            assert_eq!(of_a.checkpoint, of_b.checkpoint);
            assert_eq!(of_a.lines, on_a.text().lines().count() as u64);
            assert_eq!(on_a.progress.positions_done, on_a.progress.positions);
            assert_eq!(on_a.progress.lines, of_a.lines);
            assert_eq!((of_a.first_position, of_a.end_position), (0, of_a.snapshot_size));

            for (filters, file) in [
                (vec![], format!("all.{name}")),
                (
                    vec!["--category", "security/login", "--outcome", "success"],
                    format!("some.{name}"),
                ),
            ] {
                let arguments = [&["--format", name], filters.as_slice()].concat();
                let file = export_file(d, &b, &arguments, &file).await;
                let report = verify(d, &file, &[]).await;
                assert_eq!(problems(&report), Vec::<&str>::new());
                let proved = if name == "jsonl" { report["lines"].clone() } else { 0.into() };
                assert_eq!(report["proved"], proved, "{name}");
                let header = u64::from(name == "csv");
                if !filters.is_empty() {
                    assert_eq!(report["lines"], 6 + header);
                }
                let key = report["verifier_key"].as_str().unwrap();
                let pinned = verify(d, &file, &["--verifier-key", key]).await;
                assert_eq!((&pinned["good"], &pinned["pinned"]), (&true.into(), &true.into()));
            }
        }
        // What is known of an event is in all formats, each in its own words.
        let all = exported(&a.admin(), of("", ExportFormat::Ocsf)).await;
        let classes: BTreeSet<u64> = all
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["class_uid"].as_u64().unwrap())
            .collect();
        assert_eq!(classes, BTreeSet::from([3003, 3004, 6003]));
    });
}

#[test]
fn whatever_is_done_to_a_line_is_named() {
    scenario(async |d| {
        let replica = d.replica().await;
        tell(&replica).await;
        for (name, _) in FORMATS {
            for filter in [&[][..], &["--category", "error"][..]] {
                let arguments = [&["--format", name], filter].concat();
                let file = export_file(d, &replica, &arguments, "altered").await;
                let text = std::fs::read_to_string(&file).unwrap();
                let lines: Vec<String> = text.split_inclusive('\n').map(String::from).collect();
                let count = lines.len();
                let change = |change: &dyn Fn(&mut Vec<String>)| {
                    let mut changed = lines.clone();
                    change(&mut changed);
                    changed.concat()
                };
                let table = [
                    (change(&|_| {}), vec![]),
                    (change(&|l| drop(l.remove(3))), vec!["line 4 is missing".to_string()]),
                    (
                        change(&|l| l[2] = l[2].replacen("20", "21", 1)),
                        vec!["line 3 was altered".into()],
                    ),
                    (change(&|l| l.swap(3, 4)), vec!["lines 4 and 5 were swapped".into()]),
                    (
                        change(&|l| l.insert(2, lines[1].clone())),
                        vec!["line 2 stands there more than once".into()],
                    ),
                    (
                        change(&|l| l.truncate(count - 2)),
                        vec![format!("the end is cut after line {}", count - 2)],
                    ),
                    (
                        text[..text.len() - 10].to_string(),
                        vec![
                            format!("the end is cut after line {}", count - 1),
                            format!(
                                "after line {} of the file something stands without a line break",
                                count - 1
                            ),
                        ],
                    ),
                ];
                for (changed, expected) in table {
                    std::fs::write(&file, changed).unwrap();
                    let report = verify(d, &file, &[]).await;
                    assert_eq!(problems(&report), expected, "{name} {filter:?}");
                }
                // The list of digests follows from the lines: changed with them, it is found too.
                let manifest = PathBuf::from(format!("{}.manifest", file.display()));
                let listed = std::fs::read_to_string(&manifest).unwrap();
                let mut digests: Vec<&str> = listed.split_inclusive('\n').collect();
                digests.remove(4);
                std::fs::write(&manifest, digests.concat()).unwrap();
                std::fs::write(&file, change(&|l| drop(l.remove(3)))).unwrap();
                let report = verify(d, &file, &[]).await;
                assert!(problems(&report)[0].contains("not those that were signed"), "{report}");
                std::fs::write(&file, &text).unwrap();
                let report = verify(d, &file, &[]).await;
                assert!(problems(&report)[0].contains("the lines are those"), "{report}");
            }
        }
    });
}

#[test]
fn a_forged_manifest_is_refused() {
    scenario(async |d| {
        let replica = d.replica().await;
        tell(&replica).await;
        let file = export_file(d, &replica, &["--format", "csv"], "forged.csv").await;
        let manifest = PathBuf::from(format!("{}.manifest", file.display()));
        let good = std::fs::read_to_string(&manifest).unwrap();
        let key = verify(d, &file, &[]).await["verifier_key"].as_str().unwrap().to_string();
        let (head, digests) = good.split_once('\n').unwrap();
        let head: Value = serde_json::from_str(head).unwrap();
        let payload = BASE64_STANDARD.decode(head["payload"].as_str().unwrap()).unwrap();
        let genuine = export::ExportManifest::decode(payload.as_slice()).unwrap();
        let stranger = SigningKey::from_bytes(&[9; 32]);
        let signed = |content: &export::ExportManifest| {
            let envelope = export::sign(content, &EntrySigner::new(stranger.clone()), &stranger);
            let signature = |(key, sig): &([u8; 32], [u8; 64])| serde_json::json!({ "keyid": hex::encode(key), "sig": BASE64_STANDARD.encode(sig) });
            let line = serde_json::json!({
                "payloadType": envelope.payload_type,
                "payload": BASE64_STANDARD.encode(&envelope.payload),
                "signatures": envelope.signatures.iter().map(signature).collect::<Vec<_>>(),
            });
            std::fs::write(&manifest, format!("{line}\n{digests}")).unwrap();
        };
        // Somebody else signs what names the ledger's keys.
        signed(&genuine);
        let report = verify(d, &file, &[]).await;
        assert!(problems(&report)[0].contains("has not signed it"), "{report}");
        // Somebody else names keys of their own: whoever knows the ledger's is not deceived.
        let own = keyledger_ledger::note::Checkpoint {
            origin: genuine.origin.clone(),
            size: genuine.snapshot_size,
            root: [7; 32],
        };
        let own = export::ExportManifest {
            entry_public_key: stranger.verifying_key().to_bytes().to_vec(),
            checkpoint_public_key: stranger.verifying_key().to_bytes().to_vec(),
            checkpoint: keyledger_ledger::note::sign(&own, &stranger),
            ..genuine.clone()
        };
        signed(&own);
        let unpinned = verify(d, &file, &[]).await;
        assert_eq!((&unpinned["good"], &unpinned["pinned"]), (&true.into(), &false.into()));
        let report = verify(d, &file, &["--verifier-key", &key]).await;
        assert!(problems(&report)[0].contains("checkpoint key is not"), "{report}");
        let pin = replica.admin().call(GetCheckpointRequest {}).await.unwrap().note;
        let pin_file = folder(d).join("pin");
        std::fs::write(&pin_file, pin).unwrap();
        let pin_file = pin_file.display().to_string();
        let report = verify(d, &file, &["--pin", &pin_file]).await;
        assert!(problems(&report)[0].contains("pinned checkpoint"), "{report}");
        std::fs::write(&manifest, &good).unwrap();
        for pins in [["--verifier-key", &key], ["--pin", &pin_file]] {
            assert_eq!(verify(d, &file, &pins).await["good"], true);
        }
        for damaged in ["", "{}\n", "no manifest\n"] {
            std::fs::write(&manifest, damaged).unwrap();
            assert_eq!(verify(d, &file, &[]).await["good"], false, "{damaged}");
        }
    });
}

/// Events that fill many messages.
async fn fill(replica: &Replica) {
    for n in 0..12 {
        let event = |m: usize| NewEvent {
            resource: format!("bulk/{n}/{m}"),
            attributes: vec![EventAttribute {
                name: "text".into(),
                value: Some(AttributeValue::Text(format!("{n:05}{m:05}").repeat(1_000))),
                personal: false,
            }],
            ..login("carol@example.com", "bulk")
        };
        let events = (0..20).map(event).collect();
        replica.admin().call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
    }
}

#[test]
fn an_export_goes_on_through_another_replica_when_its_server_is_killed() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        tell(&a).await;
        fill(&a).await;
        for (name, format) in FORMATS {
            let request = of("", format);
            let caller = b.caller_on_new_connection(&d.tokens.admin);
            let mut stream = caller.stream(request.clone()).await.unwrap();
            let first = stream.message().await.unwrap().unwrap();
            let second = stream.message().await.unwrap().unwrap();
            assert!(first.lines.is_empty() && !second.lines.is_empty());
            drop(stream);
            let undisturbed =
                ExportEventsRequest { resume_token: first.resume_token, ..request.clone() };
            let undisturbed = exported(&a.admin(), undisturbed).await;
            assert!(undisturbed.tokens.len() > 5, "{name} has many messages");
            // From each message on, the rest is the same.
            let rest = ExportEventsRequest { resume_token: second.resume_token, ..request.clone() };
            let rest = exported(&a.admin(), rest).await;
            assert_eq!(
                [second.lines.as_slice(), &rest.lines].concat(),
                undisturbed.lines,
                "{name}"
            );
            assert_eq!(rest.manifest().root, undisturbed.manifest().root);
            // Even after the last line.
            let last = undisturbed.tokens.last().unwrap().clone();
            let last = ExportEventsRequest { resume_token: last, ..request };
            let last = exported(&a.admin(), last).await;
            assert_eq!(last.manifest().root, undisturbed.manifest().root);
            assert!(last.lines.is_empty());
        }
        let caller = a.caller_on_new_connection(&d.tokens.admin);
        let request = of("", ExportFormat::JsonLines);
        let mut stream = caller.stream(request.clone()).await.unwrap();
        let first = stream.message().await.unwrap().unwrap();
        let second = stream.message().await.unwrap().unwrap();
        a.kill().await;
        let from = |token: Vec<u8>| ExportEventsRequest { resume_token: token, ..request.clone() };
        let whole = exported(&b.admin(), from(first.resume_token)).await;
        let rest = exported(&b.admin(), from(second.resume_token)).await;
        assert_eq!([second.lines.as_slice(), &rest.lines].concat(), whole.lines);
        assert_eq!(rest.manifest().root, whole.manifest().root);
    });
}

#[test]
fn a_killed_export_command_goes_on_where_it_was_and_equals_one_that_was_not() {
    scenario(async |d| {
        let replica = d.replica().await;
        fill(&replica).await;
        // Only so much comes through: the command is then surely in the middle.
        let through = narrow(&replica.address, 1_500_000).await;
        let file = folder(d).join("killed");
        let arguments =
            ["audit", "export", "--format", "cloudevents", "--category", "bulk", "--out"];
        let [_, _, token_option, token] = connection(d, &replica);
        let mut command = d.program();
        command.args(arguments).arg(&file).args(["--endpoint", &format!("http://{through}")]);
        command.args([&token_option, &token]).stdin(Stdio::null()).kill_on_drop(true);
        let mut command = command.spawn().unwrap();
        let state = PathBuf::from(format!("{}.partial.state", file.display()));
        let kept = || {
            let state = std::fs::read(&state).ok()?;
            serde_json::from_slice::<Value>(&state).ok()?["lines"].as_u64()
        };
        while kept().is_none_or(|lines| lines == 0) {
            tokio::task::yield_now().await;
        }
        command.kill().await.unwrap();
        let before = kept().unwrap();
        assert!((1..240).contains(&before) && !file.exists(), "{before} lines");

        let arguments = ["--format", "cloudevents", "--category", "bulk"];
        let resumed = export_file(d, &replica, &arguments, "killed").await;
        let other = export_file(d, &replica, &arguments, "undisturbed").await;
        assert_eq!(std::fs::read(&resumed).unwrap(), std::fs::read(&other).unwrap());
        let report = verify(d, &resumed, &[]).await;
        assert_eq!((&report["good"], &report["lines"]), (&true.into(), &240.into()));
        assert!(!state.exists());
        // What goes on must be the same export.
        let partial = of("bulk", ExportFormat::Csv);
        let mut stream = replica.admin().stream(partial).await.unwrap();
        let token = stream.message().await.unwrap().unwrap().resume_token;
        let wrong = |request| async {
            refused(replica.admin().stream(request).await.map(drop))
                .with(Code::InvalidArgument, ErrorReason::ResumeTokenInvalid);
        };
        let with = |resume_token, request| ExportEventsRequest { resume_token, ..request };
        wrong(with(token.clone(), of("error", ExportFormat::Csv))).await;
        wrong(with(token.clone(), of("bulk", ExportFormat::Ocsf))).await;
        wrong(with(vec![7; 100], of("bulk", ExportFormat::Csv))).await;
        let mut flipped = token.clone();
        *flipped.last_mut().unwrap() ^= 1;
        wrong(with(flipped, of("bulk", ExportFormat::Csv))).await;
        let reader = service_key("reader", vec![grant("audit.read", "logs/bulk")]);
        let made = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&made.token);
        let other_key = with(token, of("bulk", ExportFormat::Csv));
        refused(reader.stream(other_key).await.map(drop))
            .with(Code::InvalidArgument, ErrorReason::ResumeTokenInvalid);
        // All that one may read is something else once one may read something else.
        let all = of("", ExportFormat::Csv);
        let mut stream = reader.stream(all.clone()).await.unwrap();
        let token = stream.message().await.unwrap().unwrap().resume_token;
        let other_grants = UpdateKeyRequest {
            grants: vec![grant("audit.read", "logs/error")],
            ..update(&made.key.unwrap().key_id, &["grants"])
        };
        replica.admin().call(other_grants).await.unwrap();
        refused(reader.stream(with(token, all)).await.map(drop))
            .with(Code::FailedPrecondition, ErrorReason::RightsChanged);
    });
}

/// An address behind which the server's answers end after so many bytes, and nobody is told.
async fn narrow(address: &str, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let address = address.to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_server.take(bytes), &mut to_client).await;
                let _ = to_client.flush().await;
                std::future::pending::<()>().await;
            });
        }
    });
    own
}

#[test]
fn hostile_texts_stay_in_their_cell() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let hostile =
            ["=cmd()|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1:A9)", "a,\"b\",=1", "\",=x,\""];
        let text = "one\r\n=two()\u{202e}\r\n\t-three";
        for text in hostile {
            let event = NewEvent {
                actor: Some(Actor { actor: Some(actor::Actor::User(format!("{text} person"))) }),
                action: text.into(),
                resource: text.into(),
                reason: format!("{text} reason"),
                ..login("", "hostile")
            };
            let outcome = admin
                .call(RecordEventsRequest { events: vec![event], ..Default::default() })
                .await
                .unwrap();
            assert!(outcome.outcomes[0].refusal.is_none(), "{outcome:?}");
        }
        let value = Some(AttributeValue::Text(text.into()));
        let attribute = EventAttribute { name: "note".into(), value, personal: true };
        let event =
            NewEvent { attributes: vec![attribute], ..login("dave@example.com", "hostile") };
        let outcome = admin
            .call(RecordEventsRequest { events: vec![event], ..Default::default() })
            .await
            .unwrap();
        assert!(outcome.outcomes[0].refusal.is_none(), "{outcome:?}");

        let csv = exported(&admin, of("hostile", ExportFormat::Csv)).await;
        assert_eq!(csv.manifest().lines, 8, "a header, and a line for each event");
        let records = parse_csv(csv.text());
        assert_eq!(records.len(), 8);
        let column = |name: &str| records[0].iter().position(|c| c == name).unwrap();
        for (record, text) in records[1..].iter().zip(hostile) {
            assert_eq!(record.len(), records[0].len());
            let (person, reason) = (format!("{text} person"), format!("{text} reason"));
            for (name, text) in [
                ("actor_user", person.as_str()),
                ("action", text),
                ("resource", text),
                ("reason", reason.as_str()),
            ] {
                let cell = &record[column(name)];
                assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), text);
            }
        }
        for cell in records.iter().flatten() {
            let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
            assert!(!formula && !cell.contains(char::is_control), "{cell:?}");
        }
        assert!(records[7][column("attributes")].contains("one\\r\\n=two()"), "{:?}", records[7]);
        for (_, format) in &FORMATS[..3] {
            let lines = exported(&admin, of("hostile", *format)).await;
            assert_eq!(lines.text().lines().count(), 7);
            for (line, text) in lines.text().lines().zip(hostile) {
                let line: Value = serde_json::from_str(line).expect("each line is JSON");
                assert!(strings(&line).any(|s| s == text), "{line}");
            }
        }
    });
}

/// All strings in a JSON value.
fn strings(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(values) => Box::new(values.iter().flat_map(strings)),
        Value::Object(values) => Box::new(values.values().flat_map(strings)),
        _ => Box::new(std::iter::empty()),
    }
}

/// All that a line holds: its text, and whatever stands in it as base64.
fn all_bytes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        for part in strings(&line).filter_map(|s| BASE64_STANDARD.decode(s).ok()) {
            bytes.extend(part);
        }
    }
    bytes
}

#[test]
fn a_key_for_one_category_exports_that_one_and_no_byte_of_another() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let categories = ["error", "user-activity", "security/login", "error/deep"];
        let marker = |category: &str| format!("marker-of-{}", category.replace('/', "-"));
        let trace_id = "0af7651916cd43dd8448eb211c80319c";
        for n in 0..10 {
            let event = |category: &&str| NewEvent {
                resource: format!("{}/{n}", marker(category)),
                trace_id: trace_id.into(),
                ..login(&format!("{}@example.com", marker(category)), category)
            };
            let events = categories.iter().map(event).collect();
            admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
        }
        // A limited key, whose uses the bodies of pages name.
        let limited = CreateKeyRequest {
            restrictions: Some(Restrictions { max_uses: 1_000, ..Restrictions::default() }),
            ..service_key("limited", vec![grant("audit.read", "logs/error")])
        };
        let limited = admin.call(limited).await.unwrap();
        for _ in 0..5 {
            let used = replica.caller(&limited.token);
            admin.call(check(&limited.token)).await.unwrap();
            used.call(WhoAmIRequest {}).await.unwrap();
        }
        let limited = limited.key.unwrap().key_id;
        let limited_bytes = keyledger_ledger::id::KeyId::parse(&limited).unwrap();
        let reader = async |category: &str| {
            let key =
                service_key("exporter", vec![grant("audit.read", &format!("logs/{category}"))]);
            replica.caller(&admin.call(key).await.unwrap().token)
        };
        let holds = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        for category in categories {
            let reader = reader(category).await;
            for (name, format) in FORMATS {
                let found = exported(&reader, of(category, format)).await;
                assert_eq!(found.manifest().lines, 10 + u64::from(name == "csv"));
                let mut bytes = all_bytes(found.text());
                bytes.extend(&found.manifest.payload);
                bytes.extend(found.tokens.concat());
                // All that it may read is the same.
                let all = exported(&reader, of("", format)).await;
                assert_eq!(all.manifest().lines, found.manifest().lines);
                let mut more = all_bytes(all.text());
                more.extend(all.manifest.payload);
                bytes.extend(more);
                assert!(holds(&bytes, format!("{}/0", marker(category)).as_bytes()));
                for other in categories.iter().filter(|other| **other != category) {
                    for marker in [format!("{}/", marker(other)), format!("{}@", marker(other))] {
                        assert!(!holds(&bytes, marker.as_bytes()), "{marker} in {name}");
                    }
                }
                for marker in
                    ["keyledger/use", "keyledger/lifecycle", "VerifyKey", "WhoAmI", &limited]
                {
                    assert!(!holds(&bytes, marker.as_bytes()), "{marker} in {name}");
                }
                assert!(!holds(&bytes, limited_bytes.as_bytes()), "{name}");
                for other in ["keyledger/use", "keyledger/lifecycle", "keyledger/access", "other"] {
                    refused(reader.stream(of(other, format)).await.map(drop))
                        .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
                }
            }
        }
        // Uses that read the log lie in pages with others: only they come out, and not the body of their page.
        admin.call(ListEventsRequest::default()).await.unwrap();
        let access = reader("keyledger/access").await;
        for (name, format) in FORMATS {
            let found = exported(&access, of("keyledger/access", format)).await;
            assert!(found.manifest().lines > 5);
            let bytes = all_bytes(found.text());
            for marker in ["VerifyKey", "WhoAmI", &limited] {
                assert!(!holds(&bytes, marker.as_bytes()), "{marker} in {name}");
            }
            assert!(!holds(&bytes, limited_bytes.as_bytes()), "{name}");
            if name == "jsonl" {
                for line in found.text().lines() {
                    let line: Value = serde_json::from_str(line).unwrap();
                    assert!(
                        line["entry"].is_null() && line["use"]["path"] == serde_json::json!([])
                    );
                }
            }
        }
        // Whoever may read both sees the proofs.
        let found = exported(&admin, of("keyledger/access", ExportFormat::JsonLines)).await;
        assert!(found.text().lines().all(|line| line.contains("\"entry\":{")));
    });
}

#[test]
fn an_export_leaves_what_was_asked_and_how_much_it_gave() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        tell(&replica).await;
        fill(&replica).await;
        let reader = service_key("exporter", vec![grant("audit.read", "logs/**")]);
        let reader = admin.call(reader).await.unwrap();
        let reader_id = reader.key.unwrap().key_id;
        let reader = replica.caller_on_new_connection(&reader.token);
        let filter = EventFilter { resource_prefix: "portal/".into(), ..Default::default() };
        let request =
            ExportEventsRequest { filter: Some(filter), ..of("security/login", ExportFormat::Csv) };
        let found = exported(&reader, request).await;
        assert_eq!(found.manifest().lines, 7);
        let left = async || {
            let request = ListEventsRequest {
                key_id: reader_id.clone(),
                category: "keyledger/access".into(),
                ..Default::default()
            };
            let mut events = admin.call(request).await.unwrap().events;
            events.reverse();
            events
        };
        let [opening, end] = &left().await[..] else { panic!("{:?}", left().await) };
        for left in [opening, end] {
            assert_eq!(left.method, "AuditService/ExportEvents");
            assert_eq!(left.resource, "logs/security/login");
            assert!(left.asked.contains("portal/") && left.asked.contains("EXPORT_FORMAT_CSV"));
        }
        assert_eq!((opening.returned, end.returned), (None, Some(6)), "the header is no event");

        // Also when the reader goes away: what was on its way counts.
        let mut stream = reader.stream(of("bulk", ExportFormat::JsonLines)).await.unwrap();
        stream.message().await.unwrap();
        drop(stream);
        let end = loop {
            let left = left().await;
            if left.len() == 4 {
                break left[3].clone();
            }
        };
        assert!(end.returned.is_some_and(|given| given < 240), "{end:?}");
        // A token that is no good is refused, and recorded so.
        let wrong = ExportEventsRequest {
            resume_token: vec![1; 80],
            ..of("bulk", ExportFormat::JsonLines)
        };
        refused(reader.stream(wrong).await.map(drop))
            .with(Code::InvalidArgument, ErrorReason::ResumeTokenInvalid);
        let last = left().await.pop().unwrap();
        assert_eq!(last.decision_reason(), entry::DecisionReason::InvalidRequest);
    });
}
