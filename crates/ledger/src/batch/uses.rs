//! Uses: who calls is judged, who is asked about is judged, and what came of it is recorded in the open page.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Run, caller_of};
use crate::body::{self, Decision, DecisionReason, Use};
use crate::bounded::{self, BoundedUse, Parties};
use crate::command::{Action, Answer, Call, Check, CheckAnswer, EXPLAIN, Refusal};
use crate::id::KeyId;
use crate::judge::{self, Asked, Credential, Identity, SystemCaller, identify};
use crate::refusals::{Group, Who, network_of};
use crate::restrict::{Circumstances, OWN_AUDIENCE, Source};
use crate::state::Key;

/// A caller that stands and holds the permission of the method.
pub(super) struct Authorised {
    /// Who is named in what is recorded; `None` for Keyledger itself.
    pub(super) caller: Option<body::Caller>,
    /// The key of this ledger; `None` for Keyledger itself and for callers from the system ledger.
    pub(super) key: Option<Arc<Key>>,
    /// Whether it may be told why exactly a key is not valid, if that isn't for its key to say.
    explain: bool,
}

impl Authorised {
    fn keyledger() -> Authorised {
        Authorised { caller: None, key: None, explain: true }
    }

    fn system(by: SystemCaller) -> Authorised {
        let key_id = by.key_id.as_bytes().to_vec();
        let caller = Some(body::Caller { key_id, version: by.version });
        Authorised { caller, key: None, explain: by.explain }
    }

    fn key(key: Arc<Key>, version: u32) -> Authorised {
        Authorised { caller: Some(caller_of(&key, version)), key: Some(key), explain: false }
    }

    pub(super) fn id(&self) -> Option<KeyId> {
        self.caller.as_ref().and_then(|caller| KeyId::from_slice(&caller.key_id))
    }
}

pub(super) struct RefusedCaller {
    pub(super) key_id: Option<KeyId>,
    pub(super) version: u32,
    pub(super) reason: DecisionReason,
    pub(super) refusal: Refusal,
}

