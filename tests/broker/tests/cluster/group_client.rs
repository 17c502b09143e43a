//! A member that does nothing on its own.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{Cluster, error_code as code};

use crate::client::{Client, topic};

pub(crate) const GROUP: &str = "group";
pub(crate) const JOIN_VERSION: i16 = 9;
pub(crate) const SYNC_VERSION: i16 = 5;
pub(crate) const HEARTBEAT_VERSION: i16 = 4;
pub(crate) const LEAVE_VERSION: i16 = 5;
pub(crate) const COMMIT_VERSION: i16 = 9;
pub(crate) const FETCH_VERSION: i16 = 9;

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A subscription to the topic, as consumers write it.
pub(crate) const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x05topic\xff\xff\xff\xff";

pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) group: GroupId,
    pub(crate) id: StrBytes,
    pub(crate) instance: Option<StrBytes>,
    pub(crate) generation: i32,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) kind: &'static str,
    pub(crate) protocols: Vec<(&'static str, &'static [u8])>,
}

impl Member {
    /// One of the group, at its coordinator.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let broker = cluster.coordinator(GROUP).expect("a coordinator");
        Self {
            client: Client::new(cluster, broker),
            group: GroupId(text(GROUP)),
            id: StrBytes::new(),
            instance: None,
            generation: -1,
            session: Duration::from_secs(10),
            rebalance: Duration::from_secs(60),
            kind: "consumer",
            protocols: vec![("range", SUBSCRIPTION)],
        }
    }

    pub(crate) fn instance(self, name: &str) -> Self {
        Self { instance: Some(text(name)), ..self }
    }

    pub(crate) fn join_request(&self) -> JoinGroupRequest {
        let protocols = self.protocols.iter().map(|(name, metadata)| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(Bytes::from_static(metadata))
        });
        JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_session_timeout_ms(self.session.as_millis() as i32)
            .with_rebalance_timeout_ms(self.rebalance.as_millis() as i32)
            .with_protocol_type(text(self.kind))
            .with_protocols(protocols.collect())
    }

    /// Asks for an id, if there is none yet.
    pub(crate) async fn named(mut self) -> Self {
        let told = self.join_once().await;
        assert_eq!(told.error_code, code::MEMBER_ID_REQUIRED);
        self
    }

    /// One JoinGroup and its answer.
    pub(crate) async fn join_once(&mut self) -> JoinGroupResponse {
        let sent = self.send_join().await;
        self.joined(sent).await
    }

    pub(crate) async fn send_join(&mut self) -> i32 {
        let request = self.join_request();
        self.client.send(JOIN_VERSION, &request).await.expect("sent")
    }

    pub(crate) async fn joined(&mut self, sent: i32) -> JoinGroupResponse {
        let told = self.client.answer::<JoinGroupRequest>(sent, JOIN_VERSION).await;
        let told = told.expect("an answer");
        if told.error_code == 0 || told.error_code == code::MEMBER_ID_REQUIRED {
            self.id = told.member_id.clone();
        }
        if told.error_code == 0 {
            self.generation = told.generation_id;
        }
        told
    }

    /// Joins as clients do: with an id.
    pub(crate) async fn join(&mut self) -> JoinGroupResponse {
        let told = self.join_once().await;
        if told.error_code == code::MEMBER_ID_REQUIRED { self.join_once().await } else { told }
    }

    pub(crate) fn sync_request(&self, plan: &[(&StrBytes, &'static [u8])]) -> SyncGroupRequest {
        let assignments = plan.iter().map(|(id, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id((*id).clone())
                .with_assignment(Bytes::from_static(assignment))
        });
        SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(Some(text(self.kind)))
            .with_protocol_name(Some(text(self.protocols[0].0)))
            .with_assignments(assignments.collect())
    }

    pub(crate) async fn send_sync(&mut self, plan: &[(&StrBytes, &'static [u8])]) -> i32 {
        let request = self.sync_request(plan);
        self.client.send(SYNC_VERSION, &request).await.expect("sent")
    }

    pub(crate) async fn synced(&mut self, sent: i32) -> SyncGroupResponse {
        let told = self.client.answer::<SyncGroupRequest>(sent, SYNC_VERSION).await;
        told.expect("an answer")
    }

    pub(crate) async fn sync(&mut self, plan: &[(&StrBytes, &'static [u8])]) -> SyncGroupResponse {
        let sent = self.send_sync(plan).await;
        self.synced(sent).await
    }

    /// Alone in the group, it joins and gives itself something.
    pub(crate) async fn settle(mut self) -> Self {
        assert_eq!(self.join().await.error_code, 0);
        let id = self.id.clone();
        assert_eq!(self.sync(&[(&id, b"all")]).await.error_code, 0);
        self
    }

    pub(crate) async fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.client.ask(HEARTBEAT_VERSION, &request).await.expect("an answer").error_code
    }

    pub(crate) async fn leave(&mut self) -> i16 {
        let member = MemberIdentity::default()
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        let request = LeaveGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_members(vec![member]);
        let told = self.client.ask(LEAVE_VERSION, &request).await.expect("an answer");
        told.members.first().map_or(told.error_code, |member| member.error_code)
    }

    pub(crate) fn commit_request(&self, partition: i32, offset: i64) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")));
        OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![
                OffsetCommitRequestTopic::default()
                    .with_name(topic())
                    .with_partitions(vec![partition]),
            ])
    }

    pub(crate) async fn commit(&mut self, partition: i32, offset: i64) -> i16 {
        let request = self.commit_request(partition, offset);
        let told = self.client.ask(COMMIT_VERSION, &request).await.expect("an answer");
        told.topics[0].partitions[0].error_code
    }

    /// The group's error, and error and offset of a partition.
    pub(crate) async fn committed(&mut self, partition: i32) -> (i16, i16, i64) {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic())
            .with_partition_indexes(vec![partition]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.group.clone())
            .with_member_epoch(-1)
            .with_topics(Some(vec![topic]));
        let request =
            OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
        let told = self.client.ask(FETCH_VERSION, &request).await.expect("an answer");
        let group = &told.groups[0];
        let part = group.topics.first().map(|topic| topic.partitions[0].clone());
        part.map_or((group.error_code, 0, -1), |part| {
            (group.error_code, part.error_code, part.committed_offset)
        })
    }
}

/// Two members that share: the first one leads.
pub(crate) async fn two(cluster: &Cluster) -> (Member, Member) {
    let mut leader = Member::new(cluster).settle().await;
    let mut other = Member::new(cluster).named().await;
    let joining = other.send_join().await;
    other.client.silent_for(Duration::from_secs(1)).await;
    assert_eq!(leader.heartbeat().await, code::REBALANCE_IN_PROGRESS);
    let told = leader.join_once().await;
    assert_eq!((told.error_code, told.members.len()), (0, 2));
    assert_eq!(other.joined(joining).await.members.len(), 0);
    let syncing = other.send_sync(&[]).await;
    let (first, second) = (leader.id.clone(), other.id.clone());
    let plan: [(&StrBytes, &'static [u8]); 2] = [(&first, b"even"), (&second, b"odd")];
    assert_eq!(leader.sync(&plan).await.assignment, &b"even"[..]);
    assert_eq!(other.synced(syncing).await.assignment, &b"odd"[..]);
    (leader, other)
}
