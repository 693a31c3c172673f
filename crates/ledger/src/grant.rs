//! Grants: permissions on a resource pattern, what a pattern matches, and when one grant lies inside another.
//!
//! Permissions are dotted names: patterns are `a.b`, `a.*` (everything below a) and `*`. Resources are paths: in a pattern
//! `*` is one whole segment and `**`, at the end only, everything below (alone: everything). Bytes are compared, never
//! folded, so `Logs/Error` is not `logs/error`.

use crate::body;

/// Longest permission, in bytes.
pub const MAX_PERMISSION: usize = 128;
/// Longest resource, in bytes.
pub const MAX_RESOURCE: usize = 512;
/// Most segments of a resource.
pub const MAX_SEGMENTS: usize = 32;
/// Most permissions of one grant.
pub const MAX_PERMISSIONS: usize = 32;
/// Most grants of one key or role.
pub const MAX_GRANTS: usize = 64;

/// Why a name or pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {0} bytes")]
    TooLong(usize),
    #[error("must be dotted names of `a-z 0-9 _ -`")]
    PermissionCharacters,
    #[error("`*` may stand only alone or as the last name")]
    PermissionStar,
    #[error("must be a path of non-empty segments without control characters or spaces")]
    ResourceCharacters,
    #[error("must have at most {MAX_SEGMENTS} segments")]
    TooManySegments,
    #[error("`*` must be a whole segment, and `**` may stand only at the end")]
    ResourceStar,
    #[error("must not hold a pattern")]
    NotConcrete,
    #[error("must have 1 to {MAX_PERMISSIONS} permissions")]
    PermissionCount,
}

/// Permissions on a resource pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    permissions: Box<[Box<str>]>,
    resource: Box<str>,
    give_only: bool,
}

impl Grant {
    pub fn new(
        permissions: &[String],
        resource: &str,
        give_only: bool,
    ) -> Result<Grant, PatternError> {
        if permissions.is_empty() || permissions.len() > MAX_PERMISSIONS {
            return Err(PatternError::PermissionCount);
        }
        permissions.iter().try_for_each(|p| check_permission_pattern(p))?;
        check_resource_pattern(resource)?;
        let permissions = permissions.iter().map(|p| p.as_str().into()).collect();
        Ok(Grant { permissions, resource: resource.into(), give_only })
    }

    pub fn from_body(grant: &body::Grant) -> Result<Grant, PatternError> {
        Grant::new(&grant.permissions, &grant.resource, grant.give_only)
    }

    pub fn to_body(&self) -> body::Grant {
        body::Grant {
            permissions: self.permissions.iter().map(|p| p.to_string()).collect(),
            resource: self.resource.to_string(),
            give_only: self.give_only,
        }
    }

    /// Whether the holder may use the permission on the resource. A give-only grant allows no use.
    pub fn allows(&self, permission: &str, resource: &str) -> bool {
        !self.give_only && self.reaches(permission, resource)
    }

    /// Whether the holder may use the permission on anything below `prefix`.
    pub fn allows_below(&self, permission: &str, prefix: &str) -> bool {
        let below = format!("{prefix}/**");
        !self.give_only
            && self.permissions.iter().any(|p| permission_matches(p, permission))
            && resources_meet(&self.resource, &below)
    }

    /// Whether everything that `other` gives lies inside this single grant. A give-only grant may hand on what it can't
    /// use; what it hands on may be used.
    pub fn covers(&self, other: &Grant) -> bool {
        other
            .permissions
            .iter()
            .all(|theirs| self.permissions.iter().any(|ours| permission_covers(ours, theirs)))
            && resource_covers(&self.resource, &other.resource)
    }

    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().map(|p| &**p)
    }

    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The same grant with only those of its permissions that are to be kept; `None` if there is none.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Option<Grant> {
        let permissions: Box<[Box<str>]> =
            self.permissions.iter().filter(|p| keep(p)).cloned().collect();
        (!permissions.is_empty()).then(|| Grant { permissions, ..self.clone() })
    }

    /// May be handed on, not used.
    pub fn is_give_only(&self) -> bool {
        self.give_only
    }

    fn reaches(&self, permission: &str, resource: &str) -> bool {
        self.permissions.iter().any(|p| permission_matches(p, permission))
            && resource_covers(&self.resource, resource)
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.permissions.join(", "), self.resource)?;
        if self.give_only { f.write_str(" (to hand on only)") } else { Ok(()) }
    }
}

