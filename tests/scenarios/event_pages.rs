//! Lists of events in pages: each event once, newest first, whether or not the index of uses has come so far.

use std::time::Duration;

use keyledger_ledger::id::KeyId;
use keyledger_proto::*;

use crate::harness::*;

/// Every address of a list of events, page by page.
async fn addresses(admin: &Caller, request: &ListEventsRequest) -> Vec<(u64, Option<u32>)> {
    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let page = admin.call(ListEventsRequest { page_token, ..request.clone() }).await.unwrap();
        assert!(page.events.len() <= request.page_size as usize);
        found.extend(page.events.iter().map(|e| (e.position.unwrap(), e.index)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

fn newest_first(records: &[Record], keep: impl Fn(&Record) -> bool) -> Vec<(u64, Option<u32>)> {
    records.iter().rev().filter(|record| keep(record)).map(Record::address).collect()
}

fn is_about(record: &Record, id: KeyId) -> bool {
    match record {
        Record::Change { event, .. } => {
            let link = event.kind.as_ref().and_then(|kind| kind.key_link());
            link.is_some_and(|link| link.key_id == id.as_bytes())
        }
        Record::Use { r#use, .. } => r#use.key_id == id.as_bytes(),
    }
}

/// Compares the lists of a ledger with what it holds, in pages of several sizes.
async fn compare(d: &Deployment, admin: &Caller, key_id: &str) {
    let id = KeyId::parse(key_id).unwrap();
    for page_size in [1000, 7] {
        let all = ListEventsRequest { page_size, ..Default::default() };
        let records = d.records(1).await;
        let by_key = ListEventsRequest { key_id: key_id.into(), ..all.clone() };
        let expected = newest_first(&records, |r| is_about(r, id));
        assert_eq!(addresses(admin, &by_key).await, expected);
        let changes = ListEventsRequest { category: "keyledger/lifecycle".into(), ..all.clone() };
        let expected = newest_first(&records, |r| matches!(r, Record::Change { .. }));
        assert_eq!(addresses(admin, &changes).await, expected);
        // The list's own reads come on top of what was there before.
        let (found, expected) = (addresses(admin, &all).await, newest_first(&records, |_| true));
        assert_eq!(found[found.len() - expected.len()..], expected);
    }
}

/// Waits until the index of uses covers all that ledger 1 holds now.
pub(crate) async fn until_indexed(d: &Deployment) {
    let client = d.superuser().await;
    let size = "SELECT count(*) FROM entries e JOIN ledgers l USING (ledger_id) WHERE l.number = 1";
    let size: i64 = client.query_one(size, &[]).await.unwrap().get(0);
    let covered = "SELECT FROM event_index_progress p JOIN ledgers l USING (ledger_id)
                   WHERE l.number = 1 AND p.next_position >= $1";
    while client.query(covered, &[&size]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn pages_of_events_hold_each_event_once_newest_first() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let other = admin.call(user_key("bob@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        // More pages of uses than one call looks at, some with many uses.
        for _ in 0..70 {
            admin.call(check(&made.token)).await.unwrap();
        }
        let many = (0..40).map(|i| {
            let token = if i % 4 == 0 { &made.token } else { &other.token };
            let (admin, request) = (admin.clone(), check(token));
            tokio::spawn(async move { admin.call(request).await.unwrap() })
        });
        for call in many.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        compare(d, &admin, &key_id).await;
        until_indexed(d).await;
        compare(d, &admin, &key_id).await;
        // Some that the index has, and some that it doesn't yet.
        for _ in 0..5 {
            admin.call(check(&made.token)).await.unwrap();
        }
        compare(d, &admin, &key_id).await;
    });
}