impl Run<'_> {
    pub(super) fn record_use(&mut self, call: Call, action: Action) -> Answer {
        let caller = match self.authorise(&call) {
            Ok(caller) => caller,
            Err(refused) => return self.refuse_action(call, refused, &action),
        };
        match action {
            Action::Verify(check) => self.verify(call, &caller, *check),
            Action::Report(report) => self.record_report(call, &caller, *report),
            Action::Refuse(reason) => {
                let r#use = caller_use(&call, &caller, reason);
                self.record_refusal(call, r#use, Refusal::Earlier)
            }
            Action::Authenticate => Answer::Allowed { caller: caller.key },
            // These have ways of their own.
            Action::Change(_) | Action::RecordAll(_) | Action::Record(_) => {
                Answer::Refused { refusal: Refusal::Internal }
            }
            Action::Read { returned } => {
                let granted = caller_use(&call, &caller, DecisionReason::Granted);
                let r#use = Use { returned, ..granted };
                self.add_use(r#use, call.salt, call.texts);
                Answer::Allowed { caller: caller.key }
            }
        }
    }

    /// A use that was answered from memory: each number of its serving once, and none left out.
    pub(super) fn record_bounded(&mut self, call: Call, bounded: BoundedUse) -> Answer {
        let pending = self.bounded.get(&bounded.serving).copied().unwrap_or_default();
        let serving = self.state().servings.get(&bounded.serving);
        let serving = serving.filter(|serving| !serving.has_lapsed(self.means.now));
        let next = serving.map(|serving| serving.recorded + u64::from(pending));
        match next {
            Some(next) if bounded.number < next => Answer::Recorded,
            Some(next) if bounded.number == next => {
                self.add_use(bounded.r#use, call.salt, call.texts);
                *self.bounded.entry(bounded.serving).or_default() += 1;
                Answer::Recorded
            }
            _ => Answer::Refused { refusal: Refusal::AlreadyDone },
        }
    }

    /// The one ladder for callers: known, standing, permitted.
    pub(super) fn authorise(&self, call: &Call) -> Result<Authorised, RefusedCaller> {
        let refused = |key_id, version, reason, refusal| {
            Err(RefusedCaller { key_id, version, reason, refusal })
        };
        match identify(&call.credential, self.state(), self.means.peppers) {
            Identity::Internal => Ok(Authorised::keyledger()),
            Identity::System(by) => Ok(Authorised::system(by)),
            Identity::Unknown { key_id, reason } => {
                refused(key_id, 0, reason, Refusal::Unauthenticated)
            }
            Identity::Known { key_id, version } => {
                let asked = Asked { more_uses: self.more_uses(key_id), ..asked_by(call) };
                let verdict = judge::judge(self.state(), key_id, version, asked, self.means.now);
                match verdict.reason {
                    DecisionReason::Granted => {
                        let key = self.state().keys.get(&key_id).expect("it was just judged");
                        Ok(Authorised::key(key.clone(), version))
                    }
                    DecisionReason::NoGrant => {
                        let refusal = Refusal::PermissionDenied {
                            permission: call.permission.into(),
                            resource: call.resource.clone(),
                        };
                        refused(Some(key_id), version, DecisionReason::NoGrant, refusal)
                    }
                    DecisionReason::UsesSpent => {
                        let reason = DecisionReason::UsesSpent;
                        refused(Some(key_id), version, reason, Refusal::UsesSpent)
                    }
                    DecisionReason::Rate => {
                        let key = self.state().keys.get(&key_id);
                        let limits = key.and_then(|k| k.restrictions.as_ref());
                        let next = limits.and_then(|l| l.next_window(self.means.now));
                        let wait_us = next.map_or(0, |n| n.micros() - self.means.now.micros());
                        let refusal = Refusal::Rate { wait_us };
                        refused(Some(key_id), version, DecisionReason::Rate, refusal)
                    }
                    reason => refused(Some(key_id), version, reason, Refusal::Unauthenticated),
                }
            }
        }
    }

    /// Only whose secret it is, and that it was not rotated away: who holds an old one can end nothing.
    pub(super) fn identified(&self, call: &Call) -> Result<Authorised, RefusedCaller> {
        match identify(&call.credential, self.state(), self.means.peppers) {
            Identity::Internal => Ok(Authorised::keyledger()),
            Identity::System(by) => Ok(Authorised::system(by)),
            Identity::Known { key_id, version } => {
                let key = self.state().keys.get(&key_id);
                if let Some(key) = key.filter(|key| key.accepts(version, self.means.now)) {
                    return Ok(Authorised::key(key.clone(), version));
                }
                let (reason, refusal) = (DecisionReason::Superseded, Refusal::Unauthenticated);
                Err(RefusedCaller { key_id: Some(key_id), version, reason, refusal })
            }
            Identity::Unknown { key_id, reason } => {
                let refusal = Refusal::Unauthenticated;
                Err(RefusedCaller { key_id, version: 0, reason, refusal })
            }
        }
    }

    pub(super) fn refuse(&mut self, call: Call, refused: RefusedCaller) -> Answer {
        let r#use = refused_use(&call, &refused);
        self.record_refusal(call, r#use, refused.refusal)
    }

    /// The end of a stream whose key has ended still says how much it gave.
    fn refuse_action(&mut self, call: Call, refused: RefusedCaller, action: &Action) -> Answer {
        let Action::Read { returned } = action else { return self.refuse(call, refused) };
        let r#use = Use { returned: *returned, ..refused_use(&call, &refused) };
        self.record_refusal(call, r#use, refused.refusal)
    }

    /// Records that a caller was refused: by a use of its own or, if there are many, by a count in the next second's page.
    pub(super) fn record_refusal(&mut self, call: Call, r#use: Use, refusal: Refusal) -> Answer {
        let who = KeyId::from_slice(&r#use.key_id)
            .map_or_else(|| Who::Network(network_of(call.peer)), Who::Key);
        let reason = DecisionReason::try_from(r#use.reason).expect("we wrote it");
        let group = Group { method: call.method, who, reason };
        let admitted = self.means.refusals.admit(group, self.means.now, call.trace, call.texts);
        let Some(texts) = admitted else {
            self.note_use(&r#use, false);
            return Answer::Folded { refusal };
        };
        self.add_use(r#use, call.salt, texts);
        Answer::Refused { refusal }
    }

    /// The counts of seconds that have passed.
    pub(super) fn record_folded(&mut self) {
        let records = self.means.refusals.begin(self.means.now);
        for (i, (r#use, texts)) in records.into_iter().enumerate() {
            let salt = Sha256::new()
                .chain_update(self.means.seed)
                .chain_update(i.to_be_bytes())
                .finalize();
            let salt = salt[..16].try_into().expect("a SHA-256 has 32 bytes");
            self.add_use(r#use, salt, texts);
        }
    }

    fn verify(&mut self, call: Call, caller: &Authorised, check: Check) -> Answer {
        // A limited key that checks itself is used twice by one call.
        let own = caller.key.as_ref().map(|key| key.id);
        let asks_about_itself = u32::from(own.is_some() && own == check.credential.key_id());
        let (key_id, version, verdict) =
            match identify(&check.credential, self.state(), self.means.peppers) {
                Identity::Known { key_id, version } => {
                    let more_uses = self.more_uses(key_id) + asks_about_itself;
                    let asked = Asked { more_uses, ..asked_of(&check) };
                    let verdict =
                        judge::judge(self.state(), key_id, version, asked, self.means.now);
                    (Some(key_id), version, verdict)
                }
                Identity::Unknown { key_id, reason } => {
                    (key_id, 0, judge::Verdict { reason, matched: None })
                }
                // A check is always of what somebody presented.
                Identity::Internal | Identity::System(_) => {
                    (None, 0, judge::Verdict { reason: DecisionReason::Missing, matched: None })
                }
            };
        if let (Some(key_id), Credential::Foreign(token)) = (key_id, &check.credential)
            && verdict.allowed()
        {
            self.note_first_of_imported(key_id, token, call.trace);
        }
        let keep = match &verdict.matched {
            Some(_) if check.keep > 0 => {
                self.may_keep(&call, caller, &check, key_id.map(|id| (id, version)))
            }
            _ => 0,
        };
        let r#use = Use {
            key_id: key_id.map_or(vec![], |id| id.as_bytes().to_vec()),
            version,
            caller: caller.caller.clone(),
            keep_us: keep,
            permission: check.permission,
            resource: check.resource,
            audience: check.audience,
            ..call_use(&call, verdict.reason)
        };
        let at = self.add_use(r#use, call.salt, check.texts);
        let key =
            key_id.filter(|_| version != 0).and_then(|id| self.state().keys.get(&id).cloned());
        let explain = verdict.allowed() || self.may_explain(caller);
        Answer::Verdict(Box::new(CheckAnswer {
            reason: verdict.reason,
            matched: verdict.matched,
            key,
            version,
            explain,
            at,
            time: self.means.now,
            keep,
        }))
    }

    /// For how long the caller may keep the answer and give it again itself.
    fn may_keep(
        &self,
        call: &Call,
        caller: &Authorised,
        check: &Check,
        subject: Option<(KeyId, u32)>,
    ) -> i64 {
        let own = caller.key.as_ref().zip(caller.caller.as_ref());
        let (Some((key, named)), Some(subject)) = (own, subject) else { return 0 };
        let parties = Parties { caller: (key.id, named.version), subject };
        let (by_caller, of_subject) = (asked_by(call), asked_of(check));
        bounded::may_keep(self.state(), parties, by_caller, of_subject, check.keep, self.means.now)
    }

    fn may_explain(&self, caller: &Authorised) -> bool {
        let held =
            |key: &Arc<Key>| judge::matching_grant(self.state(), key, EXPLAIN, "keys").is_some();
        caller.explain || caller.key.as_ref().is_some_and(held)
    }
}

/// What a call asks of its caller.
fn asked_by(call: &Call) -> Asked<'_> {
    Asked {
        permission: call.permission,
        resource: &call.resource,
        circumstances: Circumstances {
            from: Source::of(call.peer),
            audience: Some(OWN_AUDIENCE).filter(|_| !call.permission.is_empty()),
        },
        more_uses: 0,
    }
}

/// What a check asks of the key behind the token.
fn asked_of(check: &Check) -> Asked<'_> {
    Asked {
        permission: &check.permission,
        resource: &check.resource,
        circumstances: Circumstances {
            from: Source::of(check.address),
            audience: Some(&check.audience),
        },
        more_uses: 0,
    }
}

fn call_use(call: &Call, reason: DecisionReason) -> Use {
    let decision = if reason.allows() { Decision::Allow } else { Decision::Deny };
    Use {
        method: call.method.into(),
        permission: call.permission.into(),
        resource: call.resource.clone(),
        decision: decision as i32,
        reason: reason as i32,
        trace_id: call.trace.trace_id_bytes(),
        span_id: call.trace.span_id_bytes(),
        ..Use::default()
    }
}

fn refused_use(call: &Call, refused: &RefusedCaller) -> Use {
    Use {
        key_id: refused.key_id.map_or(vec![], |id| id.as_bytes().to_vec()),
        version: refused.version,
        ..call_use(call, refused.reason)
    }
}

pub(super) fn caller_use(call: &Call, caller: &Authorised, reason: DecisionReason) -> Use {
    Use {
        key_id: caller.caller.as_ref().map_or(vec![], |c| c.key_id.clone()),
        version: caller.caller.as_ref().map_or(0, |c| c.version),
        ..call_use(call, reason)
    }
}
