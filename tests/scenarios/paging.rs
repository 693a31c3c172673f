//! Lists in pages: together they hold everything once, in order (AIP-158).

use keyledger_proto::*;

use crate::harness::*;
use crate::past::without_uses;

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
                let page = admin
                    .call(ListKeysRequest { page_size, page_token, ..Default::default() })
                    .await
                    .unwrap();
                assert!(page.keys.len() <= page_size as usize);
                keys.extend(page.keys);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            // Each page is a use of the admin's key.
            let (keys, all) = (without_uses(keys), without_uses(all.keys.clone()));
            assert_eq!(keys, all, "in pages of {page_size}");
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
                .call(OpenLedgerRequest {
                    name,
                    reason,
                    request_id: String::new(),
                    ..Default::default()
                })
                .await
                .unwrap();
        }
        let (mut names, mut page_token) = (vec![], String::new());
        loop {
            let page = admin.call(ListRolesRequest { page_size: 2, page_token }).await.unwrap();
            let own = page.roles.into_iter().filter(|role| !role.predefined);
            names.extend(own.map(|role| role.name));
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
