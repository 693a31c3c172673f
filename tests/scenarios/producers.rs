//! Services that sign what they record, with keys of their own: checked, kept, and verified by whoever can open it.

use ed25519_dalek::{Signer, SigningKey};
use keyledger_ledger::producer;
use keyledger_proto::*;
use prost::Message;
use tonic::Code;

use crate::harness::*;

fn signer(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn register(signers: &[&SigningKey]) -> RegisterProducerKeysRequest {
    RegisterProducerKeysRequest {
        public_keys: signers.iter().map(|s| s.verifying_key().to_bytes().to_vec()).collect(),
        reason: "the portal signs what it says".into(),
        ..RegisterProducerKeysRequest::default()
    }
}

fn signed(signer: &SigningKey, event: &NewEvent) -> NewEvent {
    let payload = event.encode_to_vec();
    let signature = signer.sign(&producer::to_sign(&payload)).to_bytes().to_vec();
    let public_key_sha256 = producer::digest(&signer.verifying_key()).to_vec();
    let signature = Some(SignedByProducer { payload, public_key_sha256, signature });
    NewEvent { signature, ..NewEvent::default() }
}

async fn record(caller: &Caller, event: NewEvent) -> EventOutcome {
    let request = RecordEventsRequest { events: vec![event], atomic: false };
    caller.call(request).await.unwrap().outcomes.remove(0)
}

#[test]
fn what_a_producer_signed_is_kept_as_it_was_and_names_nobody_in_the_clear() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let writer = service_key("portal", vec![grant("audit.write", "logs/login")]);
        let writer = a.admin().call(writer).await.unwrap();
        let (on_a, on_b) = (a.caller(&writer.token), b.caller(&writer.token));
        on_a.call(register(&[&signer(1)])).await.unwrap();
        let event = NewEvent { event_id: "1".into(), ..login("alice@example.com", "login") };
        let outcome = record(&on_b, signed(&signer(1), &event)).await;
        assert!(outcome.position.is_some(), "{outcome:?}");
        assert!(record(&on_a, signed(&signer(1), &event)).await.repeated);

        let list = ListEventsRequest { category: "login".into(), ..Default::default() };
        let shown = a.admin().call(list).await.unwrap().events.remove(0);
        let kept = shown.signature.expect("the signature is kept");
        assert_eq!(NewEvent::decode(kept.payload.as_slice()).unwrap(), event);
        assert!(producer::has_signed(&signer(1).verifying_key(), &kept.payload, &kept.signature));
        assert_eq!((shown.action, shown.actor), (event.action, event.actor));
        for record in d.records(1).await {
            assert!(!format!("{record:?}").contains("alice"), "{record:?}");
        }
        // A replica that starts later knows the keys.
        a.stop().await;
        let c = d.replica().await;
        let event = NewEvent { event_id: "2".into(), ..login("alice@example.com", "login") };
        let outcome = record(&c.caller(&writer.token), signed(&signer(1), &event)).await;
        assert!(outcome.position.is_some(), "{outcome:?}");
    });
}

#[test]
fn a_signature_that_is_not_good_or_not_the_callers_is_refused() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let writer = || service_key("portal", vec![grant("audit.write", "logs/login")]);
        let portal = replica.caller(&admin.call(writer()).await.unwrap().token);
        let other = replica.caller(&admin.call(writer()).await.unwrap().token);
        portal.call(register(&[&signer(1), &signer(2)])).await.unwrap();
        other.call(register(&[&signer(3)])).await.unwrap();
        let event = login("alice@example.com", "login");
        let good = signed(&signer(2), &event);
        let forged = |change: &dyn Fn(&mut SignedByProducer)| {
            let mut event = good.clone();
            change(event.signature.as_mut().unwrap());
            event
        };
        let second = Actor { actor: Some(actor::Actor::User("bob@example.com".into())) };
        let bad = [
            ("signature.signature", signed(&signer(3), &event)),
            ("signature.signature", forged(&|s| s.signature[5] ^= 1)),
            ("signature.signature", forged(&|s| s.payload.extend([0x72, 0x01, b'x']))),
            ("signature.signature", forged(&|s| s.public_key_sha256[0] ^= 1)),
            ("signature.public_key_sha256", forged(&|s| s.public_key_sha256.clear())),
            ("signature.payload", forged(&|s| s.payload = vec![0xff])),
            ("signature.payload", forged(&|s| s.payload = good.encode_to_vec())),
            ("signature", NewEvent { action: "other".into(), ..good.clone() }),
            ("signature.payload.category", signed(&signer(2), &login("a@example.com", "a b"))),
            (
                "signature.payload.on_behalf_of",
                signed(&signer(2), &NewEvent { on_behalf_of: vec![second], ..event.clone() }),
            ),
        ];
        for (field, event) in bad {
            let refusal = record(&portal, event).await.refusal.expect(field);
            assert_eq!(refusal.reason(), ErrorReason::InvalidField);
            assert_eq!(refusal.problems[0].field, field, "{refusal:?}");
        }
        assert!(record(&portal, good.clone()).await.position.is_some());
        // Whoever takes its keys back signs nothing any more; what it has signed stays.
        portal.call(register(&[])).await.unwrap();
        let refusal = record(&portal, good).await.refusal.unwrap();
        assert_eq!(refusal.problems[0].field, "signature.signature");
        let weak = RegisterProducerKeysRequest {
            public_keys: vec![vec![0; 31]],
            reason: "why not".into(),
            ..Default::default()
        };
        refused(portal.call(weak).await).with(Code::InvalidArgument, ErrorReason::InvalidField);
    });
}
