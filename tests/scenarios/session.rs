//! A session, as the README shows it.

use keyledger_proto::*;

use crate::harness::*;

#[test]
fn smoke() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let verdict = admin.call(check(&made.token)).await.unwrap();
        println!("{verdict:?}");
        let me = replica.system_admin().call(WhoAmIRequest {}).await.unwrap();
        println!("{me:?}");
    });
}
