//! Who watches the watchmen: what every scenario ends with does find what it looks for.

use std::panic::catch_unwind;

use crate::harness::*;

/// What a scenario fails with, which it must.
fn failure_of(story: impl AsyncFnOnce(&Deployment) + std::panic::UnwindSafe) -> String {
    let failure = catch_unwind(|| scenario(story)).expect_err("the scenario fails");
    *failure.downcast::<String>().expect("a panic with a message")
}

#[test]
fn a_secret_in_a_table_is_found() {
    let failure = failure_of(async |d| {
        let admin = d.replica().await.admin();
        admin.call(service_key("named-in-the-clear", vec![])).await.unwrap();
        d.secrets.text("a name", "named-in-the-clear");
    });
    assert!(failure.contains("a name in entries.body"), "{failure}");
    assert!(failure.contains("a name in keys.state"), "{failure}");
    assert!(!failure.contains("in-the-clear"), "and not told again: {failure}");
}

#[test]
fn a_secret_in_a_log_is_found() {
    let failure = failure_of(async |d| {
        let replica = d.replica().await;
        d.secrets.text("an address", &replica.address);
    });
    assert!(failure.contains("an address in /") && failure.contains(".stdout"), "{failure}");
}

#[test]
fn a_secret_in_raw_bytes_is_found() {
    let failure = failure_of(async |d| {
        let client = d.sealing_superuser().await;
        let row = client.query_one("SELECT wrapped_key FROM data_keys LIMIT 1", &[]).await.unwrap();
        d.secrets.bytes("a key", row.get(0));
    });
    assert!(failure.contains("a key in data_keys.wrapped_key"), "{failure}");
}

#[test]
fn damage_that_nobody_announced_is_found() {
    let failure = failure_of(async |d| {
        d.replica().await.admin().call(user_key("alice@example.com")).await.unwrap();
        let client = d.superuser().await;
        let damage = "SET session_replication_role = replica; ALTER TABLE keys DISABLE TRIGGER ALL;
                      UPDATE keys SET state = state || '\\x00'::bytea";
        client.batch_execute(damage).await.unwrap();
    });
    assert!(failure.contains("doesn't verify"), "{failure}");
}

#[test]
fn damage_that_was_announced_and_is_not_there_is_missed() {
    let failure = failure_of(async |d| {
        d.replica().await;
        d.expect_damage("default");
    });
    assert!(failure.contains("was not found"), "{failure}");
}
