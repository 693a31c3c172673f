//! Judging a key: who presents it, whether it stands, and whether it may. One ladder, the most specific refusal first.

use crate::body::DecisionReason;
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::imported::Foreign;
use crate::restrict::Circumstances;
use crate::roles;
use crate::secret::{Peppers, same};
use crate::state::{Key, KeyStatus, State};
use crate::token::{Secret, Token};

/// What a client presented.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Keyledger itself acts.
    Internal,
    Missing,
    Malformed,
    Presented(Presented),
    /// A key of the system ledger that was judged there, under that ledger's lock, and calls from there.
    System(SystemCaller),
    /// A token that isn't in our form: perhaps that of an imported key. Checked, never used to call us.
    Foreign(Box<Foreign>),
}

/// A key of the system ledger that may do what it asks for in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCaller {
    pub key_id: KeyId,
    pub version: u32,
    /// Whether it may be told why exactly a key of this ledger is not valid.
    pub explain: bool,
}

/// A well-formed token.
#[derive(Clone, Debug)]
pub struct Presented {
    pub key_id: KeyId,
    secret: Secret,
    /// The version that the secret was found to be. Once found it stays true: versions never change their secret.
    matched: Option<u32>,
}

/// Whose credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Internal,
    System(SystemCaller),
    /// The secret is that of this version. Whether key and version still stand is for [`standing`] to say.
    Known {
        key_id: KeyId,
        version: u32,
    },
    /// `key_id` only if such a key exists.
    Unknown {
        key_id: Option<KeyId>,
        reason: DecisionReason,
    },
}

impl Credential {
    /// From the text of a token.
    pub fn from_text(text: &str) -> Credential {
        match Token::parse(text) {
            Ok(token) => Credential::Presented(Presented {
                key_id: token.key_id,
                secret: token.secret,
                matched: None,
            }),
            Err(_) => Credential::Malformed,
        }
    }

    pub fn key_id(&self) -> Option<KeyId> {
        match self {
            Credential::Presented(p) => Some(p.key_id),
            Credential::System(caller) => Some(caller.key_id),
            Credential::Foreign(f) => f.matched(),
            Credential::Internal | Credential::Missing | Credential::Malformed => None,
        }
    }

    /// The key that what is said of it is about: also one that it only seems to be a token of.
    pub fn about(&self) -> Option<KeyId> {
        match self {
            Credential::Foreign(f) => f.key_id(),
            other => other.key_id(),
        }
    }

    /// Whether it may turn out, under the lock, that it must be looked up again.
    pub fn is_open(&self) -> bool {
        matches!(self, Credential::Foreign(f) if f.matched().is_none())
    }

    /// Finds out whose it is, and remembers a match so that no digest is computed twice. Without a match it is asked again
    /// under the lock: the state may have been behind.
    pub fn identify(&mut self, state: &State, peppers: &Peppers) -> Identity {
        let identity = identify(self, state, peppers);
        match (self, identity) {
            (Credential::Presented(p), Identity::Known { version, .. }) => {
                p.matched = Some(version)
            }
            (Credential::Foreign(f), Identity::Known { key_id, .. }) => f.set_matched(key_id),
            _ => {}
        }
        identity
    }
}

/// Finds out whose credential it is.
pub fn identify(credential: &Credential, state: &State, peppers: &Peppers) -> Identity {
    let unknown = |key_id, reason| Identity::Unknown { key_id, reason };
    let presented = match credential {
        Credential::Internal => return Identity::Internal,
        Credential::System(caller) => return Identity::System(*caller),
        Credential::Missing => return unknown(None, DecisionReason::Missing),
        Credential::Malformed => return unknown(None, DecisionReason::Malformed),
        Credential::Presented(p) => p,
        Credential::Foreign(f) => return f.identify(state, peppers),
    };
    let key_id = presented.key_id;
    if let Some(version) = presented.matched {
        return Identity::Known { key_id, version };
    }
    let key = state.keys.get(&key_id);
    match (matching_version(presented, key.map(|k| &**k), state, peppers), key) {
        (Some(version), _) => Identity::Known { key_id, version },
        (None, Some(_)) => unknown(Some(key_id), DecisionReason::WrongSecret),
        (None, None) if !is_of_ledger(state, key_id) => unknown(None, DecisionReason::Foreign),
        (None, None) => unknown(None, DecisionReason::UnknownKey),
    }
}

