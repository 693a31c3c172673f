//! Categories: what one may be allowed to read of the log. Those below `keyledger/` are built in; those of recorded events
//! are named by the services that record them.

use crate::body::{Event, Kind, Use, UsePage};

/// Every change.
pub const LIFECYCLE: &str = "keyledger/lifecycle";
/// Every use of a key, apart from those by which the log was read.
pub const USE: &str = "keyledger/use";
/// Every use of a key by which the log was read.
pub const ACCESS: &str = "keyledger/access";

/// Methods that write to the log. All others of their service read it.
const WRITES: [&str; 2] = ["AuditService/RecordEvents", "AuditService/RecordEventStream"];

/// Whether a use was made to read the log.
pub fn is_access(u: &Use) -> bool {
    u.method.starts_with("AuditService/") && !WRITES.contains(&u.method.as_str())
}

/// The category of a use. A page that doesn't count accesses was written before they had a category of their own.
pub fn of_use(page: &UsePage, u: &Use) -> &'static str {
    if page.accesses.is_some() && is_access(u) { ACCESS } else { USE }
}

/// The category of an entry that is no page of uses.
pub fn of_entry(event: &Event) -> &str {
    match &event.kind {
        Some(Kind::EventRecorded(recorded)) => &recorded.category,
        _ => LIFECYCLE,
    }
}
