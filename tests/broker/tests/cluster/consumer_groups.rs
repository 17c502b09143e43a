//! Groups of the next generation (KIP-848), as Kafka's coordinator has them.

use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DescribeGroupsRequest, GroupId, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{
    Acls, Allowed, ApiKey, Cluster, Fault, FaultRule, GroupKind, GroupState, error_code as code,
};
use uuid::Uuid;

use crate::client::{Client, TOPIC, start, topic};
use crate::group_client::{GROUP, Member, text};

const SECOND: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    start(|builder| builder.brokers(3).topic(TOPIC, 4, 1))
}

/// A member that does nothing on its own.
pub(crate) struct Next {
    client: Client,
    pub(crate) id: StrBytes,
    pub(crate) epoch: i32,
    pub(crate) instance: Option<StrBytes>,
    pub(crate) topics: Option<Vec<&'static str>>,
    pub(crate) regex: Option<&'static str>,
    assignor: Option<&'static str>,
    /// What it has been told to have.
    pub(crate) assigned: Vec<i32>,
}

impl Next {
    pub(crate) fn new(cluster: &Cluster, id: &str) -> Self {
        let broker = cluster.coordinator(GROUP).expect("a coordinator");
        Self {
            client: Client::new(cluster, broker),
            id: text(id),
            epoch: 0,
            instance: None,
            topics: Some(vec![TOPIC]),
            regex: None,
            assignor: None,
            assigned: Vec::new(),
        }
    }

    fn instance(self, name: &str) -> Self {
        Self { instance: Some(text(name)), ..self }
    }

    /// A full request.
    pub(crate) fn request(&self, cluster: &Cluster) -> ConsumerGroupHeartbeatRequest {
        let topics = self.topics.as_ref().map(|topics| {
            topics.iter().map(|name| TopicName(text(name))).collect::<Vec<TopicName>>()
        });
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(self.id.clone())
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance.clone())
            .with_rebalance_timeout_ms(60_000)
            .with_subscribed_topic_names(topics)
            .with_subscribed_topic_regex(self.regex.map(StrBytes::from_static_str))
            .with_server_assignor(self.assignor.map(StrBytes::from_static_str))
            .with_topic_partitions(Some(self.owned(cluster, &self.assigned)))
    }

    fn owned(&self, cluster: &Cluster, partitions: &[i32]) -> Vec<TopicPartitions> {
        let id = id_of(cluster, TOPIC);
        let owned = TopicPartitions::default().with_topic_id(id);
        if partitions.is_empty() {
            vec![]
        } else {
            vec![owned.with_partitions(partitions.to_vec())]
        }
    }

    async fn send(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let told = self.client.ask(1, request).await.expect("an answer");
        if told.error_code == 0 {
            self.epoch = told.member_epoch;
            if let Some(assignment) = &told.assignment {
                let topics = assignment.topic_partitions.iter();
                self.assigned = topics.flat_map(|topic| topic.partitions.clone()).collect();
            }
        }
        told
    }

    /// With epoch 0: joins.
    pub(crate) async fn full(&mut self, cluster: &Cluster) -> ConsumerGroupHeartbeatResponse {
        let request = self.request(cluster);
        self.send(&request).await
    }

    /// Nothing has changed with it.
    pub(crate) async fn beat(&mut self) -> ConsumerGroupHeartbeatResponse {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(self.id.clone())
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance.clone())
            .with_rebalance_timeout_ms(-1);
        self.send(&request).await
    }

    /// It says what it has.
    pub(crate) async fn owns(
        &mut self,
        cluster: &Cluster,
        partitions: &[i32],
    ) -> ConsumerGroupHeartbeatResponse {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(self.id.clone())
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance.clone())
            .with_rebalance_timeout_ms(-1)
            .with_topic_partitions(Some(self.owned(cluster, partitions)));
        self.send(&request).await
    }

    pub(crate) async fn leave(&mut self, epoch: i32) -> i16 {
        self.epoch = epoch;
        let told = self.beat().await;
        self.epoch = 0;
        self.assigned.clear();
        told.error_code
    }
}

