//! Names of pages: ids and digests, never what people or services call something.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::document::html::Href;
use crate::{Owner, owner};

/// A page of a key.
pub(in crate::document) fn key_page(key_id: &str, up: bool) -> Href {
    Href::file(up, "keys", &key_name(key_id))
}

/// The id as we write it; a digest of what is none.
pub(super) fn key_name(key_id: &str) -> String {
    match Uuid::parse_str(key_id) {
        Ok(id) if id.to_string() == key_id => key_id.into(),
        _ => digest("key", key_id),
    }
}

pub(in crate::document) fn owner_page(owner: &Owner, up: bool) -> Href {
    Href::file(up, "owners", &owner_name(owner))
}

pub(super) fn owner_name(owner: &Owner) -> String {
    match &owner.owner {
        Some(owner::Owner::User(name)) => digest("user", name),
        Some(owner::Owner::Service(name)) => digest("service", name),
        None => digest("nobody", ""),
    }
}

/// A role with a parameter has the page of the role.
pub(in crate::document) fn role_page(name: &str, up: bool) -> Href {
    Href::file(up, "roles", &role_name(name))
}

pub(super) fn role_name(name: &str) -> String {
    digest("role", without_parameter(name))
}

/// `log-reader` of `log-reader(error)`.
pub(super) fn without_parameter(name: &str) -> &str {
    name.split_once('(').map_or(name, |(name, _)| name)
}

pub(in crate::document) fn permission_page(name: &str, up: bool) -> Href {
    Href::file(up, "permissions", &permission_name(name))
}

pub(super) fn permission_name(name: &str) -> String {
    digest("permission", name)
}

fn digest(kind: &str, name: &str) -> String {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(name).finalize();
    digest[..12].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pages_hold_nothing_of_what_something_is_called() {
        let id = "0198c5a0-0000-8000-8000-000000000001";
        assert_eq!(key_name(id), id);
        for hostile in ["../../etc/passwd", "<script>", "", "0198C5A0-0000-8000-8000-000000000001"]
        {
            let name = key_name(hostile);
            assert!(name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        }
        assert_eq!(role_name("log-reader(error)"), role_name("log-reader"));
        assert_ne!(role_name("x"), permission_name("x"));
    }
}
