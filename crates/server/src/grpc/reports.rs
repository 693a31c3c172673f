//! Answers that a service may keep, and ReportUses: what it answered with them.
//!
//! A kept answer has a receipt: what was asked and answered, with a MAC that only the replicas of this deployment can make, over the
//! ledger and the caller's key. So nobody can report uses of a token that it never presented, or of an answer that it might not keep.
//!
//! A receipt outlives its answer where a ledger loses its newest entries: it is restored from a backup, or a database takes over that had
//! not heard of them. Something else may stand there by then, so each answer is looked up before a use of it is recorded: a ledger
//! that tells of an answer which it doesn't hold would never verify again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyledger_ledger::body::{DecisionReason, Texts, Use, UseColumn};
use keyledger_ledger::command::{Check, CheckAnswer, UseAddress};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::record::same_mac;
use keyledger_ledger::reports::{Claim, KeptAnswer, LOST, Report};
use keyledger_ledger::restrict::Restrictions;
use keyledger_proto::parse::{CheckedReport, CheckedUse, Violation};
use keyledger_proto::{Keep, ReportUsesResponse, show};
use prost::Message;

use super::call::CallContext;
use super::keys::find;
use super::status::Failure;
use crate::sealing::random;
use crate::sequencer::Ledger;
use crate::store::entries::each_page_at;

/// Of so many uses it is said what is wrong with them: an error travels in headers.
const MAX_WRONG: usize = 10;

/// What a receipt says, behind its MAC.
#[derive(Clone, PartialEq, Message)]
struct Receipt {
    #[prost(bytes = "vec", tag = "1")]
    key_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    version: u32,
    #[prost(string, tag = "3")]
    permission: String,
    #[prost(string, tag = "4")]
    resource: String,
    #[prost(string, tag = "5")]
    audience: String,
    #[prost(uint64, tag = "6")]
    position: u64,
    #[prost(uint32, tag = "7")]
    index: u32,
    #[prost(int64, tag = "8")]
    time_us: i64,
    #[prost(int64, tag = "9")]
    max_staleness_us: i64,
    /// The client's address, if the key is restricted to networks.
    #[prost(string, tag = "10")]
    address: String,
}

/// What is known of a question whose answer may be kept, before it is answered.
pub(super) struct ToKeep {
    ledger: Arc<Ledger>,
    caller: KeyId,
    receipt: Receipt,
}

impl ToKeep {
    /// `None` if the caller doesn't want to keep it.
    pub(super) fn of(call: &CallContext, check: &Check) -> Option<Box<ToKeep>> {
        let caller = call.caller().ok().filter(|_| check.keep > 0)?.id;
        let receipt = Receipt {
            permission: check.permission.clone(),
            resource: check.resource.clone(),
            audience: check.audience.clone(),
            address: check.address.map_or(String::new(), |address| address.to_string()),
            ..Receipt::default()
        };
        Some(Box::new(ToKeep { ledger: call.ledger.clone(), caller, receipt }))
    }

    /// The answer may be kept for as long as the ledger has said.
    pub(super) fn kept(self, answer: &CheckAnswer) -> Option<Keep> {
        let key = answer.key.as_ref().filter(|_| answer.keep > 0)?;
        let any_address = !key.restrictions.as_deref().is_some_and(Restrictions::names_networks);
        let receipt = Receipt {
            key_id: key.id.as_bytes().to_vec(),
            version: answer.version,
            position: answer.at.position,
            index: answer.at.index,
            time_us: answer.time.micros(),
            max_staleness_us: answer.keep,
            address: if any_address { String::new() } else { self.receipt.address },
            ..self.receipt
        };
        Some(Keep {
            max_staleness: Some(show::duration(answer.keep)),
            answer_time: Some(show::timestamp(answer.time)),
            receipt: receipt.seal(&self.ledger, self.caller),
            any_address,
        })
    }
}

impl Receipt {
    fn seal(&self, ledger: &Ledger, caller: KeyId) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        [&mac(ledger, caller, &bytes)[..], &bytes].concat()
    }

    /// `None` if it isn't of this ledger and this caller.
    fn open(receipt: &[u8], ledger: &Ledger, caller: KeyId) -> Option<Receipt> {
        let (expected, bytes) = receipt.split_first_chunk::<32>()?;
        let good = same_mac(&mac(ledger, caller, bytes), expected);
        Receipt::decode(bytes).ok().filter(|_| good)
    }

    fn answer(self) -> Option<KeptAnswer> {
        Some(KeptAnswer {
            key_id: KeyId::from_slice(&self.key_id)?,
            version: self.version,
            permission: self.permission,
            resource: self.resource,
            audience: self.audience,
            at: UseAddress { position: self.position, index: self.index },
            time: Time(self.time_us),
            max_staleness: self.max_staleness_us,
        })
    }
}