fn is_of_ledger(state: &State, key_id: KeyId) -> bool {
    state.ledger.as_ref().map_or(LedgerNumber::SYSTEM, |l| l.number) == key_id.ledger()
}

/// Two digests and two comparisons, always: a key that doesn't exist costs what one with two versions does.
fn matching_version(
    presented: &Presented,
    key: Option<&Key>,
    state: &State,
    peppers: &Peppers,
) -> Option<u32> {
    let mut found = None;
    for slot in 0..2 {
        let version = key.and_then(|k| k.versions.get(slot));
        let number = version.map_or(0, |v| v.number);
        let pepper = version.map_or(peppers.newest(), |v| peppers.get(v.pepper_id));
        let expected = state.verifiers.get(&(presented.key_id, number)).copied();
        let digest = pepper.map(|p| p.verifier(presented.key_id, number, &presented.secret));
        let equal = same(&digest.unwrap_or_default(), &expected.unwrap_or([0xff; 32]));
        if equal && digest.is_some() && expected.is_some() {
            found = Some(number);
        }
    }
    found
}

/// Whether a key, and the version of its secret that was presented, are accepted at this time.
pub fn standing(key: &Key, version: u32, now: Time) -> Result<(), DecisionReason> {
    match key.status(now) {
        KeyStatus::Revoked => return Err(DecisionReason::Revoked),
        KeyStatus::Expired => return Err(DecisionReason::Expired),
        KeyStatus::Suspended => return Err(DecisionReason::Suspended),
        KeyStatus::Active => {}
    }
    if key.accepts(version, now) { Ok(()) } else { Err(DecisionReason::Superseded) }
}

/// The grant that covers a use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub grant: Grant,
    /// The role it came from; `None` if it is the key's own.
    pub role: Option<String>,
}

/// The first grant, the key's own before those of its roles, that allows the permission on the resource. A resource that
/// ends in `/**` asks for anything below.
pub fn matching_grant(state: &State, key: &Key, permission: &str, resource: &str) -> Option<Match> {
    let allows = |g: &&Grant| match resource.strip_suffix("/**") {
        Some(prefix) => g.allows_below(permission, prefix),
        None => g.allows(permission, resource),
    };
    roles::of_key(state, key).find_map(|(grants, role)| {
        let grant = grants.iter().find(allows)?;
        Some(Match { grant: grant.clone(), role: role.map(|name| name.to_string()) })
    })
}

/// Whether one single usable grant of the key, or of its roles, covers all of `wanted`.
pub fn holds(state: &State, key: &Key, wanted: &Grant) -> bool {
    let covers = |grant: &Grant| !grant.is_give_only() && grant.covers(wanted);
    roles::of_key(state, key).any(|(grants, _)| grants.iter().any(covers))
}

/// The verdict on one use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: DecisionReason,
    pub matched: Option<Match>,
}

impl Verdict {
    pub fn allowed(&self) -> bool {
        self.reason == DecisionReason::Granted
    }
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Empty: only whether the key is accepted.
    pub permission: &'a str,
    pub resource: &'a str,
    pub circumstances: Circumstances<'a>,
    /// Uses that count against the key's limits, and are not in the state yet.
    pub more_uses: u32,
}

/// Judges a use by a key whose secret matched: does it stand, is it accepted so, may it, has it uses left.
pub fn judge(state: &State, key_id: KeyId, version: u32, asked: Asked<'_>, now: Time) -> Verdict {
    let denied = |reason| Verdict { reason, matched: None };
    let Some(key) = state.keys.get(&key_id) else { return denied(DecisionReason::UnknownKey) };
    if let Err(reason) = standing(key, version, now) {
        return denied(reason);
    }
    if let Some(Err(reason)) = key.restrictions.as_ref().map(|r| r.check(asked.circumstances)) {
        return denied(reason);
    }
    if asked.permission.is_empty() {
        return Verdict { reason: DecisionReason::Granted, matched: None };
    }
    let Some(matched) = matching_grant(state, key, asked.permission, asked.resource) else {
        return denied(DecisionReason::NoGrant);
    };
    // Last: only what would be allowed counts.
    if let (Some(limits), Some(used)) = (&key.restrictions, &key.used)
        && let Err(reason) = limits.check_uses(used, asked.more_uses, now)
    {
        return denied(reason);
    }
    Verdict { reason: DecisionReason::Granted, matched: Some(matched) }
}
