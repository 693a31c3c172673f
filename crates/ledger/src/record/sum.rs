//! What all projected rows of a ledger, and what is folded from entries about no key, add up to.

use imbl::ordmap::DiffItem;
use prost::Message;

use super::{RowMac, RowSum, encode_key};
use crate::anomaly::{OpenAnomaly, Subject};
use crate::body::MonitoringRule;
use crate::id::{KeyId, Time};
use crate::producer::Producer;
use crate::state::{Key, Owner, RegisteredPermissions, Role, State};

impl RowMac {
    /// The sum for a whole state.
    pub fn sum(&self, state: &State) -> RowSum {
        self.advance(RowSum::default(), &State::default(), state)
    }

    /// The sum for `new`, from that for `old`. Costs only what differs.
    pub fn advance(&self, mut sum: RowSum, old: &State, new: &State) -> RowSum {
        let key =
            |k: &Key| self.of("tag keys", &[0; 16], k.id.as_bytes(), k.position, &encode_key(k));
        // Most batches are uses alone, and change none of these maps.
        let keys = (!old.keys.ptr_eq(&new.keys)).then(|| old.keys.diff(&new.keys));
        for item in keys.into_iter().flatten() {
            match item {
                DiffItem::Add(_, k) => sum.add(key(k), true),
                DiffItem::Remove(_, k) => sum.add(key(k), false),
                DiffItem::Update { old: (_, a), new: (_, b) } => {
                    sum.add(key(a), false);
                    sum.add(key(b), true);
                }
            }
        }
        // The entries of roles, permissions and ledgers are read and verified: the position of the newest is enough.
        let role = |r: &Role| self.of("tag roles", &[0; 16], r.name.as_bytes(), r.position, &[]);
        for item in old.roles.diff(&new.roles) {
            match item {
                DiffItem::Add(_, r) => sum.add(role(r), true),
                DiffItem::Remove(_, r) => sum.add(role(r), false),
                DiffItem::Update { old: (_, a), new: (_, b) } => {
                    sum.add(role(a), false);
                    sum.add(role(b), true);
                }
            }
        }
        let policy = |s: &State| self.of("tag policy", &[0; 16], &[], s.policy.position, &[]);
        if old.policy.position != new.policy.position {
            sum.add(policy(new), true);
            if old.policy.position != 0 {
                sum.add(policy(old), false);
            }
        }
        let permissions = |p: &RegisteredPermissions| {
            self.of("tag permissions", &[0; 16], p.prefix.as_bytes(), p.position, &[])
        };
        for item in old.permissions.diff(&new.permissions) {
            match item {
                DiffItem::Add(_, p) => sum.add(permissions(p), true),
                DiffItem::Remove(_, p) => sum.add(permissions(p), false),
                DiffItem::Update { old: (_, a), new: (_, b) } => {
                    sum.add(permissions(a), false);
                    sum.add(permissions(b), true);
                }
            }
        }
        let producer = |(id, p): (&KeyId, &Producer)| {
            self.of("tag producers", &[0; 16], id.as_bytes(), p.position, &[])
        };
        for item in old.producers.diff(&new.producers) {
            match item {
                DiffItem::Add(id, p) => sum.add(producer((id, p)), true),
                DiffItem::Remove(id, p) => sum.add(producer((id, p)), false),
                DiffItem::Update { old: (id, a), new: (_, b) } => {
                    sum.add(producer((id, a)), false);
                    sum.add(producer((id, b)), true);
                }
            }
        }
        // Hiding one that was raised or that has ended changes what goes on, or how far it was looked.
        let anomaly = |(which, open): (&(MonitoringRule, Subject), &OpenAnomaly)| {
            let subject = which.1.to_body().encode_to_vec();
            self.of("tag anomalies", &[0; 16], &subject, open.position, &[which.0 as u8])
        };
        for item in old.anomalies.open.diff(&new.anomalies.open) {
            match item {
                DiffItem::Add(which, open) => sum.add(anomaly((which, open)), true),
                DiffItem::Remove(which, open) => sum.add(anomaly((which, open)), false),
                DiffItem::Update { old, new } => {
                    sum.add(anomaly(old), false);
                    sum.add(anomaly(new), true);
                }
            }
        }
        let observed =
            |s: &State| self.of("tag observed", &[0; 16], &[], s.anomalies.observed, &[]);
        if old.anomalies.observed != new.anomalies.observed {
            sum.add(observed(new), true);
            if old.anomalies.observed != 0 {
                sum.add(observed(old), false);
            }
        }
        let left = |owner: &Owner, since: &Time| {
            let owner = Subject::Owner(owner.clone()).to_body().encode_to_vec();
            self.of("tag left", &[0; 16], &owner, since.micros() as u64, &[])
        };
        for item in old.left.diff(&new.left) {
            match item {
                DiffItem::Add(owner, since) => sum.add(left(owner, since), true),
                DiffItem::Remove(owner, since) => sum.add(left(owner, since), false),
                DiffItem::Update { old: (owner, a), new: (_, b) } => {
                    sum.add(left(owner, a), false);
                    sum.add(left(owner, b), true);
                }
            }
        }
        let digested = |at: Time| self.of("tag digested", &[0; 16], &[], at.micros() as u64, &[]);
        if old.digested != new.digested {
            new.digested.into_iter().for_each(|at| sum.add(digested(at), true));
            old.digested.into_iter().for_each(|at| sum.add(digested(at), false));
        }
        for item in old.registered.diff(&new.registered) {
            if let DiffItem::Add(number, ledger) = item {
                sum.add(
                    self.of("tag ledgers", &[0; 16], &number.0.to_be_bytes(), ledger.position, &[]),
                    true,
                );
            }
        }
        sum
    }
}