fn mac(ledger: &Ledger, caller: KeyId, receipt: &[u8]) -> [u8; 32] {
    let mac = &ledger.keys.row_mac;
    mac.of("receipt of a kept answer", ledger.id.as_bytes(), caller.as_bytes(), 0, receipt)
}

pub(super) async fn report_uses(
    call: CallContext,
    report: CheckedReport,
) -> Result<ReportUsesResponse, Failure> {
    let uses = match open_receipts(&call, report.uses) {
        Ok(uses) => uses,
        Err(violations) => return refuse(&call, violations).await,
    };
    let lost = lost_answers(&call, &uses).await?;
    if !lost.is_empty() {
        return refuse(&call, lost).await;
    }
    let keys: BTreeSet<KeyId> = uses.iter().map(|(answer, _)| answer.key_id).collect();
    // Texts are sealed under the keys of the owners, which another replica may know already.
    if keys.into_iter().any(|id| find(&call, id).is_none()) {
        call.ledger.catch_up().await?;
    }
    let mut claims = Vec::with_capacity(uses.len());
    for (answer, r#use) in uses {
        claims.push(claim(&call, answer, r#use).await?);
    }
    let (session, first_number, end) = (report.session, report.first_number, report.end);
    let report = Report { session, first_number, claims, end };
    Ok(ReportUsesResponse { recorded: Some(call.report(report).await?) })
}

async fn refuse(
    call: &CallContext,
    violations: Vec<Violation>,
) -> Result<ReportUsesResponse, Failure> {
    call.refuse(DecisionReason::InvalidRequest).await?;
    Err(violations.into())
}

/// What the uses are of, or which receipts prove nothing.
fn open_receipts(
    call: &CallContext,
    uses: Vec<CheckedUse>,
) -> Result<Vec<(KeptAnswer, CheckedUse)>, Vec<Violation>> {
    let caller = call.caller().ok().map(|key| key.id);
    let opened = uses.into_iter().enumerate().map(|(i, r#use)| {
        let wrong = |field: &str, description: &str| Violation {
            field: format!("uses[{i}].{field}"),
            description: description.into(),
        };
        let receipt = caller.and_then(|id| Receipt::open(&r#use.receipt, &call.ledger, id));
        let receipt = receipt.ok_or_else(|| {
            wrong("receipt", "must be that of an answer which this key may keep in this ledger")
        })?;
        let here = r#use.address.map_or(String::new(), |address| address.to_string());
        if !receipt.address.is_empty() && receipt.address != here {
            return Err(wrong(
                "client_address",
                "must be that of the answer: the key is restricted to networks",
            ));
        }
        let answer = receipt.answer();
        Ok((answer.ok_or_else(|| wrong("receipt", "must name a key"))?, r#use))
    });
    let (mut good, mut bad) = (vec![], vec![]);
    for opened in opened {
        match opened {
            Ok(opened) => good.push(opened),
            Err(violation) => bad.push(violation),
        }
        if bad.len() == MAX_WRONG {
            break;
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// Which uses are of answers that don't stand where their receipts say. Each page is read once.
async fn lost_answers(
    call: &CallContext,
    uses: &[(KeptAnswer, CheckedUse)],
) -> Result<Vec<Violation>, Failure> {
    let Some(asker) = call.caller().ok().map(|key| key.id) else { return Ok(vec![]) };
    let mut of_page: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, (answer, _)) in uses.iter().enumerate() {
        of_page.entry(answer.at.position).or_default().push(i);
    }
    if of_page.is_empty() {
        return Ok(vec![]);
    }
    let positions: Vec<u64> = of_page.keys().copied().collect();
    let mut lost: BTreeSet<usize> = (0..uses.len()).collect();
    let client = call.ledger.database.client().await?;
    each_page_at(&client, call.ledger.id, &positions, |position, time, column| {
        let column = UseColumn::decode(column).unwrap_or_default();
        for i in of_page.get(&position).into_iter().flatten() {
            let answer = &uses[*i].0;
            let record = column.uses.get(answer.at.index as usize);
            let read = record.and_then(|record| Use::decode(record.r#use.as_slice()).ok());
            if read.is_some_and(|u| answer.is(&u, time, asker)) {
                lost.remove(i);
            }
        }
    })
    .await?;
    let violation = |i| Violation { field: format!("uses[{i}].receipt"), description: LOST.into() };
    Ok(lost.into_iter().take(MAX_WRONG).map(violation).collect())
}

async fn claim(
    call: &CallContext,
    answer: KeptAnswer,
    r#use: CheckedUse,
) -> Result<Claim, Failure> {
    let texts = Texts {
        reason: r#use.reason,
        client_address: r#use.client_address,
        client_user_agent: r#use.client_user_agent,
        ..Texts::default()
    };
    let texts = match texts == Texts::default() {
        true => vec![],
        false => call.seal_about_key(find(call, answer.key_id).as_deref(), &texts).await?,
    };
    let (time, address, trace) = (r#use.time, r#use.address, r#use.trace);
    Ok(Claim { answer, time, address, trace, texts, salt: random() })
}
