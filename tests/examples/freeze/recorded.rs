//! What other services record, how the log is read, and how many events it holds.

use ed25519_dalek::{Signer, SigningKey};
use keyledger_ledger::body::{self, ActorKind, AttributeValue, Outcome, Severity, Texts};
use keyledger_ledger::command::{Action, Call, ChangeKind, Command, SECOND};
use keyledger_ledger::producer;

use super::{Story, reason};

impl Story {
    /// What another service says of alice, and what is refused.
    pub(super) fn recorded(&mut self) {
        self.wait(SECOND);
        let attribute =
            |name: &str, value| body::Attribute { name: name.into(), value: Some(value) };
        let signer = SigningKey::from_bytes(&self.world.draw());
        let kind = ChangeKind::RegisterProducerKeys {
            public_keys: vec![signer.verifying_key().to_bytes().to_vec()],
        };
        let why = reason("the portal signs what it says");
        let mut register = self.change("AuditService/RegisterProducerKeys", kind, why, self.month);
        register.call.permission = "audit.write";
        self.run(vec![register]);
        for (occurred_time_us, is_signed) in [(0, false), (i64::MAX, false), (0, true)] {
            let payload = match is_signed {
                true => b"what the portal has signed, as it was".to_vec(),
                false => vec![],
            };
            let texts = Texts {
                reason: "quarterly closing".into(),
                actor: "alice@example.com".into(),
                client_address: "203.0.113.9".into(),
                device: "laptop 4711".into(),
                attributes: vec![attribute("mail", AttributeValue::Text("a@example.com".into()))],
                signed: payload.clone(),
                ..Texts::default()
            };
            let actor = ActorKind::UserRef(self.alice.reference.to_vec());
            let service = ActorKind::Service("batch".into());
            let actor_of = |kind| body::Actor { actor: Some(kind) };
            let event = body::EventRecorded {
                actor: Some(actor_of(actor)),
                on_behalf_of: vec![actor_of(service)],
                action: "invoice.export".into(),
                resource: "invoices/2026".into(),
                outcome: Outcome::Denied as i32,
                category: "user-activity".into(),
                severity: Severity::Medium as i32,
                occurred_time_us,
                attributes: vec![
                    attribute("rows", AttributeValue::Integer(17)),
                    attribute("share", AttributeValue::Number(0.5)),
                    attribute("dry", AttributeValue::Flag(true)),
                ],
                number: 0,
                signature: is_signed.then(|| body::ProducerSignature {
                    public_key_sha256: producer::digest(&signer.verifying_key()).to_vec(),
                    signature: signer.sign(&producer::to_sign(&payload)).to_bytes().to_vec(),
                }),
            };
            let kind = ChangeKind::RecordEvent(Box::new(event));
            let mut record = self.change("AuditService/RecordEvents", kind, texts, self.alice);
            record.call.permission = "audit.write";
            record.call.resource = "logs/user-activity".into();
            self.run(vec![record]);
        }
        self.read_and_counted();
    }

    /// A read of the log that tells what was asked and given, and the counts of all categories.
    fn read_and_counted(&mut self) {
        let texts = Texts {
            peer_address: "203.0.113.7".into(),
            asked: r#"category:"user-activity",filter{actor{}}"#.into(),
            ..Texts::default()
        };
        let person = Texts { actor: "alice@example.com".into(), ..Texts::default() };
        let texts = vec![self.seal(self.month, texts), self.seal(self.alice, person)];
        let admin = self.admin.reveal();
        let resource = "logs/user-activity";
        let call = self.call(&admin, "AuditService/ListEvents", "audit.read", resource);
        let call = Call { texts, ..call };
        let read = Command { call, action: Action::Read { returned: Some(2) } };
        let seed = self.world.draw();
        let count = self.world.by_itself(ChangeKind::CountCategories { seed }, vec![]);
        self.run(vec![read, count]);
    }
}
