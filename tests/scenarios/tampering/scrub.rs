//! What a running replica does when somebody changes what it has taken long ago: nobody asks for it, and it is found.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::*;

#[test]
fn what_is_changed_under_a_running_replica_is_found_by_itself() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        let page = "ledger_id = (SELECT ledger_id FROM ledgers WHERE number = 1) AND position =
                    (SELECT min(position) FROM entries JOIN ledgers USING (ledger_id) WHERE number = 1 AND use_count > 0)";
        let entry = vandal.at(3);
        for (table, column, r#type, row, why) in [
            ("entries", "signature", Type::Bytes, entry.as_str(), "the signature doesn't match"),
            ("entries", "body", Type::Bytes, &entry, "the signature doesn't match"),
            ("entries", "uses", Type::Bytes, page, "position "),
            ("entries", "time_us", Type::Integer(64, "bigint"), &entry, "time_us"),
        ] {
            let replica = d.replica().await;
            assert_eq!(health(&replica).await, ServingStatus::Serving);
            let bits = Bits { table, column, r#type };
            bits.flip(&vandal.client, row, 9).await.expect("bits of this type can be anything");
            while health(&replica).await != ServingStatus::NotServing {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let call = replica.admin().call(WhoAmIRequest {}).await;
            refused(call).with(Code::FailedPrecondition, ErrorReason::LedgerStopped);
            replica.system_admin().call(WhoAmIRequest {}).await.expect("ledger 0 is good");
            let log = replica.log();
            for said in ["it is read once more", "stored data has changed", why] {
                assert!(log.contains(said), "{column}: {log}");
            }
            assert!(replica.stop().await.success());
            bits.flip(&vandal.client, row, 9).await.expect("it goes back");
        }
        vandal.is_good().await;
    });
}

#[test]
fn a_row_of_a_key_that_is_changed_or_gone_is_named_once_and_the_ledger_is_served_on() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        let key = |which: &str| {
            format!("(ledger_id, key_id) = (SELECT ledger_id, {which}(key_id::text)::uuid FROM keys JOIN ledgers USING (ledger_id)
                                            WHERE number = 1 GROUP BY ledger_id)")
        };
        let (newest, oldest) = (key("max"), key("min"));
        let keep =
            format!("CREATE TEMPORARY TABLE good AS SELECT * FROM keys WHERE {newest} OR {oldest}");
        vandal.run(&keep).await;
        for change in [
            format!("UPDATE keys SET state = state || '\\x00' WHERE {newest}"),
            format!("UPDATE keys SET mac = sha256(mac) WHERE {newest}"),
            format!("DELETE FROM keys WHERE {newest}"),
        ] {
            let replica = d.replica().await;
            vandal.run(&change).await;
            let named = || replica.log().matches("the projected row of a key").count();
            while named() == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // It stands beside the other: whoever names it has met the other again.
            vandal.run(&format!("UPDATE keys SET mac = sha256(mac) WHERE {oldest}")).await;
            while named() == 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            replica.admin().call(WhoAmIRequest {}).await.expect("the ledger is served on");
            assert_eq!(health(&replica).await, ServingStatus::Serving);
            assert!(replica.stop().await.success());
            assert_eq!(named(), 2, "{change}: {}", replica.log());
            vandal.run("DELETE FROM keys k USING good g WHERE (k.ledger_id, k.key_id) = (g.ledger_id, g.key_id)").await;
            vandal.run("INSERT INTO keys SELECT * FROM good").await;
        }
        vandal.is_good().await;
    });
}

async fn health(replica: &Replica) -> ServingStatus {
    let reply = replica.health().check(HealthCheckRequest::default()).await;
    reply.unwrap().into_inner().status()
}
