//! Answers of VerifyKey from memory (BOUNDED freshness): only what is allowed, only where role and policy say so, and not
//! older than they, and the caller, accept. Everything else is answered strictly, which is never wrong.

use std::time::Duration;

use keyledger_ledger::batch::{Touched, TouchedKey};
use keyledger_ledger::body::{Caller, Decision, DecisionReason, Use};
use keyledger_ledger::bounded::{MayAnswer, Parties, may_answer};
use keyledger_ledger::command::Check;
use keyledger_ledger::judge::{Asked, Identity, identify};
use keyledger_ledger::restrict::{Circumstances, OWN_AUDIENCE, Source};
use keyledger_proto::{VerifyKeyResponse, show};

use super::call::CallContext;
use crate::names;
use crate::telemetry::{self, Place};

/// The answer, if memory may give it. `asked` is how old it may be, in microseconds.
pub(super) fn answer(call: &CallContext, check: &Check, asked: i64) -> Option<VerifyKeyResponse> {
    // Before the state is looked at: what is read later is no older.
    let staleness = call.ledger.staleness();
    let (head, now) = (call.head(), call.ledger.database_now());
    let peppers = &call.replica.keys.peppers;
    let caller = identify(&call.call.credential, &head.state, peppers);
    let subject = identify(&check.credential, &head.state, peppers);
    let (
        Identity::Known { key_id: caller_id, version: caller_version },
        Identity::Known { key_id, version },
    ) = (caller, subject)
    else {
        return None;
    };
    let parties = Parties { caller: (caller_id, caller_version), subject: (key_id, version) };
    let by_caller = Asked {
        permission: call.call.permission,
        resource: &call.call.resource,
        circumstances: Circumstances {
            from: Source::of(call.call.peer),
            audience: Some(OWN_AUDIENCE),
        },
        more_uses: 0,
    };
    let of_subject = Asked {
        permission: &check.permission,
        resource: &check.resource,
        circumstances: Circumstances {
            from: Source::of(check.address),
            audience: Some(&check.audience),
        },
        more_uses: 0,
    };
    let may = may_answer(&head.state, parties, by_caller, of_subject, asked, now);
    let MayAnswer { matched, max_staleness } = may?;
    let most = Duration::from_micros(max_staleness.max(0) as u64);
    // Strictly, then: a token must not be tried without leaving a use.
    if staleness.is_none_or(|staleness| staleness > most) {
        return None;
    }
    let r#use = Use {
        key_id: key_id.as_bytes().to_vec(),
        version,
        caller: Some(Caller { key_id: caller_id.as_bytes().to_vec(), version: caller_version }),
        method: call.call.method.into(),
        permission: check.permission.clone(),
        resource: check.resource.clone(),
        audience: check.audience.clone(),
        decision: Decision::Allow as i32,
        reason: DecisionReason::Granted as i32,
        trace_id: call.call.trace.trace_id_bytes(),
        span_id: call.call.trace.span_id_bytes(),
        ..Use::default()
    };
    let position = head.state.next_position;
    if !call.ledger.remember(r#use, check.texts.clone(), position, now) {
        return None;
    }
    let key = head.state.keys.get(&key_id);
    if let Some(noted) = telemetry::noted() {
        let touched = |id, version| {
            let entry = head.state.keys.get(&id).map(|key| key.position);
            Some(TouchedKey { id, version, entry })
        };
        let touched = Touched {
            key: touched(key_id, version),
            caller: touched(caller_id, caller_version),
            reason: DecisionReason::Granted,
            // Its page is yet to come.
            position: None,
        };
        let place = Place::of(&call.ledger);
        noted.touched(place, &head.state, &touched, names::EVENT_KEY_USED);
    }
    Some(show::remembered((key_id, version), key.and_then(|k| k.expires), &matched, now))
}