fn id_of(cluster: &Cluster, topic: &str) -> Uuid {
    cluster.topics().into_iter().find(|(name, _)| name == topic).expect("a topic").1
}

fn state(cluster: &Cluster) -> (GroupState, i32, i32) {
    let info = cluster.group(GROUP).expect("a group");
    (info.state, info.generation, info.assignment_epoch)
}

#[tokio::test(start_paused = true)]
async fn members_take_over_what_others_have_given_up() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one");
    let told = one.full(&cluster).await;
    assert_eq!((told.error_code, told.member_epoch, &one.assigned[..]), (0, 1, &[0, 1, 2, 3][..]));
    assert_eq!((told.member_id.as_ref(), told.heartbeat_interval_ms), (Some(&one.id), 5000));
    assert_eq!(state(&cluster), (GroupState::Stable, 1, 1));
    // As before: no assignment is told.
    assert_eq!(one.beat().await.assignment, None);

    let mut two = Next::new(&cluster, "two");
    let told = two.full(&cluster).await;
    assert_eq!((told.member_epoch, &two.assigned[..]), (2, &[][..]), "nothing is free yet");
    assert_eq!(state(&cluster), (GroupState::Reconciling, 2, 2));
    // One is to give up, and stays in its epoch until it says that it has.
    assert_eq!((one.beat().await.member_epoch, &one.assigned[..]), (1, &[0, 1][..]));
    assert_eq!(one.beat().await.assignment, None);
    assert_eq!(one.owns(&cluster, &[0, 1, 2]).await.member_epoch, 1);
    assert_eq!(two.beat().await.assignment, None);
    assert_eq!(one.owns(&cluster, &[0, 1]).await.member_epoch, 2);
    assert_eq!((two.beat().await.member_epoch, &two.assigned[..]), (2, &[2, 3][..]));
    assert_eq!(state(&cluster), (GroupState::Stable, 2, 2));

    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.kind, info.protocol.as_deref()), (GroupKind::Consumer, Some("uniform")));
    let member = info.member("two").expect("a member");
    let has: Vec<_> =
        member.partitions.iter().map(|(topic, index)| (topic.as_str(), *index)).collect();
    assert_eq!((has, member.epoch, member.is_classic), (vec![(TOPIC, 2), (TOPIC, 3)], 2, false));
    assert_eq!(member.target, member.partitions);

    // Who goes leaves all at once to those that are there.
    assert_eq!(two.leave(-1).await, 0);
    assert_eq!(state(&cluster), (GroupState::Assigning, 3, 2));
    assert_eq!((one.beat().await.member_epoch, &one.assigned[..]), (3, &[0, 1, 2, 3][..]));
    assert_eq!(one.leave(-1).await, 0);
    assert_eq!(state(&cluster).0, GroupState::Empty);
    assert_eq!(one.leave(-1).await, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn what_no_member_may_say_is_invalid() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one");
    let request = one.request(&cluster);
    let empty = || Some(text(""));
    for (wrong, request) in [
        ("no group", request.clone().with_group_id(GroupId(text("")))),
        ("no member", request.clone().with_member_id(text(""))),
        ("an empty instance", request.clone().with_instance_id(empty())),
        ("an empty rack", request.clone().with_rack_id(empty())),
        ("no rebalance timeout", request.clone().with_rebalance_timeout_ms(-1)),
        ("no subscription", request.clone().with_subscribed_topic_names(None)),
        ("an empty one", request.clone().with_subscribed_topic_names(Some(vec![]))),
        ("no partitions", request.clone().with_topic_partitions(None)),
        ("some partitions", request.clone().with_topic_partitions(Some(one.owned(&cluster, &[1])))),
        ("an epoch of nobody", request.clone().with_member_epoch(-3)),
        ("a dynamic one that will be back", request.clone().with_member_epoch(-2)),
    ] {
        let told = one.send(&request).await;
        assert_eq!(told.error_code, code::INVALID_REQUEST, "{wrong}: {:?}", told.error_message);
    }
    let told = one.send(&request.clone().with_server_assignor(Some(text("mine")))).await;
    assert_eq!(told.error_code, code::UNSUPPORTED_ASSIGNOR);
    for regex in ["(", "a)|(b", "[z-a]"] {
        let request = request.clone().with_subscribed_topic_regex(Some(text(regex)));
        assert_eq!(
            one.send(&request).await.error_code,
            code::INVALID_REGULAR_EXPRESSION,
            "{regex}"
        );
    }
    assert!(cluster.group(GROUP).is_none(), "nothing is left of it");
    // Version 0 gives ids.
    let unnamed = request.clone().with_member_id(text(""));
    let told = one.client.ask(0, &unnamed).await.expect("an answer");
    assert_eq!((told.error_code, told.member_id.map(|id| id.len())), (0, Some(36)));
}

