//! Sealing: personal and free texts under the data key of the person they are about, or of the ledger's month when they
//! are about no known person. AES-256-GCM; the salt of the commitment is sealed with the text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use keyledger_ledger::body::{SealedText, Texts};
use keyledger_ledger::id::Time;
use keyledger_ledger::refusals::Network;
use keyledger_ledger::text::{self, Opened, Sealed};
use keyledger_ledger::verify::Opening;
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keydir::KeyDirectory;
use crate::store::StoreError;
use crate::store::connect::{Database, PoolUse};
use crate::store::data_keys::{self, WrappedKey};

/// Most data keys kept in memory; beyond that they are read again.
const MAX_CACHED: usize = 65_536;

/// Whom texts are about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// A person, by name.
    Person(&'a str),
    /// A person that the ledger knows.
    Reference([u8; 16]),
    /// Nobody known: the key of the ledger's month.
    Nobody,
}

/// The data key of one subject.
pub(crate) struct DataKey {
    pub(crate) subject_ref: [u8; 16],
    key: LessSafeKey,
}

/// Seals and opens texts.
pub(crate) struct Sealing {
    database: Database,
    wrapping: Vec<(u32, LessSafeKey)>,
    blind_index: hmac::Key,
    cache: RwLock<Cache>,
}

#[derive(Default)]
struct Cache {
    by_reference: HashMap<(Uuid, [u8; 16]), Arc<DataKey>>,
    by_blind_index: HashMap<(Uuid, [u8; 32]), Arc<DataKey>>,
    by_month: HashMap<(Uuid, i64), Arc<DataKey>>,
}

impl Sealing {
    pub(crate) fn pool_use(&self) -> PoolUse {
        self.database.pool_use()
    }

    pub(crate) fn new(database: Database, keys: &KeyDirectory) -> Sealing {
        Sealing {
            database,
            wrapping: keys.wrapping.iter().map(|(id, key)| (*id, aead_key(key))).collect(),
            blind_index: hmac::Key::new(hmac::HMAC_SHA256, keys.blind_index.as_slice()),
            cache: RwLock::default(),
        }
    }

    /// The data key for texts about somebody. A new one is committed in the sealing database before this returns.
    pub(crate) async fn data_key(
        &self,
        ledger_id: Uuid,
        about: About<'_>,
        now: Time,
    ) -> Result<Arc<DataKey>, StoreError> {
        let cached = match about {
            About::Person(_) => None,
            About::Reference(reference) => self.cached(ledger_id, &reference),
            About::Nobody => self.cached_month(ledger_id, month_number(now)),
        };
        match cached {
            Some(key) => Ok(key),
            // Seldom: so it doesn't make every call's future larger.
            None => Box::pin(self.find_data_key(ledger_id, about, now)).await,
        }
    }

    async fn find_data_key(
        &self,
        ledger_id: Uuid,
        about: About<'_>,
        now: Time,
    ) -> Result<Arc<DataKey>, StoreError> {
        match about {
            About::Person(name) => self.by_name(ledger_id, &format!("person\n{name}")).await,
            About::Nobody => self.month_key(ledger_id, now).await,
            About::Reference(reference) => {
                self.load(ledger_id, &[reference]).await?;
                match self.cached(ledger_id, &reference) {
                    Some(key) => Ok(key),
                    // Erased: what is said about them from now on is about nobody known.
                    None => self.month_key(ledger_id, now).await,
                }
            }
        }
    }

    /// The reference of a person that the ledger knows already; of others none is made.
    pub(crate) async fn find_person(
        &self,
        ledger_id: Uuid,
        name: &str,
    ) -> Result<Option<[u8; 16]>, StoreError> {
        let blind = self.blind(ledger_id, &format!("person\n{name}"));
        let client = self.database.client().await?;
        let found = data_keys::find(&client, ledger_id, &blind).await?;
        Ok(found.map(|wrapped| wrapped.subject_ref))
    }

    /// Brings data keys into memory, so that [`Sealing::open`] finds them.
    pub(crate) async fn load(
        &self,
        ledger_id: Uuid,
        references: &[[u8; 16]],
    ) -> Result<(), StoreError> {
        let mut missing: Vec<[u8; 16]> = {
            let cache = self.cache.read().expect("no holder of the cache's lock panics");
            references
                .iter()
                .filter(|r| !cache.by_reference.contains_key(&(ledger_id, **r)))
                .copied()
                .collect()
        };
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let client = self.database.client().await?;
        for wrapped in data_keys::by_reference(&client, ledger_id, &missing).await? {
            if let Some(key) = self.unwrap(ledger_id, &wrapped) {
                self.remember(ledger_id, None, key);
            }
        }
        Ok(())
    }

