//! Classic groups: what each request is answered in each phase, as Kafka's coordinator answers.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{ApiKey, Cluster, Fault, FaultRule, GroupState, error_code as code};
use tokio::time::Instant;

use crate::client::{Client, TOPIC, start};
use crate::group_client::{GROUP, Member, SUBSCRIPTION, text, two};

const SECOND: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    start(|builder| builder.brokers(3).topic(TOPIC, 4, 1))
}

#[tokio::test(start_paused = true)]
async fn a_member_joins_syncs_and_leaves() {
    let cluster = cluster();
    let before = Instant::now();
    let mut member = Member::new(&cluster).named().await;
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, &info.pending[..]), (GroupState::Empty, &[member.id.to_string()][..]));
    assert!(member.id.starts_with("raw-"), "{}", member.id);

    let told = member.join_once().await;
    assert_eq!((told.generation_id, told.leader.clone()), (1, member.id.clone()));
    assert_eq!(told.protocol_name, Some(text("range")));
    assert_eq!(told.members[0].metadata, SUBSCRIPTION);
    assert_eq!(cluster.group(GROUP).expect("a group").state, GroupState::CompletingRebalance);

    let id = member.id.clone();
    let told = member.sync(&[(&id, b"everything"), (&text("stranger"), b"nothing")]).await;
    assert_eq!((told.error_code, &told.assignment[..]), (0, &b"everything"[..]));
    assert_eq!(member.heartbeat().await, 0);
    assert_eq!(before.elapsed(), Duration::ZERO, "nothing waits for more members");

    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.generation, info.rebalances), (GroupState::Stable, 1, 1));
    assert_eq!(info.coordinator, cluster.coordinator(GROUP));
    let one = info.member(&id).expect("a member");
    assert_eq!((one.client_id.as_str(), one.client_host.as_str()), ("raw", "/127.0.0.1"));
    assert_eq!((&one.subscription[..], &one.assignment[..]), (SUBSCRIPTION, &b"everything"[..]));

    assert_eq!(member.leave().await, 0);
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.generation), (GroupState::Empty, 2));
    assert_eq!(member.heartbeat().await, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn two_members_share_and_the_other_gets_all_when_one_leaves() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    assert_eq!((leader.heartbeat().await, other.heartbeat().await), (0, 0));
    assert_eq!(leader.leave().await, 0);
    assert_eq!(other.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    let told = other.join_once().await;
    assert_eq!((told.generation_id, told.leader, told.members.len()), (3, other.id.clone(), 1));
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    Preparing,
    Completing,
    Stable,
}

/// A member of a group in this phase, and whoever else is needed for it.
async fn at(cluster: &Cluster, phase: Phase) -> (Member, Vec<Member>) {
    let mut member = Member::new(cluster);
    match phase {
        Phase::Empty => {
            member = member.settle().await;
            assert_eq!(member.leave().await, 0);
            (member, vec![])
        }
        Phase::Preparing => {
            member = member.settle().await;
            let mut other = Member::new(cluster).named().await;
            other.send_join().await;
            other.client.silent_for(SECOND / 10).await;
            (member, vec![other])
        }
        Phase::Completing => {
            assert_eq!(member.join().await.error_code, 0);
            (member, vec![])
        }
        Phase::Stable => (member.settle().await, vec![]),
    }
}

/// State by request: the member itself, one with a generation of before, and a stranger.
#[tokio::test(start_paused = true)]
async fn every_request_is_answered_by_the_phase_of_its_group() {
    const UNKNOWN: i16 = code::UNKNOWN_MEMBER_ID;
    const ILLEGAL: i16 = code::ILLEGAL_GENERATION;
    const REJOIN: i16 = code::REBALANCE_IN_PROGRESS;
    for (phase, state, heartbeat, sync, commit, old, stranger) in [
        (Phase::Empty, GroupState::Empty, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
        (Phase::Preparing, GroupState::PreparingRebalance, REJOIN, REJOIN, 0, ILLEGAL, UNKNOWN),
        (Phase::Completing, GroupState::CompletingRebalance, 0, 0, REJOIN, ILLEGAL, UNKNOWN),
        (Phase::Stable, GroupState::Stable, 0, 0, 0, ILLEGAL, UNKNOWN),
    ] {
        let cluster = cluster();
        let (mut member, _others) = at(&cluster, phase).await;
        assert_eq!(cluster.group(GROUP).expect("a group").state, state);
        assert_eq!(member.heartbeat().await, heartbeat, "{phase:?}: heartbeat");
        assert_eq!(member.commit(0, 1).await, commit, "{phase:?}: commit");

        let generation = std::mem::replace(&mut member.generation, 0);
        assert_eq!(member.heartbeat().await, old, "{phase:?}: heartbeat of before");
        assert_eq!(member.sync(&[]).await.error_code, old, "{phase:?}: sync of before");
        assert_eq!(member.commit(0, 1).await, old, "{phase:?}: commit of before");
        member.generation = generation;

        let id = std::mem::replace(&mut member.id, text("stranger"));
        assert_eq!(member.heartbeat().await, stranger, "{phase:?}: a stranger's heartbeat");
        assert_eq!(member.sync(&[]).await.error_code, stranger, "{phase:?}: a stranger's sync");
        assert_eq!(member.commit(0, 1).await, stranger, "{phase:?}: a stranger's commit");
        assert_eq!(member.leave().await, stranger, "{phase:?}: a stranger leaves");
        assert_eq!(member.join_once().await.error_code, stranger, "{phase:?}: a stranger joins");
        member.id = id;

        // Somebody without an id commits: only where nobody is in the group.
        let mut nobody = Member::new(&cluster);
        let commit = if phase == Phase::Empty { 0 } else { UNKNOWN };
        assert_eq!(nobody.commit(1, 1).await, commit, "{phase:?}: nobody commits");

        assert_eq!(member.sync(&[]).await.error_code, sync, "{phase:?}: sync");
        assert_eq!(cluster.group(GROUP).expect("a group").generation, {
            if phase == Phase::Empty { 2 } else { 1 }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn who_rejoins_unchanged_is_told_the_same_generation() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    let told = other.join_once().await;
    assert_eq!((told.error_code, told.generation_id, told.members.len()), (0, 2, 0));
    assert_eq!(cluster.group(GROUP).expect("a group").state, GroupState::Stable);
    // A leader wants to assign anew.
    let joining = leader.send_join().await;
    leader.client.silent_for(SECOND).await;
    // And so does who subscribes to something else.
    other.protocols = vec![("range", b"\0\0\0\0\0\0")];
    assert_eq!(other.join_once().await.generation_id, 3);
    assert_eq!(leader.joined(joining).await.members.len(), 2);
    // The answer was lost: it is told again, to the leader with all members.
    assert_eq!(leader.join_once().await.members.len(), 2);
    other.protocols = vec![("range", SUBSCRIPTION)];
    let joining = other.send_join().await;
    other.client.silent_for(SECOND).await;
    assert_eq!(leader.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    assert_eq!(leader.join_once().await.generation_id, 4);
    assert_eq!(other.joined(joining).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_silent_is_out_after_its_session() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    assert_eq!(leader.commit(0, 1).await, 0);
    for _ in 0..4 {
        tokio::time::sleep(3 * SECOND).await;
        let error = leader.heartbeat().await;
        assert!([0, code::REBALANCE_IN_PROGRESS].contains(&error));
    }
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.expired), (GroupState::PreparingRebalance, 1));
    assert_eq!(other.heartbeat().await, code::UNKNOWN_MEMBER_ID);
    assert_eq!(leader.join_once().await.members.len(), 1);
    // Nobody asks for an hour, and nobody has to for time to go on.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.state, info.members.len(), info.expired), (GroupState::Empty, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_rejoin_in_time_is_out_and_the_others_go_on() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    let before = Instant::now();
    other.protocols = vec![("range", b"\0\0\0\0\0\0")];
    let joining = other.send_join().await;
    // The leader is alive and does not join.
    for _ in 0..11 {
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(leader.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    }
    let told = other.joined(joining).await;
    assert_eq!(before.elapsed(), 60 * SECOND, "the longest rebalance timeout");
    assert_eq!((told.leader.clone(), told.members.len()), (other.id.clone(), 1));
    assert_eq!(leader.heartbeat().await, code::UNKNOWN_MEMBER_ID);
    // And who joins and does not sync.
    let id = other.id.clone();
    for _ in 0..11 {
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(other.heartbeat().await, 0);
    }
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(other.sync(&[(&id, b"late")]).await.error_code, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn the_first_rebalance_waits_for_its_delay() {
    let cluster = start(|builder| builder.group_initial_rebalance_delay(3 * SECOND));
    let (mut one, mut two) = (Member::new(&cluster), Member::new(&cluster));
    one = one.named().await;
    two = two.named().await;
    let before = Instant::now();
    let first = one.send_join().await;
    tokio::time::sleep(2 * SECOND).await;
    let second = two.send_join().await;
    assert_eq!(one.joined(first).await.generation_id, 1);
    // One that comes puts it off once more.
    assert_eq!(before.elapsed(), 6 * SECOND);
    assert_eq!(two.joined(second).await.generation_id, 1);
    assert_eq!(cluster.group(GROUP).expect("a group").members.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_protocol_is_chosen_that_all_know_and_most_prefer() {
    let cluster = start(|builder| builder.group_initial_rebalance_delay(SECOND));
    let mut members = Vec::new();
    for protocols in [&["a", "b", "c"][..], &["b", "c"], &["c", "b"], &["d", "c", "b"]] {
        let mut member = Member::new(&cluster);
        member.protocols = protocols.iter().map(|name| (*name, &b"x"[..])).collect();
        member = member.named().await;
        let sent = member.send_join().await;
        members.push((member, sent));
    }
    for (member, sent) in &mut members {
        // a and d are not known to all; two prefer b of what is left, two prefer c.
        let told = member.joined(*sent).await;
        assert!(["b", "c"].contains(&told.protocol_name.expect("a protocol").as_str()));
    }
    let mut stranger = Member::new(&cluster);
    for (kind, protocols, error) in [
        ("consumer", vec![("a", &b""[..])], code::INCONSISTENT_GROUP_PROTOCOL),
        ("consumer", vec![], code::INCONSISTENT_GROUP_PROTOCOL),
        ("connect", vec![("b", b"")], code::INCONSISTENT_GROUP_PROTOCOL),
        ("consumer", vec![("a", b""), ("c", b"")], code::MEMBER_ID_REQUIRED),
    ] {
        stranger.kind = kind;
        stranger.protocols = protocols;
        assert_eq!(stranger.join_once().await.error_code, error);
        stranger.id = StrBytes::new();
    }
    // An empty group takes any kind, but has to be told one.
    let mut first = Member::new(&cluster);
    first.group = GroupId(text("another group"));
    first.client = Client::new(&cluster, cluster.coordinator("another group").expect("one"));
    first.kind = "";
    assert_eq!(first.join_once().await.error_code, code::INCONSISTENT_GROUP_PROTOCOL);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_of_a_member_is_refused() {
    let cluster = cluster();
    let mut member = Member::new(&cluster);
    member.session = 5 * SECOND;
    assert_eq!(member.join_once().await.error_code, code::INVALID_SESSION_TIMEOUT);
    member.session = 1801 * SECOND;
    assert_eq!(member.join_once().await.error_code, code::INVALID_SESSION_TIMEOUT);
    member.session = 1800 * SECOND;
    assert_eq!(member.join_once().await.error_code, code::MEMBER_ID_REQUIRED);
    member.id = text("never given");
    assert_eq!(member.join_once().await.error_code, code::UNKNOWN_MEMBER_ID);
    member.group = GroupId(text(""));
    assert_eq!(member.join_once().await.error_code, code::INVALID_GROUP_ID);
    assert_eq!(member.heartbeat().await, code::INVALID_GROUP_ID);
    assert_eq!(member.sync(&[]).await.error_code, code::INVALID_GROUP_ID);
    assert_eq!(member.leave().await, code::INVALID_GROUP_ID);
    let mut member = Member::new(&cluster).settle().await;
    for (kind, protocol, error) in [
        (None, Some(text("range")), code::INCONSISTENT_GROUP_PROTOCOL),
        (Some(text("consumer")), None, code::INCONSISTENT_GROUP_PROTOCOL),
        (Some(text("connect")), Some(text("range")), code::INCONSISTENT_GROUP_PROTOCOL),
        (Some(text("consumer")), Some(text("sticky")), code::INCONSISTENT_GROUP_PROTOCOL),
        (Some(text("consumer")), Some(text("range")), 0),
    ] {
        let request = member.sync_request(&[]);
        let request = request.with_protocol_type(kind).with_protocol_name(protocol);
        let told = member.client.ask(5, &request).await.expect("an answer");
        assert_eq!(told.error_code, error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_has_room_for_so_many() {
    let cluster = start(|builder| builder.group_max_size(2));
    let (mut leader, mut other) = two(&cluster).await;
    let mut third = Member::new(&cluster);
    assert_eq!(third.join_once().await.error_code, code::GROUP_MAX_SIZE_REACHED);
    assert_eq!((leader.heartbeat().await, other.heartbeat().await), (0, 0));
    assert_eq!(other.leave().await, 0);
    assert_eq!(third.join_once().await.error_code, code::MEMBER_ID_REQUIRED);
    // Who rejoins last is out.
    let joining = third.send_join().await;
    third.client.silent_for(SECOND).await;
    let mut fourth = Member::new(&cluster).named().await;
    let sent = fourth.send_join().await;
    fourth.client.silent_for(SECOND).await;
    assert_eq!(leader.join_once().await.error_code, code::GROUP_MAX_SIZE_REACHED);
    assert_eq!(third.joined(joining).await.error_code, 0);
    assert_eq!(fourth.joined(sent).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_joins_with_are_waited_for_and_forgotten() {
    let cluster = cluster();
    let (mut leader, mut other) = two(&cluster).await;
    let pending = Member::new(&cluster).named().await;
    // A rebalance waits for it.
    let before = Instant::now();
    let joining = leader.send_join().await;
    other.join_once_later().await;
    leader.client.silent_for(9 * SECOND).await;
    leader.joined(joining).await;
    assert_eq!(before.elapsed(), 10 * SECOND, "its session");
    assert!(cluster.group(GROUP).expect("a group").pending.is_empty());
    drop(pending);
    // One that leaves at once is not waited for.
    let mut gone = Member::new(&cluster).named().await;
    assert_eq!(gone.leave().await, 0);
    assert!(cluster.group(GROUP).expect("a group").pending.is_empty());
}

impl Member {
    async fn join_once_later(&mut self) {
        self.send_join().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_old_join_without_an_id_and_leave_alone() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, cluster.coordinator(GROUP).expect("one"));
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(SUBSCRIPTION));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let told = client.ask(0, &request).await.expect("an answer");
    assert_eq!((told.error_code, told.generation_id), (0, 1));
    // Without a rebalance timeout of its own: another one is waited for as long as its session.
    let mut other = Member::new(&cluster).named().await;
    other.rebalance = SECOND;
    let before = Instant::now();
    let joining = other.send_join().await;
    assert_eq!(other.joined(joining).await.generation_id, 2);
    assert_eq!(before.elapsed(), 10 * SECOND);
    let leave = LeaveGroupRequest::default().with_group_id(GroupId(text(GROUP)));
    let leave = leave.with_member_id(told.member_id);
    let told = client.ask(2, &leave).await.expect("an answer");
    assert_eq!(told.error_code, code::UNKNOWN_MEMBER_ID);
    let leave = leave.with_member_id(other.id.clone());
    assert_eq!(client.ask(0, &leave).await.expect("an answer").error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn groups_are_found_listed_and_described() {
    let cluster = cluster();
    let (leader, _other) = two(&cluster).await;
    cluster.set_committed("simple", TOPIC, 0, 3).expect("room");
    let mut anywhere = Client::new(&cluster, 1);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![
        text(GROUP),
        text("simple"),
        text("new"),
    ]);
    let told = anywhere.ask(6, &find).await.expect("an answer").coordinators;
    for (told, key) in told.iter().zip([GROUP, "simple", "new"]) {
        let broker = cluster.coordinator(key).expect("a coordinator");
        let (host, port) = cluster.address(broker).expect("a broker");
        assert_eq!((told.key.as_str(), told.node_id.0, told.error_code), (key, broker, 0));
        assert_eq!((told.host.as_str(), told.port), (host.as_str(), i32::from(port)));
    }
    let mut listed = Vec::new();
    for broker in cluster.broker_ids() {
        let mut client = Client::new(&cluster, broker);
        let request = ListGroupsRequest::default().with_types_filter(vec![text("Classic")]);
        for group in client.ask(5, &request).await.expect("an answer").groups {
            assert_eq!(cluster.coordinator(group.group_id.as_str()), Some(broker));
            listed.push((group.group_id.to_string(), group.group_state.to_string()));
            let kind = if group.group_id.as_str() == GROUP { "consumer" } else { "" };
            assert_eq!(
                (group.protocol_type.as_str(), group.group_type.as_str()),
                (kind, "classic")
            );
        }
        let request = ListGroupsRequest::default().with_types_filter(vec![text("consumer")]);
        assert!(client.ask(5, &request).await.expect("an answer").groups.is_empty());
        let request = ListGroupsRequest::default().with_states_filter(vec![text("Dead")]);
        assert!(client.ask(4, &request).await.expect("an answer").groups.is_empty());
    }
    listed.sort();
    assert_eq!(
        listed,
        [("group", "Stable"), ("simple", "Empty")]
            .map(|(id, state)| { (id.to_owned(), state.to_owned()) })
    );

    let mut client = Client::new(&cluster, cluster.coordinator(GROUP).expect("one"));
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![GroupId(text(GROUP)), GroupId(text("another group"))])
        .with_include_authorized_operations(true);
    let told = client.ask(5, &request).await.expect("an answer").groups;
    assert_eq!((told[0].group_state.as_str(), told[0].protocol_data.as_str()), ("Stable", "range"));
    assert_eq!(told[0].authorized_operations, 1 << 3 | 1 << 6 | 1 << 8);
    let one = told[0].members.iter().find(|one| one.member_id == leader.id).expect("a member");
    assert_eq!((one.client_id.as_str(), one.client_host.as_str()), ("raw", "/127.0.0.1"));
    assert_eq!(
        (&one.member_metadata[..], &one.member_assignment[..]),
        (SUBSCRIPTION, &b"even"[..])
    );
    let there = cluster.coordinator("another group") == cluster.coordinator(GROUP);
    let error = if there { 0 } else { code::NOT_COORDINATOR };
    assert_eq!(told[1].error_code, error);
}

#[tokio::test(start_paused = true)]
async fn faults_of_groups_happen_to_them() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    let rule = |fault| FaultRule::new(fault).api(ApiKey::HEARTBEAT).group(GROUP);
    cluster.faults().inject(rule(Fault::Error(code::NOT_COORDINATOR)).times(2));
    cluster.faults().inject(rule(Fault::Error(code::ILLEGAL_GENERATION)).group("other").always());
    assert_eq!(member.heartbeat().await, code::NOT_COORDINATOR);
    assert_eq!(member.heartbeat().await, code::NOT_COORDINATOR);
    assert_eq!(member.heartbeat().await, 0);
    // Of a partition that this group commits.
    let rule = FaultRule::new(Fault::Error(code::UNKNOWN_SERVER_ERROR)).api(ApiKey::OFFSET_COMMIT);
    cluster.faults().inject(rule.group(GROUP).topic(TOPIC).partition(1));
    assert_eq!(member.commit(0, 5).await, 0);
    assert_eq!(member.commit(1, 5).await, code::UNKNOWN_SERVER_ERROR);
    assert_eq!(member.commit(1, 6).await, 0);
    let before = Instant::now();
    let rule = FaultRule::new(Fault::Delay(SECOND)).api(ApiKey::OFFSET_COMMIT).group(GROUP);
    cluster.faults().inject(rule);
    assert_eq!(member.commit(1, 7).await, 0);
    assert_eq!(before.elapsed(), SECOND);
    // The answer is lost, the commit is not.
    let rule = FaultRule::new(Fault::CutAfterAppend).api(ApiKey::OFFSET_COMMIT).group(GROUP);
    cluster.faults().inject(rule);
    let request = member.commit_request(1, 8);
    member.client.send(9, &request).await.expect("sent");
    member.client.closed().await;
    let committed = cluster.group(GROUP).expect("a group").offsets;
    assert_eq!(committed.iter().map(|one| one.offset).collect::<Vec<_>>(), [5, 8]);
    let rule = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::OFFSET_COMMIT).group(GROUP);
    cluster.faults().inject(rule);
    let mut again = Member::new(&cluster);
    let request = member.commit_request(1, 9);
    again.client.send(9, &request).await.expect("sent");
    again.client.closed().await;
    assert_eq!(cluster.group(GROUP).expect("a group").committed(TOPIC, 1).expect("one").offset, 8);
    let stats = cluster.stats();
    assert_eq!(stats.requests_of(ApiKey::HEARTBEAT), 3);
    assert_eq!(stats.brokers.iter().map(|broker| broker.offsets_committed).sum::<u64>(), 4);
    let broker = stats.broker(cluster.coordinator(GROUP).expect("one")).expect("a broker");
    assert_eq!(broker.requests_of(ApiKey::JOIN_GROUP), 2);
}

/// A JoinGroup that waits keeps the order of its connection, and nobody else waits for it.
#[tokio::test(start_paused = true)]
async fn a_parked_join_holds_up_its_own_connection_only() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    let mut other = Member::new(&cluster).named().await;
    let joining = other.send_join().await;
    let asked =
        other.client.send(0, &kafka_protocol::messages::ApiVersionsRequest::default()).await;
    other.client.silent_for(SECOND).await;
    assert_eq!(member.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    member.send_join().await;
    assert_eq!(other.joined(joining).await.error_code, 0);
    let asked = asked.expect("sent");
    let told = other.client.answer::<kafka_protocol::messages::ApiVersionsRequest>(asked, 0).await;
    assert_eq!(told.expect("an answer").error_code, 0);
}
