//! What a reviewer should look at: of a key as it was when the period ended, and of a change.

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::findings::{PERMISSION_OF, is_without_responsible};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::roles;
use keyledger_ledger::state::{Key, Owner, State};
use keyledger_proto::{ReviewChange, ReviewException, ReviewExceptionKind as Why};

pub(super) fn of_key(state: &State, key: &Key) -> Vec<ReviewException> {
    let most = state.policy.policy.max_life;
    let left = |owner: &Owner| state.left.contains_key(owner);
    let everything = roles::of_key(state, key)
        .flat_map(|(grants, _)| grants.to_vec())
        .find(|grant| grant.permissions().any(|p| p == "*"));
    let days = |micros: i64| micros / keyledger_ledger::command::DAY;
    let life = key.expires.map(|end| end.micros() - key.created.micros());
    let found = [
        key.expires.is_none().then(|| (Why::NoExpiry, "The key never ends.".to_string())),
        everything.map(|grant| (Why::Everything, format!("The key may do everything: {grant}."))),
        life.filter(|life| *life > most).map(|life| {
            let text =
                format!("The key lives {} days; the policy allows {}.", days(life), days(most));
            (Why::LongerThanPolicy, text)
        }),
        is_without_responsible(key).then(|| {
            let text = "Nobody is named as responsible for the key of a service.".to_string();
            (Why::WithoutResponsible, text)
        }),
        left(&key.owner).then(|| (Why::Left, "The owner of the key had left.".to_string())),
        key.responsible
            .is_some_and(|person| left(&Owner::User(person)))
            .then(|| (Why::Left, "The person responsible for the key had left.".to_string())),
    ];
    let exception = |(kind, sentence): (Why, String)| ReviewException {
        kind: kind as i32,
        key_id: key.id.to_string(),
        position: None,
        sentence,
    };
    found.into_iter().flatten().map(exception).collect()
}

/// `after` is the ledger at the end of the period: its policy counts.
pub(super) fn of_change(
    after: &State,
    change: &ReviewChange,
    event: &Event,
) -> Vec<ReviewException> {
    let kind = event.kind.as_ref().map_or("", Kind::name);
    let permission = PERMISSION_OF.iter().find(|(name, _)| *name == kind).map(|(_, p)| *p);
    let unapproved = permission.filter(|permission| {
        event.caller.is_some()
            && after.policy.policy.check_approval(permission, &event.approval_ref).is_err()
    });
    let found = [
        unapproved.map(|permission| {
            let text = format!(
                "{kind} names no approval; the policy asks for one of changes by {permission}."
            );
            (Why::WithoutApproval, text)
        }),
        is_self_granted(after, event)
            .then(|| (Why::SelfGranted, "Somebody gave rights to a key of their own.".to_string())),
    ];
    let exception = |(kind, sentence): (Why, String)| ReviewException {
        kind: kind as i32,
        key_id: change.key_id.clone(),
        position: change.position,
        sentence,
    };
    found.into_iter().flatten().map(exception).collect()
}

/// What of an update gives something.
const GIVING: [&str; 4] = ["grants", "roles", "restrictions", "expiry"];

fn is_self_granted(state: &State, event: &Event) -> bool {
    let gives = match &event.kind {
        Some(Kind::KeyCreated(_) | Kind::KeyImported(_)) => true,
        Some(Kind::KeyUpdated(e)) => e
            .changed
            .iter()
            .any(|field| GIVING.iter().any(|g| field == g || field.starts_with(&format!("{g}.")))),
        _ => false,
    };
    let link = event.kind.as_ref().and_then(Kind::key_link);
    let key = link.and_then(|link| KeyId::from_slice(&link.key_id));
    let caller = event.caller.as_ref().and_then(|caller| KeyId::from_slice(&caller.key_id));
    let owner = |id: Option<KeyId>| id.and_then(|id| state.keys.get(&id)).map(|key| &key.owner);
    gives && owner(key).is_some() && owner(key) == owner(caller)
}
