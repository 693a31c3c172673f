//! Unusual use: raised, answered by a suspension, looked at, and over.

use keyledger_ledger::anomaly::{AnomalyChange, Subject as Who};
use keyledger_ledger::body::{
    AnomalyResponse, AnomalyVerdict, Measure, MonitoringRule, RuleSetting, Texts,
};
use keyledger_ledger::command::{ChangeKind, DAY, Expiry, SECOND, UpdatePolicy};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::monitor::Raise;
use keyledger_ledger::policy::Policy;
use keyledger_ledger::state::Owner;

use super::{Story, reason};

impl Story {
    /// A robot asks for what is not for it, and somebody tries many tokens.
    pub(super) fn unusual_use(&mut self) {
        let robot = self.curious_key();
        let rule = MonitoringRule::Forbidden;
        let response = AnomalyResponse::Suspend as i32;
        let rules = vec![RuleSetting { rule: rule as i32, response, threshold: 3 }];
        let to = Policy { rules, ..Policy::default() };
        let changed = vec!["rules".to_string()];
        let kind = ChangeKind::UpdatePolicy(UpdatePolicy { etag: String::new(), changed, to });
        let why = reason("what robots pry into");
        let update = self.change("KeyService/UpdateLedgerPolicy", kind, why, self.month);
        self.run(vec![update]);
        let tried = self.raise(MonitoringRule::Scanning, Who::Peer([7; 16]), None);
        let pried = self.raise(rule, Who::Key(robot), Some(robot));
        let suspend = ChangeKind::Anomaly(AnomalyChange::Suspend { position: pried });
        let suspend = self.world.by_itself(suspend, vec![]);
        self.run(vec![suspend]);
        let verdict = AnomalyVerdict::Misuse;
        let kind = ChangeKind::Anomaly(AnomalyChange::Acknowledge { position: pried, verdict });
        let why = reason("ticket 4711");
        let mut looked = self.change("AuditService/AcknowledgeAnomaly", kind, why, self.month);
        looked.call.permission = "audit.acknowledge";
        looked.call.resource = "logs/keyledger/anomaly".into();
        self.run(vec![looked]);
        self.wait(SECOND);
        let end = ChangeKind::Anomaly(AnomalyChange::End {
            rule: MonitoringRule::Scanning,
            subject: Who::Peer([7; 16]),
            observed: self.world.head.state.next_position,
            last: self.world.now,
            occurrences: 200,
        });
        let end = self.world.by_itself(end, vec![]);
        self.run(vec![end]);
        assert!(self.world.head.state.anomalies.at(tried).is_none(), "it is over");
    }

    fn curious_key(&mut self) -> KeyId {
        self.wait(SECOND);
        let token = self.world.new_key();
        let owner = Owner::Service("robot/curious".into());
        let (grants, life) = (vec![], Expiry::After(30 * DAY));
        let create = self.world.create_key(&token, owner, grants, vec![], life);
        let create = self.change("KeyService/CreateKey", create, reason("nightly"), self.month);
        self.run(vec![create]);
        self.tokens.push((1, token.clone()));
        token.key_id
    }

    /// At which position it was raised.
    fn raise(&mut self, rule: MonitoringRule, subject: Who, key: Option<KeyId>) -> u64 {
        self.wait(SECOND);
        let measures = vec![Measure { name: "threshold".into(), value: 3 }];
        let raise = Raise {
            rule,
            subject,
            first: self.world.now.plus_micros(-SECOND),
            last: self.world.now,
            occurrences: 3,
            measures,
            permission: "audit.read".into(),
            resource: "logs/payroll".into(),
            key,
            network: None,
            observed: self.world.head.state.next_position - 1,
        };
        let network = Texts { peer_address: "203.0.113.0/24".into(), ..Texts::default() };
        let network = self.seal(self.month, network);
        let raise = ChangeKind::Anomaly(AnomalyChange::Raise(Box::new(raise)));
        let raise = self.world.by_itself(raise, vec![network]);
        let position = self.world.head.state.next_position;
        self.run(vec![raise]);
        position
    }
}
