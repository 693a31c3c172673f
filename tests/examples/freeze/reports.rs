//! What a service answered by itself, from an answer that it was allowed to keep: as it should, and too late.

use keyledger_ledger::command::{Action, Answer, Command, SECOND};
use keyledger_ledger::id::Trace;
use keyledger_ledger::reports::{Claim, KeptAnswer, Report};
use keyledger_ledger::token::Token;

use super::world::verify;
use super::{Story, reason};

impl Story {
    /// Two sessions: one goes on, the other one ends.
    pub(super) fn reported(&mut self, token: &Token) {
        self.wait(SECOND);
        let answer = self.kept_answer(token);
        self.wait(3 * SECOND);
        for (number, end) in [(0, false), (1, true)] {
            let session = self.session_id(number);
            let claims = [SECOND / 2, 2 * SECOND].map(|later| self.claim(&answer, later));
            let report = Report { session, first_number: 0, claims: claims.to_vec(), end };
            let admin = self.admin.reveal();
            let call = self.call(&admin, "KeyService/ReportUses", "keys.verify", "keys");
            self.run(vec![Command { call, action: Action::Report(Box::new(report)) }]);
        }
    }

    fn kept_answer(&mut self, token: &Token) -> KeptAnswer {
        let admin = self.admin.reveal();
        let call = self.call(&admin, "KeyService/VerifyKey", "keys.verify", "keys");
        let mut ask = verify(call, &token.reveal(), "audit.read", "logs/error", vec![]);
        if let Action::Verify(check) = &mut ask.action {
            check.keep = 60 * SECOND;
        }
        let answers = self.world.run(vec![ask]);
        let [Answer::Verdict(verdict)] = answers.as_slice() else { panic!("it is answered") };
        assert_eq!(verdict.keep, SECOND, "as long as its role lets it");
        KeptAnswer {
            key_id: token.key_id,
            version: verdict.version,
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            audience: "exports".into(),
            at: verdict.at,
            time: verdict.time,
            max_staleness: verdict.keep,
        }
    }

    fn claim(&mut self, answer: &KeptAnswer, later: i64) -> Claim {
        let text = self.seal(self.month, reason("nightly export"));
        Claim {
            answer: answer.clone(),
            time: answer.time.plus_micros(later),
            address: None,
            trace: Trace { trace_id: self.world.draw(), span_id: self.world.draw() },
            texts: vec![text],
            salt: self.world.draw(),
        }
    }

    /// A UUID of version 7 that is made now.
    fn session_id(&self, number: u8) -> [u8; 16] {
        let millis = self.world.now.micros() as u64 / 1_000;
        *uuid::Builder::from_unix_timestamp_millis(millis, &[number; 10]).into_uuid().as_bytes()
    }
}