/// Checks the name of one permission: no pattern.
pub fn check_permission(permission: &str) -> Result<(), PatternError> {
    check_permission_pattern(permission)?;
    if permission.ends_with('*') { Err(PatternError::NotConcrete) } else { Ok(()) }
}

/// Checks a pattern of permissions: `a.b`, `a.*` or `*`.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    check_permission_pattern(pattern)
}

/// Whether a pattern of permissions matches a permission.
pub fn pattern_matches(pattern: &str, permission: &str) -> bool {
    permission_matches(pattern, permission)
}

/// Whether a pattern of resources matches a resource.
pub fn resource_matches(pattern: &str, resource: &str) -> bool {
    resource_covers(pattern, resource)
}

/// Checks the path of one resource: no pattern.
pub fn check_resource(resource: &str) -> Result<(), PatternError> {
    check_resource_pattern(resource)?;
    if resource.split('/').any(|s| s.contains('*')) {
        Err(PatternError::NotConcrete)
    } else {
        Ok(())
    }
}

fn check_permission_pattern(pattern: &str) -> Result<(), PatternError> {
    check_length(pattern, MAX_PERMISSION)?;
    let names = pattern
        .strip_suffix(".*")
        .or(pattern.strip_suffix('*').filter(|rest| rest.is_empty()))
        .unwrap_or(pattern);
    if names.contains('*') {
        return Err(PatternError::PermissionStar);
    }
    let good = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let fine =
        pattern == "*" || names.split('.').all(|name| !name.is_empty() && name.bytes().all(good));
    if fine { Ok(()) } else { Err(PatternError::PermissionCharacters) }
}

fn check_resource_pattern(pattern: &str) -> Result<(), PatternError> {
    check_length(pattern, MAX_RESOURCE)?;
    let count = pattern.split('/').count();
    if count > MAX_SEGMENTS {
        return Err(PatternError::TooManySegments);
    }
    for (i, segment) in pattern.split('/').enumerate() {
        if segment.is_empty()
            || segment.chars().any(|c| c.is_whitespace() || crate::text::is_unsafe_in_a_line(c))
        {
            return Err(PatternError::ResourceCharacters);
        }
        let star = match segment {
            "*" => true,
            "**" => i + 1 == count,
            other => !other.contains('*'),
        };
        if !star {
            return Err(PatternError::ResourceStar);
        }
    }
    Ok(())
}

fn check_length(text: &str, max: usize) -> Result<(), PatternError> {
    match text.len() {
        0 => Err(PatternError::Empty),
        n if n > max => Err(PatternError::TooLong(max)),
        _ => Ok(()),
    }
}

fn permission_matches(pattern: &str, permission: &str) -> bool {
    permission_covers(pattern, permission)
}

/// Every permission that `inner` matches is matched by `outer`. A concrete name is a pattern that matches itself.
fn permission_covers(outer: &str, inner: &str) -> bool {
    if outer == "*" || outer == inner {
        return true;
    }
    // `a.*` covers `a.b`, `a.b.c` and `a.b.*`, not `a` and not `*`.
    outer.strip_suffix('*').is_some_and(|prefix| inner.starts_with(prefix))
}

/// Every resource that `inner` matches is matched by `outer`. A concrete path is a pattern that matches itself.
fn resource_covers(outer: &str, inner: &str) -> bool {
    let mut theirs = inner.split('/');
    for ours in outer.split('/') {
        if ours == "**" {
            // At least one more segment; that may be `**` itself.
            return theirs.next().is_some();
        }
        match theirs.next() {
            None | Some("**") => return false,
            Some(segment) if ours == "*" || ours == segment => {}
            Some(_) => return false,
        }
    }
    theirs.next().is_none()
}

