//! What services register, what holds in the ledger, secrets that grow old, rotations until first use, and answers from memory.

use keyledger_ledger::body::{self, Decision, DecisionReason, Texts};
use keyledger_ledger::bounded::BoundedUse;
use keyledger_ledger::command::{
    Action, ChangeKind, Command, DAY, Expiry, RotateKey, SECOND, UpdatePolicy,
};
use keyledger_ledger::policy::{Policy, Rotation};
use keyledger_ledger::state::Owner;
use keyledger_ledger::token::{Secret, Token};

use super::world::{grant, verify};
use super::{Story, reason};

impl Story {
    /// What a service adds to the catalogue, twice, and what is refused.
    pub(super) fn permissions(&mut self) {
        self.wait(SECOND);
        for (prefix, names) in [
            ("billing", vec!["billing.read"]),
            ("billing", vec!["billing.invoices.read", "billing.write"]),
            ("keys", vec!["keys.steal"]),
        ] {
            let texts = Texts {
                reason: "invoices".into(),
                descriptions: names.iter().map(|n| format!("What {n} allows.")).collect(),
                ..Texts::default()
            };
            let names = names.into_iter().map(String::from).collect();
            let kind = ChangeKind::RegisterPermissions { prefix: prefix.into(), names };
            let register = self.change("KeyService/RegisterPermissions", kind, texts, self.month);
            self.run(vec![register]);
        }
    }

    pub(super) fn policies(&mut self) {
        self.new_policy();
        let token = self.aging_key();
        let token = self.rotated_until_first_use(&token);
        self.answered_from_memory(&token);
        self.reported(&token);
        self.recorded();
        self.overdue(&token);
    }

    fn new_policy(&mut self) {
        self.wait(SECOND);
        let to = Policy {
            default_life: 60 * DAY,
            notice_days: vec![14, 3],
            approvals: vec!["roles.retire".into()],
            max_staleness: 2 * SECOND,
            ..Policy::default()
        };
        let changed = ["default_life", "notice_days", "approval_permissions", "max_staleness"];
        let changed = changed.map(String::from).to_vec();
        let kind = ChangeKind::UpdatePolicy(UpdatePolicy { etag: String::new(), changed, to });
        let mut update = self.change(
            "KeyService/UpdateLedgerPolicy",
            kind,
            reason("the security team asked for it"),
            self.month,
        );
        if let Action::Change(change) = &mut update.action {
            change.approval_ref = "CHG-2026/4711".into();
        }
        self.run(vec![update]);
    }

    /// A key whose role asks for rotation, and allows answers from memory.
    fn aging_key(&mut self) -> Token {
        self.wait(SECOND);
        let role = ChangeKind::CreateRole {
            name: "aging".into(),
            grants: vec![grant(&["audit.read"], "logs/error", false)],
            rotation: Some(Rotation { max_age: 30 * DAY, suspend_after: Some(DAY) }),
            max_staleness: SECOND,
        };
        let role = self.change("KeyService/CreateRole", role, reason("rotate monthly"), self.month);
        let token = self.world.new_key();
        let owner = Owner::Service("robot/aging".into());
        let roles = vec!["aging".to_string()];
        let mut create =
            self.world.create_key(&token, owner, vec![], roles, Expiry::After(300 * DAY));
        if let ChangeKind::CreateKey(create) = &mut create {
            create.rotation = Some(Rotation { max_age: 40 * DAY, suspend_after: None });
        }
        let create = self.change("KeyService/CreateKey", create, reason("nightly"), self.month);
        self.run(vec![role, create]);
        self.tokens.push((1, token.clone()));
        token
    }

    fn rotated_until_first_use(&mut self, old: &Token) -> Token {
        self.wait(SECOND);
        let token = Token { key_id: old.key_id, secret: Secret::new(self.world.draw()) };
        let secret = self.world.new_secret(&token);
        let kind = ChangeKind::RotateKey(RotateKey {
            key_id: old.key_id,
            overlap_micros: DAY,
            until_first_use: true,
            secret,
        });
        let rotate = self.change("KeyService/RotateKey", kind, reason("monthly"), self.month);
        self.run(vec![rotate]);
        self.tokens.push((2, token.clone()));
        for presented in [old, &token, old] {
            let admin = self.admin.reveal();
            let call = self.call(&admin, "KeyService/VerifyKey", "keys.verify", "keys");
            self.run(vec![verify(call, &presented.reveal(), "audit.read", "logs/error", vec![])]);
        }
        token
    }

    fn answered_from_memory(&mut self, token: &Token) {
        self.wait(SECOND);
        let serving: [u8; 16] = self.world.draw();
        let until = self.world.now.plus_micros(1_800 * SECOND);
        let start = ChangeKind::StartBounded { serving, until };
        let start = self.world.by_itself(start, vec![]);
        self.run(vec![start]);
        let as_of_position = self.world.head.state.next_position;
        let admin = self.admin.key_id;
        let uses = (0..2).map(|number| {
            let bounded = body::Bounded {
                serving_id: serving.to_vec(),
                number,
                as_of_position,
                time_us: self.world.now.micros(),
            };
            body::Use {
                key_id: token.key_id.as_bytes().to_vec(),
                version: 2,
                caller: Some(body::Caller { key_id: admin.as_bytes().to_vec(), version: 1 }),
                method: "KeyService/VerifyKey".into(),
                permission: "audit.read".into(),
                resource: "logs/error".into(),
                decision: Decision::Allow as i32,
                reason: DecisionReason::Granted as i32,
                bounded: Some(bounded),
                ..body::Use::default()
            }
        });
        let uses: Vec<body::Use> = uses.collect();
        let record = uses.into_iter().enumerate().map(|(number, r#use)| {
            let number = number as u64;
            let call = keyledger_ledger::batch::internal_call("KeyService/VerifyKey");
            let salt = self.world.draw();
            let call = keyledger_ledger::command::Call { salt, ..call };
            let bounded = BoundedUse { serving, number, r#use };
            Command { call, action: Action::Record(Box::new(bounded)) }
        });
        let record: Vec<Command> = record.collect();
        self.run(record);
        let end = self.world.by_itself(ChangeKind::EndBounded { serving, uses: 2 }, vec![]);
        self.run(vec![end]);
    }

    fn overdue(&mut self, token: &Token) {
        for days in [30, 1] {
            self.wait(days * DAY);
            let kind = ChangeKind::NoteDue { key_id: token.key_id };
            let note = self.world.by_itself(kind, vec![]);
            self.run(vec![note]);
        }
    }
}
