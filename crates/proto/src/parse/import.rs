//! Requests that bring keys that were made elsewhere.

use keyledger_ledger::imported::{Argon2id, TokenHash, check_prefix};

use super::changes::parse_common;
use super::{Common, CreateKey, MAX_ITEMS, Violation, Violations, create_key};
use crate::create_key_request::Expiry as Created;
use crate::key_to_import::{Expiry as Wire, Hash};

/// One item: a key as it would be created, and the hash of its token.
pub struct KeyToImport {
    pub key: CreateKey,
    pub hash: TokenHash,
}

pub struct ImportKeys {
    pub items: Vec<KeyToImport>,
    pub common: Common,
}

pub fn import_keys(r: crate::ImportKeysRequest) -> Result<ImportKeys, Vec<Violation>> {
    let mut v = Violations::default();
    if !(1..=MAX_ITEMS).contains(&r.items.len()) {
        v.add("items", format!("must hold 1 to {MAX_ITEMS} items"));
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let mut items: Vec<KeyToImport> = vec![];
    for (i, item) in r.items.into_iter().enumerate().take(MAX_ITEMS) {
        match key_to_import(item, &common) {
            Err(violations) => {
                violations.into_iter().for_each(|wrong| {
                    v.add(format!("items[{i}].{}", wrong.field), wrong.description)
                });
            }
            Ok(item) => {
                let same = |other: &KeyToImport| is_same(&other.hash, &item.hash);
                if items.iter().any(same) {
                    let field = format!("items[{i}].{}", field_of(&item.hash));
                    v.add(field, "is that of another item, too");
                }
                items.push(item);
            }
        }
    }
    v.finish(Some(ImportKeys { items, common }))
}

fn key_to_import(item: crate::KeyToImport, common: &Common) -> Result<KeyToImport, Vec<Violation>> {
    let mut v = Violations::default();
    let hash = parse_hash(&mut v, item.hash);
    let created = create_key(crate::CreateKeyRequest {
        owner: item.owner,
        purpose: item.purpose,
        grants: item.grants,
        expiry: item.expiry.map(|expiry| match expiry {
            Wire::Ttl(ttl) => Created::Ttl(ttl),
            Wire::ExpireTime(time) => Created::ExpireTime(time),
            Wire::NoExpiry(never) => Created::NoExpiry(never),
        }),
        roles: item.roles,
        restrictions: item.restrictions,
        labels: item.labels,
        responsible: item.responsible,
        rotation: item.rotation,
        // What is wrong with the call's own fields is said once, and not for each item.
        reason: "checked with the call".into(),
        ..crate::CreateKeyRequest::default()
    });
    let key = match created {
        Ok(key) => Some(CreateKey { common: common.clone(), ..key }),
        Err(violations) => {
            violations.into_iter().for_each(|wrong| v.add(wrong.field, wrong.description));
            None
        }
    };
    v.finish(key.zip(hash).map(|(key, hash)| KeyToImport { key, hash }))
}

fn parse_hash(v: &mut Violations, hash: Option<Hash>) -> Option<TokenHash> {
    match hash {
        None => {
            v.add("hash", "must be one of sha256 and argon2id");
            None
        }
        Some(Hash::Sha256(digest)) => match digest.as_slice().try_into() {
            Ok(digest) => Some(TokenHash::Sha256(digest)),
            Err(_) => {
                v.add("sha256", "must be 32 bytes");
                None
            }
        },
        Some(Hash::Argon2id(argon2id)) => {
            let hash = v.take("argon2id.phc", Argon2id::parse(&argon2id.phc));
            let prefix = argon2id.prefix;
            v.take("argon2id.prefix", check_prefix(&prefix))?;
            Some(TokenHash::Argon2id { hash: hash?, prefix })
        }
    }
}

/// Whether a token would be found as both.
fn is_same(a: &TokenHash, b: &TokenHash) -> bool {
    (a.algorithm(), a.found_by()) == (b.algorithm(), b.found_by())
}

fn field_of(hash: &TokenHash) -> &'static str {
    match hash {
        TokenHash::Sha256(_) => "sha256",
        TokenHash::Argon2id { .. } => "argon2id.prefix",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argon2idHash, ImportKeysRequest, Owner, owner};

    const PHC: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ";

    fn item(hash: Hash) -> crate::KeyToImport {
        crate::KeyToImport {
            owner: Some(Owner { owner: Some(owner::Owner::Service("robot".into())) }),
            purpose: "exports".into(),
            hash: Some(hash),
            ..Default::default()
        }
    }

    fn argon2id(phc: &str, prefix: &str) -> Hash {
        Hash::Argon2id(Argon2idHash { phc: phc.into(), prefix: prefix.into() })
    }

    fn fields(items: Vec<crate::KeyToImport>) -> Vec<String> {
        let request = ImportKeysRequest { items, reason: "r".into(), ..Default::default() };
        let wrong = import_keys(request).err().unwrap_or_default();
        wrong.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn good_items_are_taken() {
        let items = vec![item(Hash::Sha256(vec![7; 32])), item(argon2id(PHC, "acme_live_"))];
        assert_eq!(fields(items), [""; 0]);
    }

    #[test]
    fn whatever_is_wrong_with_an_item_is_named_by_its_path() {
        let none = crate::KeyToImport { hash: None, ..item(Hash::Sha256(vec![])) };
        let unowned = crate::KeyToImport { owner: None, ..item(Hash::Sha256(vec![1; 32])) };
        let items = vec![
            item(Hash::Sha256(vec![7; 31])),
            item(argon2id(
                "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ",
                "short",
            )),
            item(argon2id(PHC, "klk_01234567")),
            none,
            unowned,
        ];
        let expected = [
            "items[0].sha256",
            "items[1].argon2id.phc",
            "items[1].argon2id.prefix",
            "items[2].argon2id.prefix",
            "items[3].hash",
            "items[4].owner",
        ];
        assert_eq!(fields(items), expected);
    }

    #[test]
    fn no_hash_and_no_prefix_stands_in_a_call_twice() {
        let items = vec![
            item(Hash::Sha256(vec![7; 32])),
            item(argon2id(PHC, "acme_live_")),
            item(Hash::Sha256(vec![7; 32])),
            item(argon2id(PHC, "acme_live_")),
        ];
        assert_eq!(fields(items), ["items[2].sha256", "items[3].argon2id.prefix"]);
    }

    #[test]
    fn a_call_has_1_to_100_items_and_a_reason() {
        let wrong = import_keys(ImportKeysRequest::default()).err().unwrap_or_default();
        let wrong: Vec<String> = wrong.into_iter().map(|v| v.field).collect();
        assert_eq!(wrong, ["items", "reason"]);
        let many = (0..101u8).map(|i| item(Hash::Sha256(vec![i; 32]))).collect();
        assert_eq!(fields(many), ["items"]);
    }
}