/// Some resource is matched by both patterns.
fn resources_meet(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some("**"), Some(_)) | (Some(_), Some("**")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(permissions: &[&str], resource: &str) -> Grant {
        let permissions: Vec<String> = permissions.iter().map(|p| p.to_string()).collect();
        Grant::new(&permissions, resource, false).unwrap()
    }

    #[test]
    fn a_pattern_matches_what_the_table_says() {
        let table = [
            ("audit.read", "logs/error", "audit.read", "logs/error", true),
            ("audit.read", "logs/error", "audit.read", "logs/Error", false),
            ("audit.read", "logs/error", "audit.write", "logs/error", false),
            ("audit.*", "logs/error", "audit.read", "logs/error", true),
            ("audit.*", "logs/error", "audit", "logs/error", false),
            ("audit.*", "logs/error", "auditor.read", "logs/error", false),
            ("*", "**", "anything.at.all", "any/where", true),
            ("audit.read", "logs/*", "audit.read", "logs/error", true),
            ("audit.read", "logs/*", "audit.read", "logs/error/fatal", false),
            ("audit.read", "logs/**", "audit.read", "logs/error/fatal", true),
            ("audit.read", "logs/**", "audit.read", "logs", false),
            ("audit.read", "*/error", "audit.read", "logs/error", true),
        ];
        for (permission, pattern, asked, resource, expected) in table {
            let g = grant(&[permission], pattern);
            assert_eq!(g.allows(asked, resource), expected, "{g} / {asked} on {resource}");
        }
    }

    #[test]
    fn a_malformed_pattern_is_refused_with_its_reason() {
        let resource = |r: &str| Grant::new(&["a.b".into()], r, false).unwrap_err();
        assert_eq!(resource(""), PatternError::Empty);
        assert_eq!(resource("a//b"), PatternError::ResourceCharacters);
        assert_eq!(resource("a/b c"), PatternError::ResourceCharacters);
        assert_eq!(resource("a/\u{202e}b"), PatternError::ResourceCharacters);
        assert_eq!(resource("a/b*"), PatternError::ResourceStar);
        assert_eq!(resource("**/a"), PatternError::ResourceStar);
        assert_eq!(resource(&"a/".repeat(40)), PatternError::TooManySegments);
        assert_eq!(resource(&"a".repeat(513)), PatternError::TooLong(512));
        let permission = |p: &str| Grant::new(&[p.into()], "a", false).unwrap_err();
        assert_eq!(permission("A.b"), PatternError::PermissionCharacters);
        assert_eq!(permission("a..b"), PatternError::PermissionCharacters);
        assert_eq!(permission("a.*.b"), PatternError::PermissionStar);
        assert_eq!(permission("a*"), PatternError::PermissionStar);
        assert_eq!(permission(".*"), PatternError::PermissionCharacters);
        assert_eq!(Grant::new(&[], "a", false).unwrap_err(), PatternError::PermissionCount);
    }

    #[test]
    fn a_give_only_grant_covers_but_does_not_allow() {
        let give = Grant::new(&["audit.*".into()], "logs/**", true).unwrap();
        assert!(!give.allows("audit.read", "logs/error"));
        assert!(give.covers(&grant(&["audit.read"], "logs/error")));
    }

    #[test]
    fn a_grant_reaches_below_a_prefix_where_the_two_patterns_meet() {
        assert!(grant(&["audit.read"], "logs/error").allows_below("audit.read", "logs"));
        assert!(grant(&["audit.read"], "**").allows_below("audit.read", "logs"));
        assert!(grant(&["audit.read"], "*/error").allows_below("audit.read", "logs"));
        assert!(!grant(&["audit.read"], "keys/**").allows_below("audit.read", "logs"));
        assert!(!grant(&["audit.read"], "logs").allows_below("audit.read", "logs"));
    }

    fn a_resource() -> impl Strategy<Value = String> {
        let segment = prop_oneof![3 => "[ab]", 1 => Just("*".to_string())];
        (prop::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(mut segments, tail)| {
            if tail {
                segments.push("**".into());
            }
            segments.join("/")
        })
    }

    fn a_permission() -> impl Strategy<Value = String> {
        prop_oneof!["[ab](\\.[ab]){0,2}", "[ab](\\.[ab]){0,1}\\.\\*", Just("*".to_string())]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_lies_inside_a_grant_allows_nothing_more(
            outer in (a_permission(), a_resource()), inner in (a_permission(), a_resource()),
            permission in "[ab](\\.[ab]){0,3}", resource in "[ab](/[ab]){0,4}",
        ) {
            let (o, i) = (grant(&[&outer.0], &outer.1), grant(&[&inner.0], &inner.1));
            if o.covers(&i) && i.allows(&permission, &resource) {
                prop_assert!(o.allows(&permission, &resource), "{o} covers {i}");
            }
        }

        #[test]
        fn a_grant_covers_itself(p in a_permission(), r in a_resource()) {
            let g = grant(&[&p], &r);
            prop_assert!(g.covers(&g));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused_without_a_panic(p in ".{0,20}", r in ".{0,20}") {
            let _ = Grant::new(&[p], &r, false);
        }
    }
}
