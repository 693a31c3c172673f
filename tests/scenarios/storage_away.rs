//! Postgres away or frozen, as one replica sees it: nothing is allowed, callers are told to come back, and no restart is
//! needed afterwards.

use keyledger_proto::entry::Decision;
use keyledger_proto::*;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use uuid::Uuid;

use crate::harness::*;

/// Waits until health says this.
async fn wait_for_health(replica: &Replica, wanted: ServingStatus) {
    let request = HealthCheckRequest { service: "keyledger.v1.KeyService".into() };
    let mut changes = replica.health().watch(request).await.unwrap().into_inner();
    while changes.message().await.unwrap().expect("it goes on for ever").status != wanted as i32 {}
}

/// Nothing is allowed, whoever asks for whatever; a retry helps.
async fn refuses_everything(replica: &Replica, token: &str, key_id: &str) {
    // Should the server be late, the client itself would give another status.
    let admin = replica.admin().with_header("grpc-timeout", "4S");
    comes_back(admin.call(check(token)).await);
    comes_back(admin.call(ListKeysRequest::default()).await);
    comes_back(admin.call(ListEventsRequest::default()).await);
    comes_back(admin.call(WhoAmIRequest {}).await);
    comes_back(admin.call(revoke(key_id)).await);
    comes_back(replica.anonymous().with_header("grpc-timeout", "4S").call(WhoAmIRequest {}).await);
}

#[track_caller]
fn comes_back<T>(result: Result<T, Status>) {
    let refusal = refused(result);
    assert_eq!(refusal.code, Code::Unavailable, "{refusal:?}");
    assert!(refusal.retry, "{refusal:?}");
}

async fn a_story_of_absence(d: &Deployment, go: fn(&Link)) {
    let link = Link::new(d);
    let replica = d.replica_on(&link.databases).await;
    let admin = replica.admin();
    let made = admin.call(user_key("alice@example.com")).await.unwrap();
    let key_id = made.key.unwrap().key_id;
    wait_for_health(&replica, ServingStatus::Serving).await;

    go(&link);
    refuses_everything(&replica, &made.token, &key_id).await;
    wait_for_health(&replica, ServingStatus::NotServing).await;
    let create =
        CreateKeyRequest { request_id: Uuid::new_v4().to_string(), ..user_key("bob@example.com") };
    comes_back(admin.with_header("grpc-timeout", "2S").call(create.clone()).await);

    link.restore();
    wait_for_health(&replica, ServingStatus::Serving).await;
    let second = admin.call(create.clone()).await.unwrap();
    assert_eq!(admin.call(create).await.unwrap().position, second.position);
    let keys = admin.call(ListKeysRequest::default()).await.unwrap().keys;
    assert_eq!(keys.len(), 3, "the admin's, alice's and, once, bob's");
    let other = d.replica().await;
    let answer = other.admin().call(check(&made.token)).await.unwrap();
    let same = admin.call(check(&made.token)).await.unwrap();
    assert_eq!(answer.decision(), same.decision());
}

#[test]
fn while_postgres_is_away_nothing_is_allowed_and_callers_are_told_to_come_back() {
    scenario(async |d| a_story_of_absence(d, Link::cut).await);
}

#[test]
fn while_postgres_is_frozen_nothing_is_allowed_and_callers_are_told_to_come_back() {
    scenario(async |d| a_story_of_absence(d, Link::freeze).await);
}

#[test]
fn one_replica_without_postgres_does_not_disturb_another() {
    scenario(async |d| {
        let link = Link::new(d);
        let (near, far) = (d.replica().await, d.replica_on(&link.databases).await);
        let made = near.admin().call(user_key("alice@example.com")).await.unwrap();
        link.freeze();
        comes_back(far.admin().with_header("grpc-timeout", "2S").call(check(&made.token)).await);
        near.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        link.restore();
        wait_for_health(&far, ServingStatus::Serving).await;
        let answer = far.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(answer.decision(), Decision::Deny, "what it missed, it has caught up with");
    });
}