    /// Opens sealed texts with a data key in memory.
    pub(crate) fn open(&self, ledger_id: Uuid, text: &SealedText, sealed: &[u8]) -> Opening {
        let reference: Result<[u8; 16], _> = text.subject_ref.as_slice().try_into();
        let Some(key) = reference.ok().and_then(|r| self.cached(ledger_id, &r)) else {
            return Opening::KeyGone;
        };
        let aad = associated_data(ledger_id, &key.subject_ref, &text.commitment);
        match open(&key.key, sealed, &aad) {
            Some(plain) if plain.len() >= 32 => {
                let (salt, texts) = plain.split_at(32);
                Opening::Opened(Opened {
                    salt: salt.try_into().expect("split at 32"),
                    texts: texts.to_vec(),
                })
            }
            _ => Opening::Damaged,
        }
    }

    async fn month_key(&self, ledger_id: Uuid, now: Time) -> Result<Arc<DataKey>, StoreError> {
        let key = self.by_name(ledger_id, &format!("month\n{}", month(now))).await?;
        let mut cache = self.cache.write().expect("no holder of the cache's lock panics");
        cache.by_month.insert((ledger_id, month_number(now)), key.clone());
        Ok(key)
    }

    fn cached_month(&self, ledger_id: Uuid, month: i64) -> Option<Arc<DataKey>> {
        let cache = self.cache.read().expect("no holder of the cache's lock panics");
        cache.by_month.get(&(ledger_id, month)).cloned()
    }

    async fn by_name(&self, ledger_id: Uuid, name: &str) -> Result<Arc<DataKey>, StoreError> {
        let blind = self.blind(ledger_id, name);
        let cached = {
            let cache = self.cache.read().expect("no holder of the cache's lock panics");
            cache.by_blind_index.get(&(ledger_id, blind)).cloned()
        };
        if let Some(key) = cached {
            return Ok(key);
        }
        let new = self.new_key(ledger_id)?;
        let client = self.database.client().await?;
        let wrapped = data_keys::find_or_insert(&client, ledger_id, &blind, &new).await?;
        let key = self.unwrap(ledger_id, &wrapped).ok_or_else(|| {
            StoreError::Damaged(format!(
                "a data key wrapped with wrapping.{} can't be unwrapped",
                wrapped.wrapping_key_id
            ))
        })?;
        Ok(self.remember(ledger_id, Some(blind), key))
    }

    /// Stands for a network in signed bytes: whoever lacks the key can't tell which it is. People's names are found by the same key,
    /// in a domain of their own.
    pub(crate) fn blind_network(&self, ledger_id: Uuid, network: &Network) -> [u8; 16] {
        let blind = self.blind(ledger_id, &format!("network\n{}", hex::encode(network)));
        *blind.first_chunk().expect("32 bytes have 16")
    }

    fn blind(&self, ledger_id: Uuid, name: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.blind_index);
        context.update(ledger_id.as_bytes());
        context.update(name.as_bytes());
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    fn new_key(&self, ledger_id: Uuid) -> Result<WrappedKey, StoreError> {
        let (subject_ref, key) = (random::<16>(), Zeroizing::new(random::<32>()));
        let (id, wrapping) =
            self.wrapping.last().ok_or(StoreError::Damaged("no wrapping key".into()))?;
        let wrapped =
            seal_bytes(wrapping, random(), key.as_slice(), &wrapping_data(ledger_id, &subject_ref));
        Ok(WrappedKey { subject_ref, wrapped, wrapping_key_id: *id })
    }

    fn unwrap(&self, ledger_id: Uuid, wrapped: &WrappedKey) -> Option<Arc<DataKey>> {
        let (_, wrapping) = self.wrapping.iter().find(|(id, _)| *id == wrapped.wrapping_key_id)?;
        let plain = Zeroizing::new(open(
            wrapping,
            &wrapped.wrapped,
            &wrapping_data(ledger_id, &wrapped.subject_ref),
        )?);
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(plain.as_slice().try_into().ok()?);
        Some(Arc::new(DataKey { subject_ref: wrapped.subject_ref, key: aead_key(&key) }))
    }

    fn cached(&self, ledger_id: Uuid, reference: &[u8; 16]) -> Option<Arc<DataKey>> {
        let cache = self.cache.read().expect("no holder of the cache's lock panics");
        cache.by_reference.get(&(ledger_id, *reference)).cloned()
    }

    fn remember(
        &self,
        ledger_id: Uuid,
        blind: Option<[u8; 32]>,
        key: Arc<DataKey>,
    ) -> Arc<DataKey> {
        let mut cache = self.cache.write().expect("no holder of the cache's lock panics");
        if cache.by_reference.len() >= MAX_CACHED {
            *cache = Cache::default();
        }
        cache.by_reference.insert((ledger_id, key.subject_ref), key.clone());
        if let Some(blind) = blind {
            cache.by_blind_index.insert((ledger_id, blind), key.clone());
        }
        key
    }
}

