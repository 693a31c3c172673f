//! What a replica believes when it starts: no row of a key that isn't as its entries left it, and no ledger that doesn't
//! extend the checkpoints that are known.

use keyledger_ledger::id::KeyId;
use keyledger_ledger::record::{RowMac, encode_key};
use keyledger_ledger::state::Key;

use super::*;

/// The row of a key.
#[derive(Clone)]
struct Row {
    position: i64,
    state: Vec<u8>,
    mac: Vec<u8>,
}

#[test]
fn a_key_set_back_to_active_in_the_projection_is_refused() {
    scenario(async |d| {
        let replica = d.replica().await;
        let alice = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let id = alice.key.as_ref().unwrap().key_id.clone();
        let vandal = Vandal::new(d, 1).await;
        let before = vandal.row(&id).await;
        let oldest = before.clone();
        vandal.run("CREATE TABLE old_binding AS SELECT * FROM projections").await;
        replica.admin().call(revoke(&id)).await.unwrap();
        assert_eq!(verdict_on(&replica, &alice.token).await, entry::DecisionReason::Revoked);
        covered_by_checkpoints(&vandal.client).await;
        assert!(replica.stop().await.success());

        let after = vandal.row(&id).await;
        let unrevoked = encode_key(&Key { revoked: None, ..vandal.folded(&id).await });
        assert_ne!(unrevoked, after.state);
        let anybodys = RowMac::new([7; 32]);
        let key_id: Uuid = id.parse().unwrap();
        let mac = anybodys.of(
            "keys",
            vandal.ledger_id.as_bytes(),
            key_id.as_bytes(),
            after.position as u64,
            &unrevoked,
        );
        for (what, row) in [
            ("the row of before, with its own MAC", before.clone()),
            ("the row of before, moved up", Row { position: after.position, ..before.clone() }),
            ("the state of before", Row { state: before.state, ..after.clone() }),
            ("not revoked", Row { state: unrevoked.clone(), ..after.clone() }),
            (
                "not revoked, with a MAC of another key",
                Row { state: unrevoked, mac: mac.to_vec(), ..after.clone() },
            ),
        ] {
            vandal.set_row(&id, &row).await;
            let finding = vandal.found(what).await;
            assert_eq!(finding.position, after.position as u64, "{what}: {finding}");
            assert!(finding.to_string().contains(&id), "{what}: {finding}");
            let replica = d.replica().await;
            assert_eq!(
                verdict_on(&replica, &alice.token).await,
                entry::DecisionReason::Revoked,
                "{what}"
            );
            let call = replica.caller(&alice.token).call(WhoAmIRequest {}).await;
            refused(call).with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            assert!(replica.log().contains("is not believed"), "{what}");
            assert!(replica.stop().await.success());
        }
        // Also if nothing beside the revocation says any more that it is about this key, and also if the binding of all rows
        // is put back with the row.
        vandal.run("CREATE TABLE new_binding AS SELECT * FROM projections").await;
        let bind = |to: &str| {
            format!(
                "UPDATE projections p SET position = b.position, next_page = b.next_page,
                        next_start = b.next_start, next_event = b.next_event,
                        servings = b.servings, counts = b.counts, mac = b.mac
                 FROM {to} b WHERE b.ledger_id = p.ledger_id"
            )
        };
        let revocation = vandal.at(after.position);
        vandal
            .run(&format!(
                "UPDATE entries SET key_id = NULL, stream_version = NULL WHERE {revocation}"
            ))
            .await;
        vandal.set_row(&id, &oldest).await;
        for binding in ["new_binding", "old_binding"] {
            vandal.run(&bind(binding)).await;
            let replica = d.replica().await;
            let verdict = verdict_on(&replica, &alice.token).await;
            assert_eq!(verdict, entry::DecisionReason::Revoked, "{binding}");
            assert!(replica.stop().await.success());
        }
        vandal
            .run(&format!(
                "UPDATE entries SET key_id = '{id}', stream_version = 2 WHERE {revocation};
                 {}; DROP TABLE old_binding, new_binding",
                bind("new_binding")
            ))
            .await;
        vandal.set_row(&id, &after).await;
        vandal.is_good().await;
    });
}

#[test]
fn a_prefix_stays_its_owners_if_its_registration_is_hidden_from_a_replica_that_starts() {
    scenario(async |d| {
        let replica = d.replica().await;
        let grants = vec![grant("permissions.register", "permissions/billing")];
        let billing = replica.admin().call(service_key("billing", grants)).await.unwrap();
        let registered = register("billing", &["billing.read"]);
        let registered = replica.caller(&billing.token).call(registered).await.unwrap();
        assert!(replica.stop().await.success());
        let vandal = Vandal::new(d, 1).await;
        let place = vandal.at(registered.position.unwrap() as i64);
        // As if it were a page of uses, which a replica that starts doesn't read.
        vandal.run(&format!("UPDATE entries SET kind = 23 WHERE {place}")).await;
        let replica = d.replica().await;
        assert!(replica.log().contains("is not believed"), "{}", replica.log());
        let steal = replica.admin().call(register("billing", &["billing.steal"])).await;
        refused(steal).with(Code::AlreadyExists, ErrorReason::PrefixTaken);
        assert!(replica.stop().await.success());
        vandal.run(&format!("UPDATE entries SET kind = 34 WHERE {place}")).await;
        vandal.is_good().await;
    });
}

