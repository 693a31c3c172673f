//! Uses that services answered by themselves and report: each number of a session is recorded once, and none is left out.

use std::collections::BTreeMap;

use super::Run;
use super::uses::{Authorised, caller_use};
use crate::body::{Decision, DecisionReason, ReportedUses, Use};
use crate::command::{Answer, Call, Refusal};
use crate::judge::{self, Asked};
use crate::reports::{Claim, LOST, Report, Session, SessionId, may_begin};
use crate::restrict::{Circumstances, Source};

/// What the open page tells of sessions.
pub(super) type Pending = BTreeMap<SessionId, PendingReport>;

#[derive(Clone, Copy, Default)]
pub(super) struct PendingReport {
    pub(super) uses: u32,
    pub(super) ended: bool,
}

/// What a page says of sessions.
pub(super) fn told(pending: &Pending) -> Vec<ReportedUses> {
    let told = |((reporter, id), told): (&SessionId, &PendingReport)| ReportedUses {
        reporter: reporter.as_bytes().to_vec(),
        session_id: id.to_vec(),
        uses: told.uses,
        ended: told.ended,
    };
    pending.iter().map(told).collect()
}

impl Run<'_> {
    pub(super) fn record_report(
        &mut self,
        call: Call,
        caller: &Authorised,
        report: Report,
    ) -> Answer {
        match self.next_of_report(caller, &report) {
            Ok(next) => self.record_claims(call, caller, report, next),
            Err(refusal) => {
                let r#use = caller_use(&call, caller, refusal.recorded_reason());
                self.record_refusal(call, r#use, refusal)
            }
        }
    }

    /// The session that the report goes on with, or begins. Nothing was recorded before if it can't.
    fn next_of_report(
        &self,
        caller: &Authorised,
        report: &Report,
    ) -> Result<(SessionId, Session), Refusal> {
        let key = caller.key.as_ref().ok_or(Refusal::Internal)?;
        let id = (key.id, report.session);
        let session = match self.session(id) {
            Some(session) => session,
            None if report.first_number > 0 => return Err(Refusal::ReportSessionOver),
            None => {
                may_begin(self.sessions(), id, self.means.now)?;
                Session { recorded: 0, newest: self.means.now, ended: false }
            }
        };
        if report.first_number > session.recorded {
            return Err(Refusal::ReportGap { recorded: session.recorded });
        }
        if session.ended && report.next_number() > session.recorded {
            return Err(Refusal::ReportSessionOver);
        }
        match report.claims.iter().position(|claim| !self.may_have_been_kept(claim)) {
            None => Ok((id, session)),
            Some(i) => Err(Refusal::Field {
                field: format!("uses[{i}].receipt").into(),
                problem: LOST.into(),
            }),
        }
    }

    /// A receipt may be older than a backup that the ledger was restored from. The replica has looked whether there is such an answer;
    /// here only what is still to come is refused.
    fn may_have_been_kept(&self, claim: &Claim) -> bool {
        let key = self.state().keys.get(&claim.answer.key_id);
        let versions = key.map_or(0, |key| key.newest_version().number);
        (1..=versions).contains(&claim.answer.version)
            && claim.answer.at.position < self.state().next_position
    }

    /// The call leaves a use of its own, and each new use that it reports another one.
    fn record_claims(
        &mut self,
        call: Call,
        caller: &Authorised,
        report: Report,
        (id, session): (SessionId, Session),
    ) -> Answer {
        let ends = report.end && !session.ended;
        let next = report.next_number().max(session.recorded);
        let reason = match next > session.recorded || ends {
            true => DecisionReason::Granted,
            false => DecisionReason::Replayed,
        };
        self.add_use(caller_use(&call, caller, reason), call.salt, call.texts);
        let known = (session.recorded - report.first_number) as usize;
        for (number, claim) in (session.recorded..).zip(report.claims.into_iter().skip(known)) {
            let r#use = self.reported_use(call.method, caller, id.1, number, &claim);
            self.add_use(r#use, claim.salt, claim.texts);
            self.reported.entry(id).or_default().uses += 1;
        }
        if ends {
            self.reported.entry(id).or_default().ended = true;
        }
        Answer::Reported { recorded: next }
    }

    /// What the service did, and what Keyledger says of it. A use that holds was granted as of the strict answer.
    fn reported_use(
        &self,
        method: &str,
        caller: &Authorised,
        session: [u8; 16],
        number: u64,
        claim: &Claim,
    ) -> Use {
        let (now, answer) = (self.means.now, &claim.answer);
        let reported = claim.reported(session, number, now);
        let reason = match reported.doubts.is_empty() {
            true => DecisionReason::Granted,
            false => {
                let asked = Asked {
                    permission: &answer.permission,
                    resource: &answer.resource,
                    circumstances: Circumstances {
                        from: Source::of(claim.address),
                        audience: Some(&answer.audience),
                    },
                    more_uses: 0,
                };
                judge::judge(self.state(), answer.key_id, answer.version, asked, now).reason
            }
        };
        Use {
            key_id: answer.key_id.as_bytes().to_vec(),
            version: answer.version,
            caller: caller.caller.clone(),
            method: method.into(),
            permission: answer.permission.clone(),
            resource: answer.resource.clone(),
            audience: answer.audience.clone(),
            decision: Decision::Allow as i32,
            reason: reason as i32,
            trace_id: claim.trace.trace_id_bytes(),
            span_id: claim.trace.span_id_bytes(),
            reported: Some(reported),
            ..Use::default()
        }
    }

    /// A session as it is with what the open page tells of it.
    fn session(&self, id: SessionId) -> Option<Session> {
        let known = self.state().sessions.get(&id).filter(|s| !s.has_lapsed(self.means.now));
        let pending = self.reported.get(&id).copied();
        if known.is_none() && pending.is_none() {
            return None;
        }
        let pending = pending.unwrap_or_default();
        Some(Session {
            recorded: known.map_or(0, |s| s.recorded) + u64::from(pending.uses),
            newest: self.means.now,
            ended: pending.ended || known.is_some_and(|s| s.ended),
        })
    }

    /// All sessions that are remembered, each once.
    fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        let now = self.means.now;
        let live = self.state().sessions.iter().filter(move |(_, s)| !s.has_lapsed(now));
        let known =
            move |id: &SessionId| self.state().sessions.get(id).is_some_and(|s| !s.has_lapsed(now));
        live.map(|(id, _)| id).chain(self.reported.keys().filter(move |id| !known(id)))
    }
}