impl DataKey {
    /// Seals texts, with a fresh salt and nonce.
    pub(crate) fn seal(&self, ledger_id: Uuid, texts: &Texts) -> Sealed {
        let (random, texts) = (random::<{ 32 + NONCE_LEN }>(), texts.encode_to_vec());
        let (salt, nonce) = random.split_first_chunk().expect("32 bytes come first");
        let nonce = nonce.try_into().expect("a nonce is left");
        let commitment = text::commitment(salt, &texts);
        let aad = associated_data(ledger_id, &self.subject_ref, &commitment);
        let bytes = seal_bytes(&self.key, nonce, &[salt.as_slice(), &texts].concat(), &aad);
        Sealed { subject_ref: self.subject_ref, commitment, bytes }
    }
}

/// How many random bytes a thread asks for at once.
const DRAWN: usize = 1_024;

thread_local! {
    /// Random bytes not yet handed out, and how many of them are gone. Each use of a key takes some: one system call each
    /// would be felt.
    static RANDOM: RefCell<(Zeroizing<[u8; DRAWN]>, usize)> =
        RefCell::new((Zeroizing::new([0; DRAWN]), DRAWN));
}

/// Random bytes from the operating system. None is handed out twice, and none stays behind.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    const { assert!(N <= DRAWN) };
    RANDOM.with_borrow_mut(|(drawn, used)| {
        if DRAWN - *used < N {
            getrandom::fill(drawn.as_mut_slice()).expect("the operating system gives random bytes");
            *used = 0;
        }
        let (bytes, _) = drawn[*used..].split_first_chunk_mut::<N>().expect("N bytes are left");
        *used += N;
        std::mem::replace(bytes, [0; N])
    })
}

fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

/// `nonce` is random. One key seals far fewer than 2^32 texts, the bound for random nonces (NIST SP 800-38D §8.3).
fn seal_bytes(key: &LessSafeKey, nonce: [u8; NONCE_LEN], plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&nonce);
    let mut text = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
        .expect("a text is far below the limit of AES-GCM");
    sealed.append(&mut text);
    sealed
}

fn open(key: &LessSafeKey, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?;
    Some(plain.to_vec())
}

fn associated_data(ledger_id: Uuid, subject_ref: &[u8; 16], commitment: &[u8]) -> Vec<u8> {
    [b"keyledger text v1\n".as_slice(), ledger_id.as_bytes(), subject_ref, commitment].concat()
}

fn wrapping_data(ledger_id: Uuid, subject_ref: &[u8; 16]) -> Vec<u8> {
    [b"keyledger data key v1\n".as_slice(), ledger_id.as_bytes(), subject_ref].concat()
}

/// `2026-11`, from a time.
fn month(now: Time) -> String {
    let number = month_number(now);
    format!("{:04}-{:02}", number.div_euclid(12), number.rem_euclid(12) + 1)
}

/// Months since January of the year 0: days to civil month after Howard Hinnant's `civil_from_days`.
fn month_number(now: Time) -> i64 {
    let days = now.micros().div_euclid(86_400_000_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day comes last.
    let since_march = (5 * day_of_year + 2) / 153;
    (year_of_era + era * 400) * 12 + since_march + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_that_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01"),
            (951_782_400, "2000-02"),
            (951_868_800, "2000-03"),
            (1_795_305_599, "2026-11"),
            (1_798_761_600, "2027-01"),
        ] {
            assert_eq!(month(Time(seconds * 1_000_000)), expected, "{seconds}");
        }
    }

    #[test]
    fn what_was_sealed_opens_only_with_its_key_place_and_commitment() {
        let key = DataKey { subject_ref: [1; 16], key: aead_key(&[7; 32]) };
        let ledger = Uuid::from_u128(1);
        let texts = Texts { reason: "ticket 4711".into(), ..Texts::default() };
        let sealed = key.seal(ledger, &texts);
        let aad = associated_data(ledger, &[1; 16], &sealed.commitment);
        let plain = open(&key.key, &sealed.bytes, &aad).unwrap();
        assert_eq!(plain[32..], texts.encode_to_vec());
        assert!(
            open(
                &key.key,
                &sealed.bytes,
                &associated_data(Uuid::from_u128(2), &[1; 16], &sealed.commitment)
            )
            .is_none()
        );
        assert!(open(&aead_key(&[8; 32]), &sealed.bytes, &aad).is_none());
        assert!(open(&key.key, &sealed.bytes[..5], &aad).is_none());
    }
}
