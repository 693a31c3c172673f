//! KeyService: what one key may do. Verdicts, dry runs, and the key behind a token.

use futures_util::future::try_join_all;
use keyledger_ledger::body::{DecisionReason, Texts};
use keyledger_ledger::command::{Check, CheckAnswer, Refusal};
use keyledger_ledger::imported::MAX_PREFIX_LENGTHS;
use keyledger_ledger::judge::{self, Credential, Identity};
use keyledger_ledger::restrict::{Circumstances, Source};
use keyledger_proto::parse;
use keyledger_proto::{
    BatchVerifyKeysResponse, LookupKeyRequest, LookupKeyResponse, TestPermissionsResponse,
    VerifyKeyRequest, VerifyKeyResponse, WhoAmIResponse, show,
};

use super::call::CallContext;
use super::keys::{find, show_key};
use super::memory;
use super::reports::ToKeep;
use super::status::Failure;

/// How often a question may be asked again because keys were made through other replicas in between. A key of ours is seen
/// once; a token that was made elsewhere may be found by each length of a prefix, as it comes into use.
const MOST_SEEN: usize = 2 * MAX_PREFIX_LENGTHS;

pub(super) async fn verify_key(
    call: CallContext,
    r: VerifyKeyRequest,
) -> Result<VerifyKeyResponse, Failure> {
    let credential = parse::credential(&r.token);
    // Most tokens are of the caller's own ledger.
    let own = credential.key_id().is_none_or(|id| id.ledger().0 == call.ledger.number);
    let call = if own { call } else { Box::pin(in_ledger_of(call, &credential)).await? };
    // What leads up to the question is gone while the answer is awaited.
    let (answer, keep, mut again) = match Box::pin(ask(call, credential, r)).await? {
        Asked::Answered(answer) => return Ok(*answer),
        Asked::Waits(answer, keep, again) => (answer, keep, again),
    };
    if let Some(answer) = answer.await? {
        return Ok(verdict(&answer, keep));
    }
    for _ in 0..MOST_SEEN {
        let (call, r) = *again.ok_or(Failure::Internal("a key that was known wasn't"))?;
        let credential = parse::credential(&r.token);
        let (answer, keep, next) = match Box::pin(ask(call, credential, r)).await? {
            Asked::Answered(answer) => return Ok(*answer),
            Asked::Waits(answer, keep, next) => (answer, keep, next),
        };
        if let Some(answer) = answer.await? {
            return Ok(verdict(&answer, keep));
        }
        again = next;
    }
    Err(Failure::Internal("keys were seen too often"))
}

fn verdict(answer: &CheckAnswer, keep: Option<Box<ToKeep>>) -> VerifyKeyResponse {
    let kept = keep.and_then(|keep| keep.kept(answer));
    VerifyKeyResponse { kept, ..show::verdict(answer) }
}

/// A question of VerifyKey: answered from memory, or waiting for the ledger.
enum Asked<F> {
    Answered(Box<VerifyKeyResponse>),
    Waits(F, Option<Box<ToKeep>>, Option<Box<(CallContext, VerifyKeyRequest)>>),
}

/// A gateway checks tokens of every tenant with one key of the system ledger, as far as that key holds the permission on
/// `ledgers/<name>/keys`. To others a token of another ledger looks like one that nobody knows.
async fn in_ledger_of(call: CallContext, subject: &Credential) -> Result<CallContext, Failure> {
    let number = subject.key_id().map(|id| id.ledger());
    let Some(number) = number.filter(|number| number.0 != call.ledger.number) else {
        return Ok(call);
    };
    let Some(there) = call.elsewhere(number).await? else { return Ok(call) };
    let resource = format!("ledgers/{}/keys", there.name);
    if call.may(&resource) { call.cross(&there, resource).await } else { Ok(call) }
}

