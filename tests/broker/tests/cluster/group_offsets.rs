//! What groups commit, fetch, lose and delete.

use std::time::Duration;

use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, GroupId, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    TopicName,
};
use ottla_test_broker::{Acls, Allowed, Cluster, error_code as code};

use crate::client::{Client, TOPIC, start, topic};
use crate::group_client::{GROUP, Member, text};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 4, 1).topic("other", 1, 1))
}

/// Error codes of a commit, partition by partition.
async fn codes(member: &mut Member, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let told = member.client.ask(version, request).await.expect("an answer");
    let parts = told.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

#[tokio::test(start_paused = true)]
async fn commits_are_kept_by_partition() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    assert_eq!(member.committed(0).await, (0, 0, -1), "nothing yet");
    let mut request = member.commit_request(0, 7);
    let partitions = &mut request.topics[0].partitions;
    partitions[0].committed_leader_epoch = 3;
    let at = |index: i32, offset: i64, metadata: &str| {
        partitions[0]
            .clone()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(metadata)))
    };
    let more = [
        at(1, 8, &"m".repeat(4096)),
        at(2, 9, &"m".repeat(4097)),
        at(3, 10, &"\u{1f600}".repeat(2049)),
        at(4, 11, ""),
        at(-1, 12, ""),
    ];
    partitions.extend(more);
    let unknown = request.topics[0].clone().with_name(TopicName(text("nowhere")));
    request.topics.push(unknown);
    let large = code::OFFSET_METADATA_TOO_LARGE;
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let mut expected = vec![0, 0, large, large, unknown, unknown];
    expected.extend([unknown; 6]);
    assert_eq!(codes(&mut member, 9, &request).await, expected);

    let info = cluster.group(GROUP).expect("a group");
    let told: Vec<_> = info.offsets.iter().map(|one| (one.partition, one.offset)).collect();
    assert_eq!(told, [(0, 7), (1, 8)]);
    let one = info.committed(TOPIC, 0).expect("an offset");
    assert_eq!((one.leader_epoch, one.metadata.as_str()), (Some(3), "note"));

    // All of a group; and what a client of before version 8 sees of it.
    let all = OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(None);
    let told = member.client.ask(5, &all).await.expect("an answer");
    let parts = &told.topics[0].partitions;
    assert_eq!((told.topics.len(), parts.len()), (1, 2));
    assert_eq!((parts[0].committed_offset, parts[0].committed_leader_epoch), (7, 3));
    assert_eq!(parts[1].metadata.as_ref().map(|text| text.len()), Some(4096));
    cluster.set_committed(GROUP, TOPIC, 0, 2).expect("room");
    assert_eq!(member.committed(0).await, (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_joined_has_offsets() {
    let cluster = cluster();
    let mut nobody = Member::new(&cluster);
    assert_eq!(nobody.commit(0, 5).await, 0);
    assert_eq!(nobody.committed(0).await, (0, 0, 5));
    // A generation that nobody has given.
    nobody.group = GroupId(text("not there"));
    nobody.generation = 4;
    nobody.id = text("member");
    assert_eq!(nobody.commit(0, 5).await, code::GROUP_ID_NOT_FOUND);
    let request = nobody.commit_request(0, 5);
    assert_eq!(codes(&mut nobody, 8, &request).await, [code::ILLEGAL_GENERATION]);
    // A group without a name has offsets, and no members.
    let mut nameless = Member::new(&cluster);
    nameless.group = GroupId(text(""));
    assert_eq!(nameless.commit(0, 6).await, 0);
    assert_eq!(nameless.committed(0).await, (0, 0, 6));
    // Before version 2 an error is each partition's.
    let topic =
        OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(Some(vec![topic]));
    cluster.set_acls(Some(Acls::new()));
    let told = nobody.client.ask(1, &request).await.expect("an answer");
    assert_eq!(told.topics[0].partitions[0].error_code, code::GROUP_AUTHORIZATION_FAILED);
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_is_about_to_commit_is_not_stable() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    assert_eq!(member.commit(0, 1).await, 0);
    cluster.set_unstable_offset(GROUP, TOPIC, 0, true).expect("a group");
    assert_eq!(member.committed(0).await, (0, code::UNSTABLE_OFFSET_COMMIT, -1));
    assert_eq!(member.committed(1).await, (0, 0, -1));
    // Who does not ask for stable ones is told what is.
    let group =
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text(GROUP))).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let told = member.client.ask(8, &request).await.expect("an answer");
    assert_eq!(told.groups[0].topics[0].partitions[0].committed_offset, 1);
    cluster.set_unstable_offset(GROUP, TOPIC, 0, false).expect("a group");
    assert_eq!(member.committed(0).await, (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn commits_keep_a_session_alive() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    for offset in 0..5 {
        tokio::time::sleep(9 * SECOND).await;
        assert_eq!(member.commit(0, offset).await, 0);
    }
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(member.commit(0, 9).await, code::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_groups_that_are_gone_are_forgotten() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    assert_eq!(member.commit(0, 1).await, 0);
    cluster.set_committed("simple", TOPIC, 0, 3).expect("room");
    // What is read stays, and what is not goes.
    cluster.set_committed(GROUP, "other", 0, 3).expect("room");
    for _ in 0..8 * 24 * 60 * 10 {
        tokio::time::sleep(6 * SECOND).await;
        assert_eq!(member.heartbeat().await, 0);
    }
    let offsets = cluster.group(GROUP).expect("a group").offsets;
    assert_eq!(offsets.iter().map(|one| one.topic.as_str()).collect::<Vec<_>>(), [TOPIC]);
    assert!(cluster.group("simple").is_none());
    assert_eq!(member.leave().await, 0);
    tokio::time::sleep(7 * DAY - SECOND).await;
    assert!(cluster.group(GROUP).is_some());
    tokio::time::sleep(601 * SECOND).await;
    assert_eq!(cluster.group_ids(), Vec::<String>::new());
    // What a client of old has asked for.
    let mut nobody = Member::new(&cluster);
    let request = nobody.commit_request(0, 1).with_retention_time_ms(60_000);
    let mut plain = request.clone();
    plain.group_instance_id = None;
    assert_eq!(codes(&mut nobody, 4, &plain).await, [0]);
    tokio::time::sleep(601 * SECOND).await;
    assert!(cluster.group(GROUP).is_none());
}

#[tokio::test(start_paused = true)]
async fn offsets_and_groups_are_deleted() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    assert_eq!(member.commit(0, 1).await, 0);
    cluster.set_committed(GROUP, "other", 0, 3).expect("room");
    let delete = |topic: &str, group: &str| {
        let partition = OffsetDeleteRequestPartition::default();
        OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(vec![
            OffsetDeleteRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition]),
        ])
    };
    for (topic, group, whole, part) in [
        (TOPIC, GROUP, 0, code::GROUP_SUBSCRIBED_TO_TOPIC),
        ("other", GROUP, 0, 0),
        ("nowhere", GROUP, 0, code::UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "not there", code::GROUP_ID_NOT_FOUND, 0),
        (TOPIC, "", code::INVALID_GROUP_ID, 0),
    ] {
        let told = member.client.ask(0, &delete(topic, group)).await.expect("an answer");
        let code = told.topics.first().map_or(0, |topic| topic.partitions[0].error_code);
        assert_eq!((told.error_code, code), (whole, part), "{topic} of {group}");
    }
    let offsets = cluster.group(GROUP).expect("a group").offsets;
    assert_eq!(offsets.len(), 1);

    let groups = DeleteGroupsRequest::default().with_groups_names(vec![
        GroupId(text(GROUP)),
        GroupId(text("not there")),
        GroupId(text(GROUP)),
    ]);
    let told = member.client.ask(2, &groups).await.expect("an answer").results;
    let codes: Vec<i16> = told.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [code::NON_EMPTY_GROUP, code::GROUP_ID_NOT_FOUND], "each once");
    assert_eq!(member.leave().await, 0);
    let told = member.client.ask(2, &groups).await.expect("an answer").results;
    assert_eq!(told[0].error_code, 0);
    assert!(cluster.group(GROUP).is_none());
    assert_eq!(member.committed(0).await, (0, 0, -1));

    // With a topic goes what was committed for it.
    cluster.set_committed(GROUP, "other", 0, 3).expect("room");
    cluster.delete_topic("other").expect("a topic");
    cluster.create_topic("other", 1, 1).expect("a topic");
    assert_eq!(cluster.group(GROUP).expect("a group").offsets, []);
}

