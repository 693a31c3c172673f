//! What a service registers in the catalogue of permissions.

use keyledger_ledger::permissions::{MAX_DESCRIPTION, MAX_OF_PREFIX, is_under};
use keyledger_ledger::text::check_required_line;

use super::changes::parse_common;
use super::{Common, Violation, Violations, check_slug};

/// All permissions under a prefix, in the order of their names.
pub struct RegisterPermissions {
    pub prefix: String,
    pub names: Vec<String>,
    /// What each allows, in the order of the names.
    pub descriptions: Vec<String>,
    pub common: Common,
}

pub fn register_permissions(
    r: crate::RegisterPermissionsRequest,
) -> Result<RegisterPermissions, Vec<Violation>> {
    let mut v = Violations::default();
    let prefix = v.take("prefix", check_slug(&r.prefix)).map(|()| r.prefix.as_str());
    let (names, descriptions) = parse_permissions(&mut v, prefix, r.permissions);
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(Some(RegisterPermissions { prefix: r.prefix, names, descriptions, common }))
}

/// Without a prefix it was malformed, and nothing can be under it.
fn parse_permissions(
    v: &mut Violations,
    prefix: Option<&str>,
    mut permissions: Vec<crate::NewPermission>,
) -> (Vec<String>, Vec<String>) {
    if !(1..=MAX_OF_PREFIX).contains(&permissions.len()) {
        v.add("permissions", format!("must hold 1 to {MAX_OF_PREFIX} items"));
        return (vec![], vec![]);
    }
    for (i, permission) in permissions.iter().enumerate() {
        let name = format!("permissions[{i}].name");
        if prefix.is_some_and(|prefix| !is_under(prefix, &permission.name)) {
            v.add(
                &name,
                "must be the prefix, a dot and segments of `a-z 0-9 _ -`, at most 128 bytes",
            );
        }
        if permissions[..i].iter().any(|p| p.name == permission.name) {
            v.add(&name, "is named twice");
        }
        let description = check_required_line(&permission.description, MAX_DESCRIPTION);
        v.take(format!("permissions[{i}].description"), description);
    }
    permissions.sort_by(|a, b| a.name.cmp(&b.name));
    permissions.into_iter().map(|p| (p.name, p.description)).unzip()
}
