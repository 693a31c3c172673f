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
        let key = "ledger_id = (SELECT ledger_id FROM ledgers WHERE number = 1) AND key_id =
                   (SELECT min(key_id::text)::uuid FROM keys JOIN ledgers USING (ledger_id) WHERE number = 1)";
        let entry = vandal.at(3);
        for (table, column, r#type, row, why) in [
            ("entries", "signature", Type::Bytes, entry.as_str(), "the signature doesn't match"),
            ("entries", "body", Type::Bytes, &entry, "the signature doesn't match"),
            ("entries", "uses", Type::Bytes, page, "position "),
            ("entries", "time_us", Type::Integer(64, "bigint"), &entry, "time_us"),
            ("keys", "state", Type::Bytes, key, "a projected row differs"),
            ("keys", "mac", Type::Bytes, key, "a projected row differs"),
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
            assert!(
                log.contains("stored data has changed") && log.contains(why),
                "{column}: {log}"
            );
            assert!(replica.stop().await.success());
            bits.flip(&vandal.client, row, 9).await.expect("it goes back");
        }
        vandal.is_good().await;
    });
}

async fn health(replica: &Replica) -> ServingStatus {
    let reply = replica.health().check(HealthCheckRequest::default()).await;
    reply.unwrap().into_inner().status()
}
