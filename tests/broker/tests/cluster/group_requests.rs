//! Filled requests about groups, each version about a group of its own.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest,
};

use super::{Target, text};

pub(super) fn consumer_group_heartbeat(
    version: i16,
    target: &Target,
) -> ConsumerGroupHeartbeatRequest {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(&format!("next-{version}"))))
        .with_member_id(text("member"))
        .with_member_epoch(0)
        .with_instance_id(Some(text("instance")))
        .with_rack_id(Some(text("rack")))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![target.topic()]))
        .with_server_assignor(Some(text("range")))
        .with_topic_partitions(Some(vec![]));
    match version {
        0 => request,
        _ => request.with_subscribed_topic_regex(Some(text("some.*"))),
    }
}

pub(super) fn consumer_group_describe(version: i16) -> ConsumerGroupDescribeRequest {
    let group = GroupId(text(&format!("next-{version}")));
    ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group])
        .with_include_authorized_operations(true)
}

pub(super) fn group(version: i16) -> GroupId {
    GroupId(text(&format!("group-{version}")))
}

pub(super) fn offset_commit(version: i16, target: &Target) -> OffsetCommitRequest {
    let partition = |index| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(7)
            .with_committed_metadata(Some(text("so far")));
        if version >= 6 { partition.with_committed_leader_epoch(0) } else { partition }
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(target.topic())
        .with_partitions(vec![partition(0), partition(1)]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(version))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    match version {
        ..5 => request.with_retention_time_ms(60_000),
        _ => request,
    }
}

pub(super) fn offset_fetch(version: i16, target: &Target) -> OffsetFetchRequest {
    let request = match version {
        ..8 => {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(target.topic())
                .with_partition_indexes(vec![0, 9]);
            OffsetFetchRequest::default()
                .with_group_id(group(version))
                .with_topics(Some(vec![topic]))
        }
        _ => {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(target.topic())
                .with_partition_indexes(vec![0, 9]);
            let one = OffsetFetchRequestGroup::default()
                .with_group_id(group(version))
                .with_topics(Some(vec![topic]));
            let one = if version >= 9 { one.with_member_epoch(-1) } else { one };
            let all = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text("other")))
                .with_topics(None);
            OffsetFetchRequest::default().with_groups(vec![one, all])
        }
    };
    if version >= 7 { request.with_require_stable(true) } else { request }
}

pub(super) fn join_group(version: i16) -> JoinGroupRequest {
    let protocol = |name| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0]))
    };
    let mut request = JoinGroupRequest::default()
        .with_group_id(group(version))
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")]);
    if version >= 1 {
        request = request.with_rebalance_timeout_ms(20_000);
    }
    if version >= 5 {
        request = request.with_group_instance_id(Some(text("instance")));
    }
    if version >= 8 {
        request = request.with_reason(Some(text("because")));
    }
    request
}

pub(super) fn sync_group(version: i16) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text("member"))
        .with_assignment(Bytes::from_static(&[0, 0, 0, 0, 0, 0]));
    let mut request = SyncGroupRequest::default()
        .with_group_id(group(version))
        .with_generation_id(1)
        .with_member_id(text("member"))
        .with_assignments(vec![assignment]);
    if version >= 3 {
        request = request.with_group_instance_id(Some(text("nobody")));
    }
    if version >= 5 {
        request = request
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
    }
    request
}

pub(super) fn heartbeat(version: i16) -> HeartbeatRequest {
    let request = HeartbeatRequest::default()
        .with_group_id(group(version))
        .with_generation_id(1)
        .with_member_id(text("member"));
    match version {
        ..3 => request,
        _ => request.with_group_instance_id(Some(text("nobody"))),
    }
}

pub(super) fn leave_group(version: i16) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group(version));
    let member = MemberIdentity::default()
        .with_member_id(text("member"))
        .with_group_instance_id(Some(text("nobody")));
    match version {
        ..3 => request.with_member_id(text("member")),
        3..5 => request.with_members(vec![member]),
        _ => request.with_members(vec![member.with_reason(Some(text("because")))]),
    }
}

pub(super) fn describe_groups(version: i16) -> DescribeGroupsRequest {
    let request = DescribeGroupsRequest::default().with_groups(vec![group(version)]);
    if version >= 3 { request.with_include_authorized_operations(true) } else { request }
}

pub(super) fn list_groups(version: i16) -> ListGroupsRequest {
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request = request.with_states_filter(vec![text("Stable"), text("empty")]);
    }
    if version >= 5 {
        request = request.with_types_filter(vec![text("classic")]);
    }
    request
}

pub(super) fn delete_groups(version: i16) -> DeleteGroupsRequest {
    let unknown = GroupId(text("never there"));
    DeleteGroupsRequest::default().with_groups_names(vec![unknown, group(version)])
}

pub(super) fn offset_delete(target: &Target) -> OffsetDeleteRequest {
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(1);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(target.topic())
        .with_partitions(vec![partition]);
    OffsetDeleteRequest::default().with_group_id(group(9)).with_topics(vec![topic])
}
