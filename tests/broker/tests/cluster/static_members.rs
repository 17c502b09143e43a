//! Members with instance ids (KIP-345): the one that comes back has the place of the one before.

use std::time::Duration;

use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{JoinGroupRequest, LeaveGroupRequest};
use ottla_test_broker::{Cluster, GroupState, error_code as code};

use crate::client::{TOPIC, start};
use crate::group_client::{GROUP, Member, text};

const SECOND: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 4, 1))
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_has_its_place_and_fences_the_one_before() {
    let cluster = cluster();
    let mut before = Member::new(&cluster).instance("a").settle().await;
    assert!(before.id.starts_with("a-"), "an id of its name, at once: {}", before.id);
    let mut after = Member::new(&cluster).instance("a");
    let told = after.join_once().await;
    assert_eq!((told.error_code, told.generation_id), (0, 1), "no rebalance");
    assert_ne!(told.member_id, before.id);
    // It leads, and is told not to assign.
    assert_eq!((told.leader.clone(), told.skip_assignment), (after.id.clone(), true));
    assert_eq!(told.members.len(), 1);
    assert_eq!(after.sync(&[]).await.assignment, &b"all"[..]);
    assert_eq!(before.heartbeat().await, code::FENCED_INSTANCE_ID);
    assert_eq!(before.commit(0, 1).await, code::FENCED_INSTANCE_ID);
    assert_eq!(before.sync(&[]).await.error_code, code::FENCED_INSTANCE_ID);
    assert_eq!(before.join_once().await.error_code, code::FENCED_INSTANCE_ID);
    assert_eq!(before.leave().await, code::FENCED_INSTANCE_ID);
    assert_eq!(after.heartbeat().await, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.members.len(), info.expired), (GroupState::Stable, 1, 0));
    assert_eq!(info.members[0].instance.as_deref(), Some("a"));
    // The session of the id before ends without effect.
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(after.heartbeat().await, 0);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(after.heartbeat().await, 0);
    // An instance that nobody is.
    after.instance = Some(text("b"));
    assert_eq!(after.heartbeat().await, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn clients_that_cannot_skip_are_told_that_the_one_before_leads() {
    let cluster = cluster();
    let before = Member::new(&cluster).instance("a").settle().await;
    let mut after = Member::new(&cluster).instance("a");
    let request = after.join_request();
    let told = after.client.ask::<JoinGroupRequest>(8, &request).await.expect("an answer");
    assert_eq!((told.error_code, told.leader, told.members.len()), (0, before.id, 0));
}

#[tokio::test(start_paused = true)]
async fn a_twin_answers_the_join_that_waits_with_fenced() {
    let cluster = cluster();
    let _leader = Member::new(&cluster).settle().await;
    let mut before = Member::new(&cluster).instance("a");
    let joining = before.send_join().await;
    before.client.silent_for(SECOND).await;
    let mut after = Member::new(&cluster).instance("a");
    let sent = after.send_join().await;
    assert_eq!(before.joined(joining).await.error_code, code::FENCED_INSTANCE_ID);
    after.client.silent_for(SECOND).await;
    let _ = sent;
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_with_other_protocols_makes_a_rebalance() {
    let cluster = cluster();
    let _before = Member::new(&cluster).instance("a").settle().await;
    let mut after = Member::new(&cluster).instance("a");
    after.protocols = vec![("sticky", b"")];
    // It has to know what the group knows.
    assert_eq!(after.join_once().await.error_code, code::INCONSISTENT_GROUP_PROTOCOL);
    after.protocols = vec![("sticky", b""), ("range", b"")];
    let told = after.join_once().await;
    assert_eq!((told.generation_id, told.protocol_name), (2, Some(text("sticky"))));
}

#[tokio::test(start_paused = true)]
async fn static_members_stay_when_they_do_not_rejoin_and_go_with_their_session() {
    let cluster = cluster();
    let mut leader = Member::new(&cluster).settle().await;
    let mut fixed = Member::new(&cluster).instance("a");
    fixed.session = 200 * SECOND;
    let joining = fixed.send_join().await;
    fixed.client.silent_for(SECOND).await;
    leader.join_once().await;
    assert_eq!(fixed.joined(joining).await.error_code, 0);
    let plan = [(&fixed.id.clone(), &b"x"[..]), (&leader.id.clone(), b"y")];
    leader.sync(&plan).await;
    fixed.sync(&[]).await;
    // A third one comes: the static one stays away, and is in the next generation all the same.
    let mut third = Member::new(&cluster).named().await;
    let sent = third.send_join().await;
    third.client.silent_for(SECOND).await;
    let joining = leader.send_join().await;
    let told = leader.joined(joining).await;
    assert_eq!((told.error_code, told.members.len()), (0, 3));
    assert_eq!(third.joined(sent).await.error_code, 0);
    // Whoever does not sync is out, static or not.
    leader.sync(&[]).await;
    third.sync(&[]).await;
    for _ in 0..8 {
        tokio::time::sleep(8 * SECOND).await;
        leader.heartbeat().await;
        third.heartbeat().await;
    }
    let info = cluster.group(GROUP).expect("a group");
    assert!(info.members.iter().all(|member| member.instance.is_none()), "{info:?}");
}

#[tokio::test(start_paused = true)]
async fn an_administrator_takes_members_out_by_their_instances() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).instance("a").settle().await;
    let named = |name: &str| MemberIdentity::default().with_group_instance_id(Some(text(name)));
    let both = named("a").with_member_id(text("not its id"));
    let request = LeaveGroupRequest::default()
        .with_group_id(member.group.clone())
        .with_members(vec![named("b"), both, named("a"), named("a"), MemberIdentity::default()]);
    let told = member.client.ask(4, &request).await.expect("an answer");
    let codes: Vec<i16> = told.members.iter().map(|member| member.error_code).collect();
    const UNKNOWN: i16 = code::UNKNOWN_MEMBER_ID;
    assert_eq!(codes, [UNKNOWN, code::FENCED_INSTANCE_ID, 0, UNKNOWN, UNKNOWN]);
    assert_eq!(told.error_code, 0);
    assert_eq!(cluster.group(GROUP).expect("a group").state, GroupState::Empty);
    assert_eq!(member.heartbeat().await, UNKNOWN);
}
