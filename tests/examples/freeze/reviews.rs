//! Who has left, what was reviewed and signed, and a key that nobody uses.

use keyledger_ledger::command::{ChangeKind, DAY, Expiry, SECOND, SignReview};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::idle;
use keyledger_ledger::state::Owner;

use super::world::grant;
use super::{Story, reason};

impl Story {
    pub(super) fn reviews(&mut self) {
        self.wait(SECOND);
        for left in [true, false, true] {
            let owner = Owner::Service("robot".into());
            let kind = ChangeKind::SetOwnerStatus { owner, left };
            let why = reason("the service was turned off");
            let status = self.change("KeyService/SetOwnerStatus", kind, why, self.month);
            self.run(vec![status]);
        }
        let to = self.world.now;
        for (approved, key_id) in [(false, None), (true, Some(self.robot.key_id))] {
            let kind = ChangeKind::SignReview(SignReview {
                from: to.plus_micros(-90 * DAY),
                to,
                as_of_position: self.world.head.state.next_position,
                report_sha256: self.world.draw(),
                approved,
                key_id,
            });
            let why = reason("looked at every key");
            let sign = self.change("KeyService/SignAccessReview", kind, why, self.month);
            self.run(vec![sign]);
        }
        self.idle_key();
    }

    /// Suspended, resumed, suspended again and revoked for not being used, as the policy says since [`Story::notices`].
    fn idle_key(&mut self) {
        let token = self.world.new_key();
        let owner = Owner::Service("robot/idle".into());
        let grants = vec![grant(&["audit.read"], "logs/error", false)];
        let create = self.world.create_key(&token, owner, grants, vec![], Expiry::Never);
        let why = reason("perhaps somebody needs it");
        let create = self.change("KeyService/CreateKey", create, why, self.month);
        self.run(vec![create]);
        self.tokens.push((1, token.clone()));
        let id = token.key_id;
        self.wait(90 * DAY);
        // The second one is done already.
        self.look(id);
        self.look(id);
        let resume = ChangeKind::ResumeKey { key_id: id };
        let why = reason("somebody needs it");
        let resume = self.change("KeyService/ResumeKey", resume, why, self.month);
        self.run(vec![resume]);
        for days in [90, 30] {
            self.wait(days * DAY);
            self.look(id);
        }
    }

    fn look(&mut self, key_id: KeyId) {
        let idle_since = idle::since(&self.world.head.state.keys[&key_id], None);
        let kind = ChangeKind::NoteIdle { key_id, idle_since };
        let look = self.world.by_itself(kind, vec![]);
        self.run(vec![look]);
    }
}