#[tokio::test(start_paused = true)]
async fn epochs_fence() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one");
    one.epoch = 1;
    assert_eq!(one.full(&cluster).await.error_code, code::GROUP_ID_NOT_FOUND);
    one.epoch = 0;
    one.full(&cluster).await;
    let mut two = Next::new(&cluster, "two");
    two.epoch = 1;
    assert_eq!(two.full(&cluster).await.error_code, code::UNKNOWN_MEMBER_ID);
    two.epoch = 0;
    two.full(&cluster).await;
    one.beat().await;
    one.owns(&cluster, &[0, 1]).await;
    assert_eq!((one.epoch, &one.assigned[..]), (2, &[0, 1][..]));
    // Its epoch before passes if it shows that it has nothing that it may not have.
    for (epoch, owned, error) in [
        (3, Some(&[0][..]), code::FENCED_MEMBER_EPOCH),
        (1, None, code::FENCED_MEMBER_EPOCH),
        (1, Some(&[0, 1, 2]), code::FENCED_MEMBER_EPOCH),
        (1, Some(&[0, 1]), 0),
        (2, None, 0),
        (2, Some(&[0, 1, 2, 3]), 0),
    ] {
        one.epoch = epoch;
        let told = match owned {
            Some(owned) => one.owns(&cluster, owned).await,
            None => one.beat().await,
        };
        assert_eq!(told.error_code, error, "{epoch}, {owned:?}");
    }
    // Who begins anew under its id is told what it has.
    one.epoch = 0;
    one.assigned.clear();
    let told = one.full(&cluster).await;
    assert_eq!((told.error_code, told.member_epoch, &one.assigned[..]), (0, 2, &[0, 1][..]));

    let older = start(|builder| builder.topic(TOPIC, 4, 1).fences_rejoining_members(true));
    let mut one = Next::new(&older, "one");
    one.full(&older).await;
    one.beat().await;
    one.epoch = 0;
    one.assigned.clear();
    assert_eq!(one.full(&older).await.error_code, 0, "its epoch before was 0");
    let mut two = Next::new(&older, "two");
    two.full(&older).await;
    one.epoch = 1;
    one.beat().await;
    one.owns(&older, &[0, 1]).await;
    one.epoch = 0;
    one.assigned.clear();
    assert_eq!(one.full(&older).await.error_code, code::FENCED_MEMBER_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn static_members_go_for_a_while_and_are_released_by_themselves_only() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one").instance("a");
    one.full(&cluster).await;
    let mut twin = Next::new(&cluster, "twin").instance("a");
    assert_eq!(twin.full(&cluster).await.error_code, code::UNRELEASED_INSTANCE_ID);
    assert_eq!(one.beat().await.error_code, 0, "the one that is there stays");
    assert_eq!(one.leave(-2).await, 0);
    let member = cluster.group(GROUP).expect("a group").members.remove(0);
    assert_eq!((member.epoch, member.partitions.len()), (-2, 4), "it keeps what it has");
    // It is back under another id: no new epoch of the group.
    let told = twin.full(&cluster).await;
    assert_eq!((told.error_code, told.member_epoch, twin.assigned.len()), (0, 1, 4));
    assert_eq!(state(&cluster), (GroupState::Stable, 1, 1));
    one.epoch = 1;
    assert_eq!(one.beat().await.error_code, code::FENCED_INSTANCE_ID);
    assert_eq!(one.leave(-1).await, code::FENCED_INSTANCE_ID);
    let mut stranger = Next::new(&cluster, "stranger").instance("b");
    stranger.epoch = 1;
    assert_eq!(stranger.beat().await.error_code, code::UNKNOWN_MEMBER_ID);
    // One that does not come back is out after its session.
    assert_eq!(twin.leave(-2).await, 0);
    tokio::time::sleep(44 * SECOND).await;
    assert_eq!(cluster.group(GROUP).expect("a group").members.len(), 1);
    tokio::time::sleep(SECOND).await;
    let info = cluster.group(GROUP).expect("a group");
    assert_eq!((info.members.len(), info.expired), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn silence_and_slowness_end_a_membership() {
    let cluster =
        start(|builder| builder.topic(TOPIC, 4, 1).consumer_group_timing(30 * SECOND, 3 * SECOND));
    let mut one = Next::new(&cluster, "one");
    assert_eq!(one.full(&cluster).await.heartbeat_interval_ms, 3000);
    let mut two = Next::new(&cluster, "two");
    two.full(&cluster).await;
    // One is alive, and does not give up what it has to.
    for _ in 0..20 {
        assert_eq!(one.beat().await.error_code, 0);
        assert_eq!(two.beat().await.error_code, 0);
        tokio::time::sleep(3 * SECOND).await;
    }
    assert_eq!(one.beat().await.error_code, code::UNKNOWN_MEMBER_ID, "60 s to rebalance");
    assert_eq!((two.beat().await.error_code, two.assigned.len()), (0, 4));
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(two.beat().await.error_code, code::UNKNOWN_MEMBER_ID);
    assert_eq!(cluster.group(GROUP).expect("a group").expired, 2);
    cluster.set_committed(GROUP, TOPIC, 0, 1).expect("room");
    two.epoch = 0;
    two.assigned.clear();
    two.full(&cluster).await;
    cluster.expire_member(GROUP, "two").expect("a member");
    assert_eq!(two.beat().await.error_code, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn topics_that_come_grow_and_go_are_noticed() {
    let cluster = start(|builder| {
        builder.topic("log-a", 1, 1).topic("log-b", 1, 1).topic("a-log-c", 1, 1).topic(TOPIC, 4, 1)
    });
    let mut one = Next::new(&cluster, "one");
    one.topics = None;
    one.regex = Some("log-.");
    assert_eq!(one.full(&cluster).await.error_code, 0);
    let has = || {
        let info = cluster.group(GROUP).expect("a group");
        let has = info.members[0].partitions.iter();
        has.map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>()
    };
    assert_eq!(has(), ["log-a-0", "log-b-0"], "the whole name has to match");
    cluster.create_topic("log-d", 1, 1).expect("a topic");
    cluster.create_topic("log-dd", 1, 1).expect("a topic");
    cluster.create_partitions("log-a", 2).expect("a topic");
    assert_eq!(one.beat().await.member_epoch, 2);
    assert_eq!(has(), ["log-a-0", "log-a-1", "log-b-0", "log-d-0"]);
    cluster.delete_topic("log-b").expect("a topic");
    let told = one.beat().await;
    // It has to give it up first, there or not.
    assert_eq!(told.member_epoch, 2);
    let request = one.request(&cluster).with_subscribed_topic_names(Some(vec![]));
    one.send(&request.with_topic_partitions(Some(vec![]))).await;
    assert_eq!(one.epoch, 3);
    assert_eq!(has(), ["log-a-0", "log-a-1", "log-d-0"]);
    // A topic made anew is another one.
    cluster.delete_topic("log-d").expect("a topic");
    cluster.create_topic("log-d", 1, 1).expect("a topic");
    one.beat().await;
    let request = one.request(&cluster).with_subscribed_topic_names(Some(vec![]));
    one.send(&request.clone().with_topic_partitions(Some(vec![]))).await;
    assert_eq!((one.epoch, has()), (4, vec!["log-a-0".into(), "log-a-1".into(), "log-d-0".into()]));
    // Names and an expression together; and neither of what was.
    let names = Some(vec![topic(), TopicName(text("nowhere"))]);
    let request = request.with_subscribed_topic_names(names).with_member_epoch(4);
    one.send(&request.with_subscribed_topic_regex(Some(text("")))).await;
    assert_eq!(one.beat().await.error_code, 0);
    let request = one.request(&cluster).with_subscribed_topic_names(Some(vec![topic()]));
    one.send(&request.with_subscribed_topic_regex(None).with_topic_partitions(Some(vec![]))).await;
    assert_eq!(has().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_assignor_is_what_most_ask_for() {
    let cluster = cluster();
    let (mut one, mut two) = (Next::new(&cluster, "one"), Next::new(&cluster, "two").instance("z"));
    one.assignor = Some("range");
    two.assignor = Some("range");
    one.full(&cluster).await;
    two.full(&cluster).await;
    // A static member comes first.
    one.beat().await;
    one.owns(&cluster, &[2, 3]).await;
    two.beat().await;
    assert_eq!((&one.assigned[..], &two.assigned[..]), (&[2, 3][..], &[0, 1][..]));
    assert_eq!(cluster.group(GROUP).expect("a group").protocol.as_deref(), Some("range"));
}

#[tokio::test(start_paused = true)]
async fn commits_are_of_members_in_their_epochs() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one");
    one.full(&cluster).await;
    let mut speaker = Member::new(&cluster);
    let unknown = code::UNKNOWN_MEMBER_ID;
    let stale = code::STALE_MEMBER_EPOCH;
    for (id, epoch, error) in [
        ("one", 1, 0),
        ("one", 0, stale),
        ("one", 2, stale),
        ("two", 1, unknown),
        ("", -1, unknown),
    ] {
        speaker.id = text(id);
        speaker.generation = epoch;
        assert_eq!(speaker.commit(0, 7).await, error, "{id} in {epoch}");
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id((!id.is_empty()).then(|| text(id)))
            .with_member_epoch(epoch)
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let told = speaker.client.ask(9, &request).await.expect("an answer");
        // Who is no member may see it all the same.
        let error = if id.is_empty() { 0 } else { error };
        assert_eq!(told.groups[0].error_code, error, "{id} in {epoch}");
    }
    speaker.id = text("one");
    speaker.generation = 1;
    let request = speaker.commit_request(0, 8);
    let told = speaker.client.ask(8, &request).await.expect("an answer");
    assert_eq!(told.topics[0].partitions[0].error_code, code::UNSUPPORTED_VERSION);
    assert_eq!(one.leave(-1).await, 0);
    speaker.id = text("");
    speaker.generation = -1;
    assert_eq!(speaker.commit(0, 9).await, 0, "nobody is in the group");
}

#[tokio::test(start_paused = true)]
async fn groups_are_described_by_their_own_request_alone() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one").instance("a");
    one.full(&cluster).await;
    let ids = || vec![GroupId(text(GROUP))];
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(ids());
    let told = one.client.ask(1, &request).await.expect("an answer").groups.remove(0);
    assert_eq!((told.error_code, told.group_state.as_str()), (0, "Stable"));
    assert_eq!((told.group_epoch, told.assignment_epoch), (1, 1));
    assert_eq!(told.assignor_name.as_str(), "uniform");
    let member = &told.members[0];
    assert_eq!((member.member_id.as_str(), member.member_epoch), ("one", 1));
    assert_eq!(member.subscribed_topic_names, [topic()]);
    let topics = &member.assignment.topic_partitions;
    assert_eq!((topics[0].topic_name.as_str(), topics[0].partitions.len()), (TOPIC, 4));
    assert_eq!(&member.target_assignment, &member.assignment);
    let request = DescribeGroupsRequest::default().with_groups(ids());
    let told = one.client.ask(6, &request).await.expect("an answer").groups.remove(0);
    assert_eq!((told.error_code, told.group_state.as_str()), (code::GROUP_ID_NOT_FOUND, "Dead"));

    let other = self::cluster();
    let mut classic = Member::new(&other).settle().await;
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(ids());
    let told = classic.client.ask(0, &request).await.expect("an answer").groups.remove(0);
    assert_eq!(told.error_code, code::GROUP_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_the_coordinator_moves() {
    let cluster = cluster();
    let (mut one, mut two) = (Next::new(&cluster, "one"), Next::new(&cluster, "two"));
    one.full(&cluster).await;
    two.full(&cluster).await;
    one.beat().await;
    let next = cluster.coordinator(GROUP).expect("a coordinator") % 3 + 1;
    cluster.move_coordinator(GROUP, next).expect("a broker");
    assert_eq!(one.beat().await.error_code, code::NOT_COORDINATOR);
    one.client = Client::new(&cluster, next);
    two.client = Client::new(&cluster, next);
    assert_eq!(one.owns(&cluster, &[0, 1]).await.member_epoch, 2);
    assert_eq!((two.beat().await.error_code, &two.assigned[..]), (0, &[2, 3][..]));
    cluster.remove_coordinator(GROUP);
    assert_eq!(one.beat().await.error_code, code::NOT_COORDINATOR);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_before_has_no_such_groups() {
    let features = |cluster: &Cluster| {
        let mut client = Client::new(cluster, 1);
        async move {
            let request = ApiVersionsRequest::default()
                .with_client_software_name(text("test"))
                .with_client_software_version(text("1"));
            let mut told = Vec::new();
            for version in [3, 4] {
                let answer = client.ask(version, &request).await.expect("an answer");
                let finalized = answer.finalized_features.iter();
                let levels: Vec<i16> = finalized.map(|one| one.max_version_level).collect();
                told.push((answer.supported_features.len(), levels));
            }
            told
        }
    };
    let now = cluster();
    assert_eq!(features(&now).await, [(0, vec![1]), (1, vec![1])]);
    let before = start(|builder| builder.topic(TOPIC, 4, 1).consumer_groups(false));
    assert_eq!(features(&before).await, [(0, vec![]), (1, vec![])]);
    let mut one = Next::new(&before, "one");
    assert_eq!(one.full(&before).await.error_code, code::UNSUPPORTED_VERSION);
    let older = start(|builder| builder.max_version(ApiKey::CONSUMER_GROUP_HEARTBEAT, -1));
    let mut one = Next::new(&older, "one");
    one.topics = None;
    let request = ConsumerGroupHeartbeatRequest::default();
    one.client.send(1, &request).await.expect("sent");
    one.client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn rights_and_faults_are_those_of_groups() {
    let cluster = cluster();
    let mut one = Next::new(&cluster, "one");
    for (allowed, error) in [
        (Allowed::new(), code::GROUP_AUTHORIZATION_FAILED),
        (Allowed::new().group(GROUP), code::TOPIC_AUTHORIZATION_FAILED),
        (Allowed::new().group(GROUP).describe(TOPIC), 0),
    ] {
        cluster.set_acls(Some(Acls::new().allow("ANONYMOUS", allowed)));
        one.epoch = 0;
        one.assigned.clear();
        assert_eq!(one.full(&cluster).await.error_code, error);
    }
    let rule = FaultRule::new(Fault::ErrorAfterAppend(code::COORDINATOR_NOT_AVAILABLE));
    cluster.faults().inject(rule.api(ApiKey::CONSUMER_GROUP_HEARTBEAT).group(GROUP));
    let mut two = Next::new(&cluster, "two");
    assert_eq!(two.full(&cluster).await.error_code, code::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(cluster.group(GROUP).expect("a group").members.len(), 2, "it has joined");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_full_at_its_bound() {
    let cluster = start(|builder| builder.topic(TOPIC, 4, 1).group_max_size(1));
    let (mut one, mut two) = (Next::new(&cluster, "one"), Next::new(&cluster, "two"));
    assert_eq!(one.full(&cluster).await.error_code, 0);
    assert_eq!(two.full(&cluster).await.error_code, code::GROUP_MAX_SIZE_REACHED);
    assert_eq!(one.full(&cluster).await.error_code, 0);
}