#[test]
fn whoever_has_left_has_left_and_what_was_counted_was_counted_if_it_is_hidden_from_a_replica_that_starts()
 {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        admin.call(user_key("alice@example.com")).await.unwrap();
        let left = admin.call(owner_left("alice@example.com")).await.unwrap().position.unwrap();
        let policy = LedgerPolicy { digest_days: 1, ..Default::default() };
        admin.call(update_policy(&["digest_days"], policy)).await.unwrap();
        let from = StreamEventsRequest { from_position: Some(0), ..Default::default() };
        let mut events = admin.stream(from).await.unwrap();
        let digested = loop {
            let event = events.message().await.unwrap().expect("the stream goes on").event;
            if let Some(event) = event.filter(|e| e.r#type == "findings.digested") {
                break event.position.unwrap();
            }
        };
        assert!(replica.stop().await.success());
        let vandal = Vandal::new(d, 1).await;
        for (position, kind) in [(left, 45), (digested, 48)] {
            let place = vandal.at(position as i64);
            vandal.run(&format!("UPDATE entries SET kind = 23 WHERE {place}")).await;
            let replica = d.replica().await;
            assert!(replica.log().contains("is not believed"), "{}", replica.log());
            let again = replica.admin().call(owner_left("alice@example.com")).await;
            refused(again).with(Code::FailedPrecondition, ErrorReason::OwnerStatus);
            assert!(replica.stop().await.success());
            vandal.run(&format!("UPDATE entries SET kind = {kind} WHERE {place}")).await;
        }
        vandal.is_good().await;
    });
}

#[test]
fn a_replica_does_not_start_on_a_ledger_that_does_not_extend_its_checkpoint() {
    scenario(async |d| {
        tell(d).await;
        let file = d.key_dir().join("ledger-1.checkpoint");
        let kept = std::fs::read_to_string(&file).unwrap();
        let vandal = Vandal::new(d, 1).await;
        let id = vandal.ledger_id;
        let newest = vandal.size().await - 1;
        let flip = "SET body = set_bit(body, 40, 1 - get_bit(body, 40))";
        let delete = format!("DELETE FROM entries WHERE ledger_id = '{id}' AND position");
        for (damage, reason) in [
            (format!("{delete} = {newest}"), "the newest ones are missing"),
            (format!("{delete} = 2"), "lacks hashes"),
            (format!("{delete} >= 0"), "the ledger is empty, but a checkpoint of it exists"),
            (
                format!("UPDATE entries {flip} WHERE {}", vandal.at(2)),
                "doesn't extend its checkpoint",
            ),
            (
                format!("UPDATE entries {flip} WHERE {}", vandal.at(newest)),
                "doesn't extend its checkpoint",
            ),
            (
                format!(
                    "UPDATE entries SET signature = set_bit(signature, 9, 1 - get_bit(signature, 9)) WHERE {}",
                    vandal.at(3)
                ),
                "doesn't extend its checkpoint",
            ),
        ] {
            // The file tells, whatever became of the checkpoints in the database.
            vandal.keep("entries").await;
            vandal.keep("checkpoints").await;
            vandal.run(&format!("DELETE FROM checkpoints WHERE ledger_id = '{id}'")).await;
            vandal.run(&damage).await;
            let refusal = d.try_replica(d.databases(), &d.key_dir()).await.err().expect(&damage);
            assert!(refusal.contains(reason), "{damage}: {refusal}");
            vandal.put_back("entries").await;
            vandal.put_back("checkpoints").await;
        }
        for (other, reason) in [
            (kept.replacen("default", "another", 1), "is not of this ledger"),
            (
                std::fs::read_to_string(d.key_dir().join("ledger-0.checkpoint")).unwrap(),
                "is not of this ledger",
            ),
            (String::new(), "is not of this ledger"),
        ] {
            std::fs::write(&file, &other).unwrap();
            let refusal = d.try_replica(d.databases(), &d.key_dir()).await.err().expect(&other);
            assert!(refusal.contains(reason), "{other}: {refusal}");
        }
        std::fs::write(&file, &kept).unwrap();
        d.replica().await;
    });
}

async fn verdict_on(replica: &Replica, token: &str) -> entry::DecisionReason {
    let verdict = replica.admin().call(check(token)).await.unwrap();
    assert_eq!(verdict.decision(), entry::Decision::Deny);
    verdict.reason()
}

impl Vandal {
    /// A key as the entries fold to it.
    async fn folded(&self, key_id: &str) -> Key {
        let (verifier, finding) = self.verify().await;
        assert_eq!(finding, None);
        let id: Uuid = key_id.parse().unwrap();
        Key::clone(&verifier.state().keys[&KeyId::from_bytes(*id.as_bytes())])
    }

    async fn row(&self, key_id: &str) -> Row {
        let id: Uuid = key_id.parse().unwrap();
        let row = "SELECT position, state, mac FROM keys WHERE key_id = $1";
        let row = self.client.query_one(row, &[&id]).await.unwrap();
        Row { position: row.get(0), state: row.get(1), mac: row.get(2) }
    }

    async fn set_row(&self, key_id: &str, row: &Row) {
        let id: Uuid = key_id.parse().unwrap();
        let set = "UPDATE keys SET position = $2, state = $3, mac = $4 WHERE key_id = $1";
        let set = self.client.execute(set, &[&id, &row.position, &row.state, &row.mac]).await;
        assert_eq!(set.unwrap(), 1);
    }
}