#[tokio::test(start_paused = true)]
async fn members_that_are_no_consumers_keep_all_offsets() {
    let cluster = cluster();
    let mut member = Member::new(&cluster);
    member.kind = "connect";
    member = member.settle().await;
    let request = OffsetDeleteRequest::default().with_group_id(GroupId(text(GROUP)));
    let told = member.client.ask(0, &request).await.expect("an answer");
    assert_eq!(told.error_code, code::NON_EMPTY_GROUP);
}

#[tokio::test(start_paused = true)]
async fn groups_take_rights_of_their_own() {
    let cluster = cluster();
    let mut member = Member::new(&cluster).settle().await;
    assert_eq!(member.commit(0, 1).await, 0);
    const NO: i16 = code::GROUP_AUTHORIZATION_FAILED;
    const NO_TOPIC: i16 = code::TOPIC_AUTHORIZATION_FAILED;
    for (allowed, joins, heartbeat, commit, fetch, delete) in [
        (Allowed::new(), NO, NO, NO, (NO, 0), NO),
        (Allowed::new().group("group"), 0, 0, NO_TOPIC, (0, NO_TOPIC), NO),
        (Allowed::new().group("gr*").describe(TOPIC), 0, 0, NO_TOPIC, (0, 0), NO),
        (Allowed::new().group("*").read(TOPIC), 0, 0, 0, (0, 0), NO),
        (Allowed::new().describe_group("group").read("*"), NO, NO, NO, (0, 0), NO),
        (Allowed::new().delete_group("group").read("*"), NO, NO, NO, (0, 0), 68),
        (Allowed::everything(), 0, 0, 0, (0, 0), 68),
    ] {
        cluster.set_acls(Some(Acls::new().allow("ANONYMOUS", allowed.clone())));
        assert_eq!(member.heartbeat().await, heartbeat, "{allowed:?}");
        assert_eq!(member.sync(&[]).await.error_code, heartbeat, "{allowed:?}");
        assert_eq!(member.commit(0, 1).await, commit, "{allowed:?}");
        let (group, partition, _) = member.committed(0).await;
        assert_eq!((group, partition), fetch, "{allowed:?}");
        assert_eq!(member.join_once().await.error_code, joins, "{allowed:?}");
        if joins == 0 {
            let id = member.id.clone();
            member.sync(&[(&id, b"all")]).await;
        }
        let groups = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(GROUP))]);
        let told = member.client.ask(2, &groups).await.expect("an answer").results;
        assert_eq!(told[0].error_code, delete, "{allowed:?}");
    }
    cluster.set_acls(Some(Acls::new()));
    let mut client = Client::new(&cluster, 1);
    let list = kafka_protocol::messages::ListGroupsRequest::default();
    assert!(client.ask(4, &list).await.expect("an answer").groups.is_empty());
    assert_eq!(member.leave().await, NO);
}
