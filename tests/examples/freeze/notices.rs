//! What is counted by the policy, and who was told what.

use keyledger_ledger::body::{AnomalyResponse, FindingCount, MonitoringRule, RuleSetting};
use keyledger_ledger::command::{ChangeKind, DAY, NoteDelivery, SECOND, UpdatePolicy};
use keyledger_ledger::policy::Policy;

use super::{Story, reason};

impl Story {
    pub(super) fn notices(&mut self) {
        self.wait(SECOND);
        let spike = RuleSetting {
            rule: MonitoringRule::Spike as i32,
            response: AnomalyResponse::Suspend as i32,
            threshold: 500,
        };
        let to = Policy {
            rules: vec![spike],
            idle_suspend_after: 90 * DAY,
            idle_revoke_after: 30 * DAY,
            digest_days: 7,
            ..Policy::default()
        };
        let changed = ["rules", "idle_suspend_after", "idle_revoke_after", "digest_days"];
        let changed = changed.map(String::from).to_vec();
        let kind = ChangeKind::UpdatePolicy(UpdatePolicy { etag: String::new(), changed, to });
        let why = reason("what nobody uses is to go");
        let update = self.change("KeyService/UpdateLedgerPolicy", kind, why, self.month);
        self.run(vec![update]);
        // The second one is done already.
        for count in [3, 4] {
            let finding = FindingCount { finding: "key-never-used".into(), count };
            let as_of = self.world.head.state.next_position;
            let kind = ChangeKind::DigestFindings { findings: vec![finding], as_of };
            let digest = self.world.by_itself(kind, vec![]);
            self.run(vec![digest]);
        }
        let newest = self.world.head.state.next_position - 1;
        let delivery = NoteDelivery {
            receiver: "billing".into(),
            positions: vec![newest - 1, newest],
            failures: 2,
            body_sha256: self.world.draw(),
        };
        let delivered = self.world.by_itself(ChangeKind::NoteDelivery(delivery), vec![]);
        self.run(vec![delivered]);
    }
}