/// Puts the question of VerifyKey to the sequencer. A key that this replica doesn't know costs what a known one does: if it
/// was made through another replica a moment ago, the sequencer finds it, and the same is asked again.
async fn ask(
    call: CallContext,
    credential: Credential,
    r: VerifyKeyRequest,
) -> Result<Asked<impl Future<Output = Result<Option<Box<CheckAnswer>>, Failure>>>, Failure> {
    let (max_staleness, keep) = (parse::max_staleness(&r), parse::keep(&r));
    // Digests are computed before the lock; only if none matches anything here they are computed again under it.
    let credential = call.recognise(credential, &r.token).await?;
    let subject = credential.about().and_then(|key_id| find(&call, key_id));
    let unseen = credential.key_id().filter(|_| subject.is_none());
    let open = unseen.is_some() || credential.is_open();
    let again = open.then(|| Box::new((call.again(), r.clone())));
    let client = r.client.unwrap_or_default();
    let address = client.address.parse().ok();
    let texts = Texts {
        reason: r.reason,
        client_address: client.address,
        client_user_agent: client.user_agent,
        ..Texts::default()
    };
    let sealed = match texts == Texts::default() {
        true => vec![],
        false => call.seal_about_key(subject.as_deref(), &texts).await?,
    };
    let check = Check {
        credential,
        permission: r.permission,
        resource: r.resource,
        audience: r.audience,
        address,
        keep,
        texts: sealed,
    };
    if max_staleness > 0
        && let Some(answer) = memory::answer(&call, &check, max_staleness)
    {
        return Ok(Asked::Answered(Box::new(answer)));
    }
    let keep = ToKeep::of(&call, &check);
    Ok(Asked::Waits(call.verify(check, unseen), keep, again))
}

/// All questions are put at once; each is answered when it is durable.
pub(super) async fn batch_verify_keys(
    call: CallContext,
    requests: Vec<VerifyKeyRequest>,
) -> Result<BatchVerifyKeysResponse, Failure> {
    let answers = requests.into_iter().map(|request| verify_key(call.again(), request));
    let responses = try_join_all(answers).await?;
    Ok(BatchVerifyKeysResponse { responses })
}

pub(super) async fn test_permissions(
    call: CallContext,
    r: parse::TestPermissions,
) -> Result<TestPermissionsResponse, Failure> {
    let key = find(&call, r.key_id).ok_or(Refusal::KeyNotFound)?;
    let (head, now) = (call.head(), call.now());
    let version = key.newest_version().number;
    let circumstances = Circumstances { from: Source::of(r.address), audience: Some(&r.audience) };
    let test = |(permission, resource): &(String, String)| {
        let asked = judge::Asked { permission, resource, circumstances, more_uses: 0 };
        show::permission_test(&judge::judge(&head.state, key.id, version, asked, now))
    };
    Ok(TestPermissionsResponse {
        results: r.permissions.iter().map(test).collect(),
        position: Some(head.state.next_position),
    })
}

pub(super) async fn lookup_key(
    call: CallContext,
    r: LookupKeyRequest,
) -> Result<LookupKeyResponse, Failure> {
    let credential = call.recognise(parse::credential(&r.token), &r.token).await?;
    let head = call.head();
    let identity = judge::identify(&credential, &head.state, &call.replica.keys.peppers);
    let Identity::Known { key_id, version } = identity else {
        return Err(Refusal::KeyNotFound.into());
    };
    let key = find(&call, key_id).ok_or(Refusal::KeyNotFound)?;
    let reason = judge::standing(&key, version, call.now()).err();
    Ok(LookupKeyResponse {
        key: Some(show_key(&call, &key).await?),
        version,
        reason: reason.unwrap_or(DecisionReason::Granted) as i32,
    })
}

pub(super) async fn who_am_i(call: CallContext, _: ()) -> Result<WhoAmIResponse, Failure> {
    let key = show_key(&call, call.caller()?).await?;
    let ledger = call.head().state.ledger.as_deref().map(show::ledger);
    Ok(WhoAmIResponse { key: Some(key), ledger })
}
