//! What a statement is called in spans and metrics: read from its text, which never holds a value of a caller.

/// Names of a statement, of low cardinality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// `SELECT`.
    pub(crate) operation: &'static str,
    /// The first table of ours that it names.
    pub(crate) collection: Option<&'static str>,
    /// The function that it is headed by: `entries::append`.
    pub(crate) function: Option<String>,
}

/// What a statement can begin with, or what its first part begins with.
const OPERATIONS: [&str; 12] = [
    "SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK", "CREATE", "VACUUM",
    "DO", "SET", "COPY",
];

/// The tables of both schemas.
const TABLES: [&str; 17] = [
    "anomalies",
    "checkpoints",
    "data_keys",
    "entries",
    "event_counts",
    "event_index_progress",
    "event_terms",
    "forwarders",
    "imported_secrets",
    "key_last_uses",
    "key_secrets",
    "keys",
    "ledgers",
    "projections",
    "requests",
    "tiles",
    "usage_counts",
];

/// For a statement that begins with none of [`OPERATIONS`].
const OTHER: &str = "OTHER";

impl Summary {
    pub(crate) fn of(sql: &str) -> Summary {
        let (function, sql) = without_head(sql);
        let mut words =
            sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        let known = |word: &str| OPERATIONS.iter().find(|o| **o == word).copied();
        let operation = words.by_ref().find_map(known).unwrap_or(OTHER);
        let mut before = operation;
        let collection = words.find_map(|word| {
            let is_target = ["FROM", "JOIN", "INTO", "UPDATE"].contains(&before);
            before = word;
            TABLES.iter().find(|table| is_target && **table == word).copied()
        });
        Summary { operation, collection, function: function.map(str::to_string) }
    }
}

/// The function in the comment at the head, and the statement after it.
fn without_head(sql: &str) -> (Option<&str>, &str) {
    let headed = sql.trim_start().strip_prefix("/* ").and_then(|rest| rest.split_once(" */"));
    headed.map_or((None, sql), |(function, rest)| (Some(function), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate;

    fn summary(sql: &str) -> (&'static str, Option<&'static str>, Option<String>) {
        let Summary { operation, collection, function } = Summary::of(sql);
        (operation, collection, function)
    }

    #[test]
    fn a_statement_is_named_by_its_operation_its_first_table_and_its_function() {
        for (sql, operation, collection, function) in [
            ("/* Database::ping */ SELECT 1", "SELECT", None, Some("Database::ping")),
            ("COMMIT", "COMMIT", None, None),
            ("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL x = on", "BEGIN", None, None),
            (
                "/* entries::append */\n INSERT INTO entries (ledger_id) SELECT $1, * FROM unnest($2::bigint[])",
                "INSERT",
                Some("entries"),
                Some("entries::append"),
            ),
            (
                "/* requests::known */ SELECT r.digest FROM unnest($2::uuid[]) AS a (caller)\n JOIN requests r ON true",
                "SELECT",
                Some("requests"),
                Some("requests::known"),
            ),
            (
                "/* a::b */ WITH RECURSIVE halving (low) AS (SELECT 0 UNION ALL SELECT 1 FROM halving h, LATERAL (
                 SELECT position FROM entries)) SELECT low FROM halving",
                "SELECT",
                Some("entries"),
                Some("a::b"),
            ),
            (
                "/* a::b */ WITH moved AS (\n UPDATE event_index_progress SET next_position = $3) SELECT count(*) FROM moved",
                "UPDATE",
                Some("event_index_progress"),
                Some("a::b"),
            ),
            ("GRANT keys TO anybody", "OTHER", None, None),
        ] {
            let function = function.map(str::to_string);
            assert_eq!(summary(sql), (operation, collection, function), "{sql}");
        }
    }

    #[test]
    fn every_table_of_the_schemas_is_known() {
        let mut tables: Vec<String> = vec![];
        for schema in [&migrate::LEDGER, &migrate::SEALING] {
            for sql in schema.statements() {
                let made = sql.split("CREATE TABLE ").skip(1);
                tables.extend(made.filter_map(|t| t.split([' ', '(']).next()).map(str::to_string));
            }
        }
        tables.sort();
        assert_eq!(tables, TABLES);
    }
}
