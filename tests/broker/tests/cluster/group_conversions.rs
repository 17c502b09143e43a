//! Groups whose members change from one protocol to the other while they stay.

use std::time::Duration;

use ottla_test_broker::{Cluster, GroupKind, GroupState, error_code as code};

use crate::client::{TOPIC, start};
use crate::consumer_groups::Next;
use crate::group_client::{GROUP, Member, SUBSCRIPTION};

const SECOND: Duration = Duration::from_secs(1);

/// Partitions 0 to 3 of the topic, as a leader writes them.
const ALL: &[u8] =
    b"\0\0\0\0\0\x01\0\x05topic\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\xff\xff\xff\xff";
/// The first two and the last two, as the coordinator writes them.
const FIRST: &[u8] = b"\0\0\0\0\0\x01\0\x05topic\0\0\0\x02\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
/// A subscription that says what the member has: partitions 0 and 1.
const HAS_FIRST: &[u8] = b"\0\x01\0\0\0\x01\0\x05topic\xff\xff\xff\xff\
    \0\0\0\x01\0\x05topic\0\0\0\x02\0\0\0\0\0\0\0\x01";

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 4, 1))
}

async fn classic(cluster: &Cluster, assignment: &'static [u8]) -> Member {
    let mut member = Member::new(cluster);
    assert_eq!(member.join().await.error_code, 0);
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, assignment)]).await.error_code, 0);
    member
}

