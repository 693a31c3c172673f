//! Lists in pages: together they hold everything once, in order (AIP-158).

use keyledger_proto::*;

use crate::harness::*;

#[test]
fn pages_of_keys_hold_each_key_once() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        for i in 0..7 {
            admin.call(user_key(&format!("user{i}@example.com"))).await.unwrap();
        }
        let all = admin.call(ListKeysRequest::default()).await.unwrap();
        assert_eq!(
            (all.keys.len(), all.next_page_token.as_str()),
            (8, ""),
            "the admin's and seven"
        );
        assert!(all.keys.windows(2).all(|pair| pair[0].key_id < pair[1].key_id));
        for page_size in [1, 3, 4, 8, 9] {
            let (mut keys, mut page_token) = (vec![], String::new());
            loop {
                let page = admin.call(ListKeysRequest { page_size, page_token }).await.unwrap();
                assert!(page.keys.len() <= page_size as usize);
                keys.extend(page.keys);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(keys, all.keys, "in pages of {page_size}");
        }
    });
}

#[test]
fn pages_of_roles_and_ledgers_hold_each_once() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (admin, system) = (replica.admin(), replica.system_admin());
        for i in [3, 1, 2, 5, 4] {
            admin
                .call(role(&format!("role-{i}"), vec![grant("audit.read", "logs/*")]))
                .await
                .unwrap();
            let reason = "a new tenant".to_string();
            let name = format!("tenant-{i}");
            system
                .call(OpenLedgerRequest { name, reason, request_id: String::new() })
                .await
                .unwrap();
        }
        let (mut names, mut page_token) = (vec![], String::new());
        loop {
            let page = admin.call(ListRolesRequest { page_size: 2, page_token }).await.unwrap();
            names.extend(page.roles.into_iter().map(|role| role.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(names, ["role-1", "role-2", "role-3", "role-4", "role-5"]);

        let (mut numbers, mut page_token) = (vec![], String::new());
        loop {
            let page = system.call(ListLedgersRequest { page_size: 3, page_token }).await.unwrap();
            numbers.extend(page.ledgers.into_iter().map(|ledger| ledger.number));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    });
}

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

#[test]
fn pages_of_events_hold_each_event_once_newest_first() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let other = admin.call(user_key("bob@example.com")).await.unwrap();
        // More pages of uses than one call looks at, some with many uses.
        for _ in 0..70 {
            admin.call(check(&made.token)).await.unwrap();
        }
        let many = (0..40).map(|_| {
            let (admin, request) = (admin.clone(), check(&other.token));
            tokio::spawn(async move { admin.call(request).await.unwrap() })
        });
        for call in many.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let expected = |keep: &dyn Fn(&Record) -> bool, records: &[Record]| {
            let address = |r: &Record| match r {
                Record::Change { position, .. } => (*position, None),
                Record::Use { position, index, .. } => (*position, Some(*index)),
            };
            let mut all: Vec<_> = records.iter().filter(|r| keep(r)).map(address).collect();
            all.reverse();
            all
        };
        let key_id = made.key.unwrap().key_id;
        let id = keyledger_ledger::id::KeyId::parse(&key_id).unwrap();
        let about_it = |record: &Record| match record {
            Record::Change { event, .. } => {
                event.kind.as_ref().unwrap().key_link().is_some_and(|l| l.key_id == id.as_bytes())
            }
            Record::Use { r#use, .. } => r#use.key_id == id.as_bytes(),
        };
        for page_size in [1000, 7] {
            let records = d.records(1).await;
            let begin = records.len();
            let by_key =
                ListEventsRequest { key_id: key_id.clone(), page_size, ..Default::default() };
            assert_eq!(addresses(&admin, &by_key).await, expected(&about_it, &records));
            let changes = ListEventsRequest {
                category: "keyledger/lifecycle".into(),
                page_size,
                ..Default::default()
            };
            let is_change = |record: &Record| matches!(record, Record::Change { .. });
            assert_eq!(addresses(&admin, &changes).await, expected(&is_change, &records));
            // The list's own reads are newer than its first page shows, so only what was there before is compared.
            let everything = ListEventsRequest { page_size, ..Default::default() };
            let found = addresses(&admin, &everything).await;
            let old = expected(&|_| true, &records);
            assert_eq!(found[found.len() - begin..], old);
        }
    });
}
