//! Coordinators that move, stop and start: what is answered meanwhile, and what is left of a group.

use std::time::Duration;

use kafka_protocol::messages::{FindCoordinatorRequest, ListGroupsRequest};
use ottla_test_broker::{Cluster, GroupState, Leaders, error_code as code};

use crate::client::{Client, TOPIC, start};
use crate::group_client::{GROUP, Member, text, two};

const SECOND: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    start(|builder| builder.brokers(3).topic(TOPIC, 4, 1).coordinator_load_time(2 * SECOND))
}

/// The same member, at the coordinator that there is now.
fn follow(cluster: &Cluster, member: Member) -> Member {
    Member { client: Member::new(cluster).client, ..member }
}

fn next(cluster: &Cluster) -> i32 {
    cluster.coordinator(GROUP).expect("a coordinator") % 3 + 1
}

#[tokio::test(start_paused = true)]
async fn a_stable_group_survives_with_its_generation_and_offsets() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    assert_eq!(leader.commit(0, 42).await, 0);
    let to = next(&cluster);
    cluster.move_coordinator(GROUP, to).expect("a broker");
    assert_eq!(cluster.coordinator(GROUP), Some(to));

    const NOT: i16 = code::NOT_COORDINATOR;
    assert_eq!(leader.heartbeat().await, NOT);
    assert_eq!(leader.commit(0, 43).await, NOT);
    assert_eq!(leader.committed(0).await, (NOT, 0, -1));
    assert_eq!(leader.leave().await, NOT);
    assert_eq!(leader.join_once().await.error_code, NOT);
    assert_eq!(other.sync(&[]).await.error_code, NOT);

    (leader, other) = (follow(&cluster, leader), follow(&cluster, other));
    const LOADS: i16 = code::COORDINATOR_LOAD_IN_PROGRESS;
    assert_eq!(leader.heartbeat().await, 0, "heartbeats are not refused for that");
    assert_eq!(leader.commit(0, 43).await, LOADS);
    assert_eq!(leader.committed(0).await, (LOADS, 0, -1));
    assert_eq!(leader.join_once().await.error_code, LOADS);
    let list = ListGroupsRequest::default();
    assert_eq!(leader.client.ask(4, &list).await.expect("an answer").error_code, LOADS);

    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(leader.committed(0).await, (0, 0, 42));
    assert_eq!((leader.heartbeat().await, other.heartbeat().await), (0, 0));
    assert_eq!(other.sync(&[]).await.assignment, &b"odd"[..]);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.generation, info.members.len()), (GroupState::Stable, 2, 2));
    // Sessions begin anew where it is loaded.
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(leader.heartbeat().await, 0);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(other.heartbeat().await, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_lost_and_the_generation_before_is_back() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    // A rebalance in the middle of its join phase.
    let joining = leader.send_join().await;
    let mut new = Member::new(&cluster).named().await;
    let third = new.send_join().await;
    new.client.silent_for(SECOND).await;
    cluster.move_coordinator(GROUP, next(&cluster)).expect("a broker");
    assert_eq!(leader.joined(joining).await.error_code, code::NOT_COORDINATOR);
    assert_eq!(new.joined(third).await.error_code, code::NOT_COORDINATOR);
    tokio::time::sleep(2 * SECOND).await;
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.generation, info.members.len()), (GroupState::Stable, 2, 2));
    other = follow(&cluster, other);
    assert_eq!(other.heartbeat().await, 0);
    // The id that was given is not known there.
    new = follow(&cluster, new);
    assert_eq!(new.join_once().await.error_code, code::UNKNOWN_MEMBER_ID);

    // And in its sync phase.
    leader = follow(&cluster, leader);
    let joining = leader.send_join().await;
    assert_eq!(other.join_once().await.error_code, 0);
    assert_eq!(leader.joined(joining).await.generation_id, 3);
    let syncing = other.send_sync(&[]).await;
    other.client.silent_for(SECOND).await;
    cluster.move_coordinator(GROUP, next(&cluster)).expect("a broker");
    assert_eq!(other.synced(syncing).await.error_code, code::NOT_COORDINATOR);
    tokio::time::sleep(2 * SECOND).await;
    leader = follow(&cluster, leader);
    assert_eq!(leader.sync(&[]).await.error_code, code::ILLEGAL_GENERATION);
    leader.generation = 2;
    assert_eq!(leader.heartbeat().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_loses_its_groups_to_the_next_one() {
    let cluster = cluster();
    let member = Member::new(&cluster).settle().await;
    let first = cluster.coordinator(GROUP).expect("a coordinator");
    cluster.stop_broker(first, Leaders::Move).expect("a broker");
    let second = cluster.coordinator(GROUP).expect("a coordinator");
    assert_eq!(second, first % 3 + 1);
    tokio::time::sleep(2 * SECOND).await;
    let mut member = follow(&cluster, member);
    assert_eq!(member.heartbeat().await, 0);
    // The one before is there again, and does not take back.
    cluster.start_broker(first).expect("a broker");
    assert_eq!(cluster.coordinator(GROUP), Some(second));
    assert_eq!(member.heartbeat().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_nobody_notices_keeps_the_coordinator_where_it_was() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    member.send_join().await;
    let broker = cluster.coordinator(GROUP).expect("a coordinator");
    cluster.stop_broker(broker, Leaders::Keep).expect("a broker");
    member.client.closed().await;
    let mut anywhere = Client::new(&cluster, broker % 3 + 1);
    let find = FindCoordinatorRequest::default().with_key(text(GROUP));
    let told = anywhere.ask(3, &find).await.expect("an answer");
    assert_eq!((told.error_code, told.node_id.0), (0, broker), "it is named still");
    // While it is down no session ends.
    tokio::time::sleep(3600 * SECOND).await;
    cluster.start_broker(broker).expect("a broker");
    let mut member = follow(&cluster, member);
    assert_eq!(member.commit(0, 1).await, code::COORDINATOR_LOAD_IN_PROGRESS);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(member.commit(0, 1).await, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.generation, info.members.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_broker_that_could_there_is_no_coordinator() {
    let cluster = cluster();
    let mut anywhere = Client::new(&cluster, 1);
    let find = FindCoordinatorRequest::default().with_key(text(GROUP));
    let batch = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
    cluster.remove_coordinator(GROUP);
    let told = anywhere.ask(2, &find).await.expect("an answer");
    assert_eq!((told.error_code, told.node_id.0), (code::COORDINATOR_NOT_AVAILABLE, -1));
    let told = anywhere.ask(4, &batch).await.expect("an answer");
    assert_eq!(told.coordinators[0].error_code, code::COORDINATOR_NOT_AVAILABLE);
    cluster.move_coordinator(GROUP, 2).expect("a broker");
    assert_eq!(anywhere.ask(2, &find).await.expect("an answer").node_id.0, 2);
    for broker in cluster.broker_ids() {
        cluster.fence_broker(broker).expect("a broker");
    }
    assert_eq!(cluster.coordinator(GROUP), None);
    cluster.unfence_broker(3).expect("a broker");
    assert_eq!(cluster.coordinator(GROUP), Some(3));
    // A broker that knows nothing of the cluster names nobody.
    cluster.forget_cluster(1).expect("a broker");
    let told = anywhere.ask(2, &find).await.expect("an answer");
    assert_eq!(told.error_code, code::COORDINATOR_NOT_AVAILABLE);
    // Other kinds of coordinators will never be found.
    for kind in [2, 7, -1] {
        let request = batch.clone().with_key_type(kind);
        let told = anywhere.ask(6, &request).await.expect("an answer");
        assert_eq!(told.coordinators[0].error_code, code::INVALID_REQUEST, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_cluster_knows_no_groups() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    member.send_join().await;
    cluster.replace("another").expect("topics");
    member.client.closed().await;
    assert!(cluster.group(GROUP).is_none());
}
