//! What a running replica does with entries that somebody wrote behind its back: it stops that ledger, and never skips.

use ed25519_dalek::SigningKey;
use keyledger_ledger::body::{Event, Kind, RoleCreated, ServerStarted};
use keyledger_ledger::entry::{Entry, EntrySigner};
use prost::Message;
use tokio_postgres::types::ToSql;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::*;

/// Tag 2000, a message: a kind that this version doesn't know.
const UNKNOWN_KIND: &[u8] = &[0x82, 0x7d, 0x02, 0x08, 0x01];
/// Tag 15, a number: a field that this version doesn't know.
const UNKNOWN_FIELD: &[u8] = &[0x78, 0x01];

#[test]
fn an_entry_written_behind_its_back_stops_a_ledger_on_a_running_replica() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        let forger = Forger::new(d, &vandal).await;
        let (a_role, stranger) =
            (forger.role("auditors"), EntrySigner::new(SigningKey::from_bytes(&[9; 32])));
        let mut damaged = forger.sign(&a_role.encode_to_vec());
        damaged.signature[0] ^= 1;
        let mut other_ledger = a_role.clone();
        other_ledger.ledger_id[0] ^= 1;
        let mut earlier = a_role.clone();
        earlier.time_us = 1;
        let started = Kind::ServerStarted(ServerStarted {
            version: "9".into(),
            configuration_digest: vec![1; 32],
            number: 0,
        });
        for (entry, why) in [
            (damaged, "the signature doesn't match the body"),
            (
                stranger.sign(a_role.encode_to_vec()).unwrap(),
                "signed by a key that is not a signer",
            ),
            (forger.sign(&other_ledger.encode_to_vec()), "it belongs to another ledger"),
            (
                forger.sign(&earlier.encode_to_vec()),
                "its time is before that of the entry before it",
            ),
            (forger.sign(&forger.role("viewers").encode_to_vec()), "the role exists already"),
            (
                forger.sign(&forger.event(Some(started)).encode_to_vec()),
                "belongs to the system ledger",
            ),
            // As a newer program would write it.
            (
                forger.sign(&[&forger.event(None).encode_to_vec(), UNKNOWN_KIND].concat()),
                "of a newer format",
            ),
            (forger.sign(&[UNKNOWN_FIELD, &a_role.encode_to_vec()].concat()), "of a newer format"),
            (forger.sign(&[&a_role.encode_to_vec(), UNKNOWN_KIND].concat()), "of a newer format"),
        ] {
            let replica = d.replica().await;
            assert_eq!(health(&replica).await, ServingStatus::Serving);
            let position = vandal.size().await;
            vandal.write(position, &entry).await;
            stopped(&replica, &format!("position {position}: ")).await;
            assert!(replica.log().contains(why), "{why}: {}", replica.log());
            let finding = vandal.found(why).await;
            assert_eq!(finding.position, position as u64);
            assert!(finding.to_string().contains(why), "{finding}");
            assert_eq!(vandal.size().await, position + 1, "nothing was appended");
            assert!(replica.stop().await.success());
            vandal.run(&format!("DELETE FROM entries WHERE {}", vandal.at(position))).await;
        }
        vandal.is_good().await;
    });
}

#[test]
fn a_replica_does_not_start_behind_an_entry_that_it_does_not_know() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        let forger = Forger::new(d, &vandal).await;
        let entry = forger.sign(&[&forger.event(None).encode_to_vec(), UNKNOWN_KIND].concat());
        let position = vandal.size().await;
        vandal.write(position, &entry).await;
        let refusal = d.try_replica(d.databases(), &d.key_dir()).await.err().expect("it refuses");
        assert!(refusal.contains(&format!("position {position}: ")), "{refusal}");
        assert!(refusal.contains("of a newer format"), "{refusal}");
        d.expect_damage("default");
    });
}

#[test]
fn a_position_that_was_left_out_stops_a_ledger_on_a_running_replica() {
    scenario(async |d| {
        let replica = d.replica().await;
        let vandal = Vandal::new(d, 1).await;
        let forger = Forger::new(d, &vandal).await;
        let position = vandal.size().await;
        vandal.write(position + 1, &forger.sign(&forger.role("viewers").encode_to_vec())).await;
        stopped(&replica, &format!("position {position} is missing")).await;
        d.expect_damage("default");
    });
}

/// The ledger is refused from the very next call on, health says so, and the other ledger goes on.
async fn stopped(replica: &Replica, why: &str) {
    for _ in 0..2 {
        let call = replica.admin().call(role("never", vec![])).await;
        refused(call).with(Code::FailedPrecondition, ErrorReason::LedgerStopped);
    }
    let read = replica.admin().call(ListKeysRequest::default()).await;
    refused(read).with(Code::FailedPrecondition, ErrorReason::LedgerStopped);
    while health(replica).await != ServingStatus::NotServing {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(replica.log().contains("a ledger was stopped"), "{}", replica.log());
    assert!(replica.log().contains(why), "{why}: {}", replica.log());
    replica.system_admin().call(WhoAmIRequest {}).await.expect("ledger 0 is good");
}

async fn health(replica: &Replica) -> ServingStatus {
    let reply = replica.health().check(HealthCheckRequest::default()).await;
    reply.unwrap().into_inner().status()
}

/// Has the key that signs entries.
struct Forger {
    signer: EntrySigner,
    ledger_id: Uuid,
    newest_time: i64,
}

impl Forger {
    async fn new(d: &Deployment, vandal: &Vandal) -> Forger {
        let key = std::fs::read_to_string(d.key_dir().join("entry-signer.1")).unwrap();
        let key: [u8; 32] = hex::decode(key.trim()).unwrap().try_into().unwrap();
        let newest = "SELECT max(time_us) FROM entries WHERE ledger_id = $1";
        let newest = vandal.client.query_one(newest, &[&vandal.ledger_id]).await.unwrap();
        Forger {
            signer: EntrySigner::new(SigningKey::from_bytes(&key)),
            ledger_id: vandal.ledger_id,
            // Ahead of what replicas append when they start.
            newest_time: newest.get(0),
        }
    }

    /// An event that fits the ledger, of whatever kind.
    fn event(&self, kind: Option<Kind>) -> Event {
        Event {
            ledger_id: self.ledger_id.as_bytes().to_vec(),
            time_us: self.newest_time,
            kind,
            ..Event::default()
        }
    }

    fn role(&self, name: &str) -> Event {
        self.event(Some(Kind::RoleCreated(RoleCreated { name: name.into(), ..Default::default() })))
    }

    fn sign(&self, body: &[u8]) -> Entry {
        self.signer.sign(body.to_vec()).unwrap()
    }
}

impl Vandal {
    async fn write(&self, position: i64, entry: &Entry) {
        let event = Event::decode(entry.body.as_slice()).unwrap();
        let kind = event.kind.as_ref().map_or(2000, Kind::number);
        let insert = "INSERT INTO entries (ledger_id, position, payload_type, body, public_key_sha256, signature,
                      sealed, uses, kind, time_us, use_count, leaf_hash) VALUES ($1, $2, $3, $4, $5, $6, '', '', $7, $8, 0, $9)";
        let (key, signature) = (entry.public_key_sha256.as_slice(), entry.signature.as_slice());
        let leaf_hash = entry.leaf_hash().to_vec();
        let values: [&(dyn ToSql + Sync); 9] = [
            &self.ledger_id,
            &position,
            &entry.payload_type,
            &entry.body,
            &key,
            &signature,
            &kind,
            &event.time_us,
            &leaf_hash,
        ];
        assert_eq!(self.client.execute(insert, &values).await.unwrap(), 1);
    }
}