#[tokio::test(start_paused = true)]
async fn a_classic_group_goes_on_with_a_member_of_the_next_generation() {
    let cluster = cluster();
    let mut old = classic(&cluster, ALL).await;
    assert_eq!(old.commit(0, 42).await, 0);
    let mut new = Next::new(&cluster, "new");
    let told = new.full(&cluster).await;
    // Its epoch is the next one; what is there is not taken from anybody.
    assert_eq!((told.error_code, told.member_epoch, new.assigned.len()), (0, 2, 0));
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.kind, info.state), (GroupKind::Consumer, GroupState::Reconciling));
    assert!(info.member(&old.id).expect("a member").is_classic);
    assert_eq!(info.committed(TOPIC, 0).expect("an offset").offset, 42);

    // The classic member is sent to rejoin, and is given what it is to have at each step.
    assert_eq!(old.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    assert_eq!(old.sync(&[]).await.error_code, code::REBALANCE_IN_PROGRESS);
    assert_eq!(old.commit(0, 43).await, 0);
    let told = old.join_once().await;
    assert_eq!((told.error_code, told.members.len(), told.leader.len()), (0, 0, 0));
    assert_eq!(told.generation_id, 2, "eager: it says that it has nothing");
    assert_eq!(old.sync(&[]).await.assignment, FIRST);
    assert_eq!(old.heartbeat().await, 0);
    assert_eq!((new.beat().await.member_epoch, &new.assigned[..]), (2, &[2, 3][..]));

    // A cooperative one gives up first.
    let mut third = Next::new(&cluster, "third");
    third.full(&cluster).await;
    old.protocols = vec![("range", HAS_FIRST)];
    assert_eq!(old.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    let told = old.join_once().await;
    let gives_up = told.generation_id == 2;
    assert_eq!(old.sync(&[]).await.error_code, 0);
    if gives_up {
        assert_eq!(old.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    }
    // Who leaves as a classic member is gone.
    assert_eq!(old.leave().await, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.members.len(), info.kind), (2, GroupKind::Consumer));
}

#[tokio::test(start_paused = true)]
async fn the_last_of_the_next_generation_leaves_a_classic_group() {
    let cluster = cluster();
    let mut old = classic(&cluster, ALL).await;
    let mut new = Next::new(&cluster, "new");
    new.full(&cluster).await;
    assert_eq!(old.join_once().await.error_code, 0);
    assert_eq!(old.sync(&[]).await.error_code, 0);
    assert_eq!(new.leave(-1).await, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.kind, info.state), (GroupKind::Classic, GroupState::PreparingRebalance));
    assert_eq!(old.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    let told = old.join_once().await;
    assert_eq!((told.error_code, told.leader, told.members.len()), (0, old.id.clone(), 1));
    let id = old.id.clone();
    assert_eq!(old.sync(&[(&id, ALL)]).await.assignment, ALL);
    // And so does one whose session is over.
    let mut new = Next::new(&cluster, "new");
    new.full(&cluster).await;
    assert_eq!(cluster.group(GROUP).expect("a group").kind, GroupKind::Consumer);
    old.join_once().await;
    old.sync(&[]).await;
    for _ in 0..9 {
        tokio::time::sleep(5 * SECOND).await;
        old.heartbeat().await;
    }
    assert_eq!(cluster.group(GROUP).expect("a group").kind, GroupKind::Classic);
}

#[tokio::test(start_paused = true)]
async fn a_classic_member_that_does_not_rejoin_or_sync_is_out() {
    let cluster = cluster();
    let mut old = classic(&cluster, ALL).await;
    let mut new = Next::new(&cluster, "new");
    new.full(&cluster).await;
    for _ in 0..13 {
        tokio::time::sleep(5 * SECOND).await;
        old.heartbeat().await;
        new.beat().await;
    }
    assert_eq!(old.heartbeat().await, code::UNKNOWN_MEMBER_ID, "60 s to join");
    assert_eq!(new.beat().await.error_code, 0);
    assert_eq!(new.assigned.len(), 4);
    // It joins a group of the next generation, and does not sync.
    let mut again = Member::new(&cluster);
    assert_eq!(again.join().await.error_code, 0);
    for _ in 0..13 {
        tokio::time::sleep(5 * SECOND).await;
        again.heartbeat().await;
        let has = new.assigned.clone();
        new.owns(&cluster, &has).await;
    }
    assert_eq!(cluster.group(GROUP).expect("a group").members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_on_is_refused() {
    let not_found = code::GROUP_ID_NOT_FOUND;
    // No consumers; an assignor of the client's own; no subscription at all.
    let other = cluster();
    let mut connect = Member::new(&other);
    connect.kind = "connect";
    let _connect = connect.settle().await;
    assert_eq!(Next::new(&other, "new").full(&other).await.error_code, not_found);
    let own = cluster();
    let data = b"\0\0\0\0\0\0\0\0\0\x01x";
    let _member = classic(&own, data).await;
    assert_eq!(Next::new(&own, "new").full(&own).await.error_code, not_found);
    assert_eq!(own.group(GROUP).expect("a group").kind, GroupKind::Classic);
    let odd = cluster();
    let mut member = Member::new(&odd);
    member.protocols = vec![("range", b"?")];
    let _member = member.settle().await;
    assert_eq!(Next::new(&odd, "new").full(&odd).await.error_code, not_found);
    // Only one that joins makes it another group.
    let there = cluster();
    let _member = classic(&there, ALL).await;
    let mut new = Next::new(&there, "new");
    new.epoch = 1;
    assert_eq!(new.full(&there).await.error_code, not_found);
    // And in the other direction: no protocol that others know.
    let mut new = Next::new(&there, "new");
    assert_eq!(new.full(&there).await.error_code, 0);
    let mut strange = Member::new(&there);
    strange.protocols = vec![("sticky", SUBSCRIPTION)];
    assert_eq!(strange.join_once().await.error_code, code::INCONSISTENT_GROUP_PROTOCOL);
}

#[tokio::test(start_paused = true)]
async fn empty_groups_are_of_whatever_kind_comes() {
    let cluster = cluster();
    let mut old = classic(&cluster, ALL).await;
    assert_eq!(old.commit(0, 1).await, 0);
    assert_eq!(old.leave().await, 0);
    let mut new = Next::new(&cluster, "new");
    assert_eq!(new.full(&cluster).await.member_epoch, 1);
    assert_eq!(new.leave(-1).await, 0);
    let mut old = Member::new(&cluster);
    assert_eq!(old.join().await.generation_id, 1);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.kind, info.offsets.len()), (GroupKind::Classic, 1), "offsets stay");
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_a_classic_group_is_told_to_join_again() {
    let cluster = cluster();
    let mut old = classic(&cluster, ALL).await;
    let mut other = Member::new(&cluster).named().await;
    let joining = other.send_join().await;
    other.client.silent_for(SECOND).await;
    let mut new = Next::new(&cluster, "new");
    assert_eq!(new.full(&cluster).await.error_code, 0);
    assert_eq!(other.joined(joining).await.error_code, code::REBALANCE_IN_PROGRESS);
    assert_eq!(other.join_once().await.error_code, 0);
    assert_eq!(old.join_once().await.error_code, 0);
    assert_eq!(cluster.group(GROUP).expect("a group").members.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_static_member_is_replaced_across_protocols() {
    let cluster = cluster();
    let mut old = Member::new(&cluster).instance("a");
    assert_eq!(old.join().await.error_code, 0);
    let id = old.id.clone();
    assert_eq!(old.sync(&[(&id, ALL)]).await.error_code, 0);
    let mut new = Next::new(&cluster, "new");
    new.instance = Some(crate::group_client::text("a"));
    let told = new.full(&cluster).await;
    assert_eq!((told.error_code, new.assigned.len()), (0, 4), "it has what the one before had");
    assert_eq!(old.heartbeat().await, code::FENCED_INSTANCE_ID);
    // And back: the last of the new protocol is replaced.
    let mut back = Member::new(&cluster).instance("a");
    assert_eq!(back.join_once().await.error_code, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.kind, info.state), (GroupKind::Classic, GroupState::Stable));
    assert_eq!(back.heartbeat().await, 0);
    assert_eq!(back.sync(&[]).await.assignment, ALL);
}
