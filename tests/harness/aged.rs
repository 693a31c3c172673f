//! Older ledgers: one that a scenario has made is turned into the one that would be there if all of it had happened days ago. So
//! what takes days is seen with real servers, a real Postgres and today's clock.
//!
//! Each signed body is read, its times are moved back, what ties a key's entries together is made anew, and it is signed again
//! with the deployment's own signer. All that follows from the entries is thrown away, and the projected rows are made anew. The scenario
//! stops its servers before. At its end the ledger is verified like any other.

use std::collections::HashMap;

use ed25519_dalek::SigningKey;
use keyledger_ledger::apply::apply;
use keyledger_ledger::body::Event;
use keyledger_ledger::command::DAY;
use keyledger_ledger::entry::EntrySigner;
use keyledger_ledger::record::{ProjectionAt, RowMac, encode_key};
use keyledger_ledger::state::State;
use keyledger_proto::methods;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use tokio_postgres::Client;
use uuid::Uuid;

use super::deployment::Deployment;

/// Fields of signed bodies that hold a moment. Others that end in `_us` hold lengths of time.
const MOMENTS: [&str; 10] = [
    "time_us",
    "expire_time_us",
    "previous_expire_time_us",
    "first_time_us",
    "last_time_us",
    "from_us",
    "to_us",
    "until_us",
    "occurred_time_us",
    "idle_since_us",
];

const FOLLOWS: [&str; 9] = [
    "tiles",
    "checkpoints",
    "keys",
    "projections",
    "event_terms",
    "event_counts",
    "usage_counts",
    "event_index_progress",
    "key_last_uses",
];

const APPEND_ONLY: [&str; 3] = ["entries", "tiles", "checkpoints"];

impl Deployment {
    /// Moves all that happened in the first ledger so many days into the past. No server may be running.
    pub(crate) async fn age(&self, days: i64) {
        let client = self.superuser().await;
        let run = async |sql: String| client.batch_execute(&sql).await.expect("a superuser may");
        for table in APPEND_ONLY {
            run(format!("ALTER TABLE {table} DISABLE TRIGGER append_only")).await;
        }
        let row = client.query_one("SELECT ledger_id FROM ledgers WHERE number = 1", &[]).await;
        let ledger_id: Uuid = row.expect("there is a first ledger").get(0);
        let signer = EntrySigner::new(SigningKey::from_bytes(&self.key("entry-signer")));
        let state = sign_again(&client, ledger_id, &signer, days * DAY).await;
        for table in FOLLOWS {
            run(format!("DELETE FROM {table} WHERE ledger_id = '{ledger_id}'")).await;
        }
        project(&client, ledger_id, &state, &RowMac::new(self.key("row-mac"))).await;
        for table in APPEND_ONLY {
            run(format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only")).await;
        }
        // The checkpoint that was kept outside is one of the ledger as it was.
        let _ = std::fs::remove_file(self.key_dir().join("ledger-1.checkpoint"));
    }

    /// A key of the deployment's key directory.
    fn key(&self, purpose: &str) -> [u8; 32] {
        let text = std::fs::read_to_string(self.key_dir().join(format!("{purpose}.1")));
        let mut key = [0; 32];
        let text = text.expect("init has written it");
        hex::decode_to_slice(text.trim(), &mut key).expect("32 bytes in hexadecimal");
        key
    }
}

/// What the entries come to, once they are signed again.
async fn sign_again(client: &Client, ledger_id: Uuid, signer: &EntrySigner, micros: i64) -> State {
    let all = "SELECT position, body FROM entries WHERE ledger_id = $1 ORDER BY position";
    let rows = client.query(all, &[&ledger_id]).await.expect("a superuser may read");
    // Of each key, the leaf hash of its newest entry.
    let mut newest: HashMap<Vec<u8>, [u8; 32]> = HashMap::new();
    let mut state = State::default();
    for row in rows {
        let (position, body): (i64, Vec<u8>) = (row.get(0), row.get(1));
        let descriptor = methods::pool().get_message_by_name("keyledger.entry.v1.Event");
        let descriptor = descriptor.expect("our protos declare it");
        let mut event = DynamicMessage::decode(descriptor, body.as_slice()).expect("a good body");
        move_back(&mut event, micros, &newest);
        let body = event.encode_to_vec();
        let event = Event::from_signed(&body).expect("written as it is read");
        let entry = signer.sign(body).expect("as large as before");
        let leaf_hash = entry.leaf_hash();
        if let Some(link) = event.kind.as_ref().and_then(|kind| kind.key_link()) {
            newest.insert(link.key_id.clone(), leaf_hash);
        }
        let update = "UPDATE entries SET body = $3, signature = $4, time_us = $5, leaf_hash = $6
                      WHERE ledger_id = $1 AND position = $2";
        let (signature, hash) = (entry.signature.to_vec(), leaf_hash.to_vec());
        client
            .execute(
                update,
                &[&ledger_id, &position, &entry.body, &signature, &event.time_us, &hash],
            )
            .await
            .expect("a superuser may");
        apply(&mut state, leaf_hash, &event).expect("it fits as it did");
    }
    state
}

/// The rows that the entries come to.
async fn project(client: &Client, ledger_id: Uuid, state: &State, mac: &RowMac) {
    let id = ledger_id.as_bytes();
    for key in state.keys.values() {
        let (row, key_id, position) = (encode_key(key), key.id.uuid(), key.position as i64);
        let own = mac.of("keys", id, key.id.as_bytes(), key.position, &row).to_vec();
        let insert = "INSERT INTO keys (ledger_id, key_id, position, state, mac) VALUES ($1, $2, $3, $4, $5)";
        let inserted = client.execute(insert, &[&ledger_id, &key_id, &position, &row, &own]).await;
        inserted.expect("a superuser may");
    }
    let at = ProjectionAt::of(state);
    let bound = mac.of_sum(id, &at, mac.sum(state)).to_vec();
    let numbers = [at.position, at.next_page, at.next_start, at.next_event].map(|n| n as i64);
    let insert = "INSERT INTO projections VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let [position, page, start, event] = &numbers;
    client
        .execute(
            insert,
            &[
                &ledger_id,
                position,
                page,
                start,
                event,
                &at.servings,
                &at.sessions,
                &at.counts,
                &bound,
            ],
        )
        .await
        .expect("a superuser may");
}

fn move_back(message: &mut DynamicMessage, micros: i64, newest: &HashMap<Vec<u8>, [u8; 32]>) {
    if message.descriptor().full_name() == "keyledger.entry.v1.KeyLink" {
        let id = message.get_field_by_name("key_id").and_then(|id| id.as_bytes().cloned());
        let before = newest.get(id.expect("a link names its key").as_ref());
        if let Some(before) = before {
            let hash = Value::Bytes(before.to_vec().into());
            message.set_field_by_name("previous_leaf_hash", hash);
        }
        return;
    }
    for (field, value) in message.fields_mut() {
        match value {
            Value::I64(moment) if MOMENTS.contains(&field.name()) && *moment != 0 => {
                *moment -= micros;
            }
            Value::Message(inner) => move_back(inner, micros, newest),
            Value::List(list) => {
                for inner in list.iter_mut().filter_map(Value::as_message_mut) {
                    move_back(inner, micros, newest);
                }
            }
            _ => {}
        }
    }
}
