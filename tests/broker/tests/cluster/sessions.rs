//! Fetch sessions (KIP-227), as Kafka's `FetchManager` keeps them.

use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::FetchableTopicResponse;
use kafka_protocol::messages::{FetchRequest, FetchResponse, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{
    ApiKey, Cluster, Fault, FaultRule, Leaders, SessionInfo, error_code as code,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Client, FETCH_VERSION, TOPIC, batch, start, topic};

const NAMES: i16 = FETCH_VERSION;
const IDS: i16 = 17;

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 4, 1))
}

fn partition(index: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
}

/// A request of a session that reads these partitions, each from an offset, and does not wait.
fn request(session: (i32, i32), partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions: Vec<_> =
        partitions.iter().map(|(index, offset)| partition(*index, *offset)).collect();
    let topics = match partitions.is_empty() {
        true => vec![],
        false => vec![FetchTopic::default().with_topic(topic()).with_partitions(partitions)],
    };
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

fn forget(partitions: &[i32]) -> Vec<ForgottenTopic> {
    vec![ForgottenTopic::default().with_topic(topic()).with_partitions(partitions.to_vec())]
}

fn by_id(mut request: FetchRequest, id: Uuid) -> FetchRequest {
    for topic in &mut request.topics {
        topic.topic = Default::default();
        topic.topic_id = id;
    }
    for topic in &mut request.forgotten_topics_data {
        topic.topic = Default::default();
        topic.topic_id = id;
    }
    request
}

/// Partition, error and whether there are records, of all that is answered.
fn told(response: &FetchResponse) -> Vec<(i32, i16, bool)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|part| {
            let records = part.records.as_ref().is_some_and(|records| !records.is_empty());
            (part.partition_index, part.error_code, records)
        })
        .collect()
}

fn outcome(response: &FetchResponse) -> (i16, i32, Vec<(i32, i16, bool)>) {
    (response.error_code, response.session_id, told(response))
}

async fn ask(client: &mut Client, request: &FetchRequest) -> FetchResponse {
    client.ask(NAMES, request).await.expect("an answer")
}

/// Opens a session of the partitions 0 to `partitions` from their beginning.
async fn open(client: &mut Client, partitions: i32) -> i32 {
    let all: Vec<_> = (0..partitions).map(|index| (index, 0)).collect();
    let response = ask(client, &request((0, 0), &all)).await;
    assert_eq!(response.error_code, 0);
    assert_eq!(told(&response).len(), all.len(), "the first answer has everything");
    response.session_id
}

fn session(cluster: &Cluster) -> SessionInfo {
    cluster.fetch_sessions(1).expect("a known broker").remove(0)
}

fn offsets(info: &SessionInfo) -> Vec<(i32, i64)> {
    info.partitions.iter().map(|one| (one.partition, one.offset)).collect()
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_asked_for_and_answered() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 4).await;
    assert!(id > 0);
    assert_eq!(outcome(&ask(&mut client, &request((id, 1), &[])).await), (0, id, vec![]));
    client.produce(2, 1, &batch(1)).await.expect("an answer");
    let response = ask(&mut client, &request((id, 2), &[])).await;
    assert_eq!(outcome(&response), (0, id, vec![(2, 0, true)]));
    assert_eq!(response.responses[0].partitions[0].high_watermark, 1);
    // Not asked for from another offset, it is read again from the old one.
    let response = ask(&mut client, &request((id, 3), &[])).await;
    assert_eq!(told(&response), [(2, 0, true)]);
    let response = ask(&mut client, &request((id, 4), &[(2, 1)])).await;
    assert_eq!(told(&response), []);
    let info = session(&cluster);
    assert_eq!((info.id, info.next_epoch, info.topic_ids), (id, 5, false));
    // What had records is read last.
    assert_eq!(offsets(&info), [(0, 0), (1, 0), (3, 0), (2, 1)]);
    assert_eq!(info.partitions[0].topic.as_deref(), Some(TOPIC));
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_its_connection() {
    let cluster = cluster();
    let id = open(&mut Client::new(&cluster, 1), 2).await;
    let mut client = Client::new(&cluster, 1);
    assert_eq!(outcome(&ask(&mut client, &request((id, 1), &[])).await), (0, id, vec![]));
}

/// Session and epoch of a request, and how it is answered.
#[tokio::test(start_paused = true)]
async fn sessions_and_epochs_that_are_not_there() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    let unknown = code::FETCH_SESSION_ID_NOT_FOUND;
    let epoch = code::INVALID_FETCH_SESSION_EPOCH;
    for (session, error) in [
        ((id, 2), epoch),
        ((id, i32::MAX), epoch),
        ((id, -2), epoch),
        ((id, i32::MIN), epoch),
        ((id ^ 1, 1), unknown),
        ((0, 1), unknown),
        ((-1, 1), unknown),
        ((i32::MIN, i32::MAX), unknown),
    ] {
        let response = ask(&mut client, &request(session, &[(0, 0), (3, 0)])).await;
        assert_eq!(outcome(&response), (error, 0, vec![]), "{session:?}");
    }
    // None of them had an effect.
    assert_eq!(offsets(&session(&cluster)), [(0, 0), (1, 0)]);
    assert_eq!(outcome(&ask(&mut client, &request((id, 1), &[])).await), (0, id, vec![]));
    // One that was answered is in the past.
    assert_eq!(ask(&mut client, &request((id, 1), &[])).await.error_code, epoch);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_leaves_the_session_ahead() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 1).await;
    cluster.faults().on(1, ApiKey::FETCH, Fault::CutAfterAppend, 1);
    client.send(NAMES, &request((id, 1), &[(0, 0), (1, 0)])).await.expect("sent");
    client.closed().await;
    let mut client = Client::new(&cluster, 1);
    let again = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!(again.error_code, code::INVALID_FETCH_SESSION_EPOCH);
    assert_eq!(session(&cluster).next_epoch, 2);
    // What is lost before it arrives is not.
    cluster.faults().on(1, ApiKey::FETCH, Fault::CutBeforeAppend, 1);
    client.send(NAMES, &request((id, 2), &[])).await.expect("sent");
    client.closed().await;
    assert_eq!(session(&cluster).next_epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_request_takes_the_place_of_the_session_that_it_names() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let old = open(&mut client, 2).await;
    let response = ask(&mut client, &request((old, 0), &[(3, 0)])).await;
    let new = response.session_id;
    assert!(new > 0 && new != old);
    assert_eq!(offsets(&session(&cluster)), [(3, 0)]);
    let sessions = cluster.fetch_sessions(1).expect("a known broker");
    assert_eq!(sessions.len(), 1);
    let gone = ask(&mut client, &request((old, 1), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
    // One that is not there is no reason to refuse.
    let response = ask(&mut client, &request((old, 0), &[(3, 0)])).await;
    assert_eq!((response.error_code, told(&response).len()), (0, 1));
    assert_ne!(response.session_id, 0);
}

#[tokio::test(start_paused = true)]
async fn the_final_epoch_ends_a_session_and_is_answered_without_one() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    let response = ask(&mut client, &request((id, -1), &[(1, 0)])).await;
    assert_eq!(outcome(&response), (0, 0, vec![(1, 0, false)]));
    assert!(cluster.fetch_sessions(1).expect("a known broker").is_empty());
    let gone = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
    // Nothing to close, and nothing to read.
    assert_eq!(outcome(&ask(&mut client, &request((id, -1), &[])).await), (0, 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_not_read_and_an_empty_session_is_gone() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(1)).await.expect("an answer");
    let id = open(&mut client, 3).await;
    // Forgotten last: also what the same request names; and what is not there is no error.
    let leaving = request((id, 1), &[(3, 0)]).with_forgotten_topics_data(forget(&[0, 3, 77]));
    assert_eq!(outcome(&ask(&mut client, &leaving).await), (0, id, vec![]));
    assert_eq!(offsets(&session(&cluster)), [(1, 0), (2, 0)]);
    // A partition that comes back is told anew.
    let back = ask(&mut client, &request((id, 2), &[(0, 0)])).await;
    assert_eq!(told(&back), [(0, 0, true)]);
    let last = request((id, 3), &[]).with_forgotten_topics_data(forget(&[0, 1, 2]));
    assert_eq!(outcome(&ask(&mut client, &last).await), (0, 0, vec![]));
    let gone = ask(&mut client, &request((id, 4), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_again_and_again_until_it_is_forgotten() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    let out = (0, code::OFFSET_OUT_OF_RANGE, false);
    let long =
        |session, partitions: &[(i32, i64)]| request(session, partitions).with_max_wait_ms(30_000);
    let started = Instant::now();
    let response = ask(&mut client, &long((id, 1), &[(0, 9)])).await;
    assert_eq!(told(&response), [out]);
    let data = &response.responses[0].partitions[0];
    assert_eq!((data.high_watermark, data.log_start_offset), (-1, -1));
    assert_eq!(told(&ask(&mut client, &long((id, 2), &[])).await), [out]);
    assert_eq!(started.elapsed(), Duration::ZERO, "each is answered at once");
    // When it is over the partition is told once more, though nothing else changed.
    assert_eq!(told(&ask(&mut client, &request((id, 3), &[(0, 0)])).await), [(0, 0, false)]);
    assert_eq!(told(&ask(&mut client, &request((id, 4), &[])).await), []);
    ask(&mut client, &long((id, 5), &[(0, 9)])).await;
    let forgotten = long((id, 6), &[]).with_forgotten_topics_data(forget(&[0]));
    assert_eq!(told(&ask(&mut client, &forgotten).await), []);
    assert_eq!(started.elapsed().as_secs(), 30, "without it the poll is long again");
}

/// Kafka looks for what it does not know before it reads, and reads the rest as if it were alone.
#[tokio::test(start_paused = true)]
async fn what_is_not_there_waits_with_the_others_and_comes_last() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let unknown = (17, code::UNKNOWN_TOPIC_OR_PARTITION, false);
    let started = Instant::now();
    let wait =
        |session, partitions: &[(i32, i64)]| request(session, partitions).with_max_wait_ms(500);
    let response = ask(&mut client, &wait((0, 0), &[(17, 0), (1, 0)])).await;
    assert_eq!(told(&response), [(1, 0, false), unknown]);
    let id = response.session_id;
    assert_eq!(told(&ask(&mut client, &wait((id, 1), &[])).await), [unknown]);
    assert_eq!(started.elapsed().as_millis(), 1000);
    // Alone it waits for nothing.
    let alone = wait((id, 2), &[]).with_forgotten_topics_data(forget(&[1]));
    assert_eq!(told(&ask(&mut client, &alone).await), [unknown]);
    assert_eq!(started.elapsed().as_millis(), 1000);
    // It is read as soon as it is there.
    cluster.create_partitions(TOPIC, 18).expect("more partitions");
    assert_eq!(told(&ask(&mut client, &wait((id, 3), &[])).await), [(17, 0, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_ids_is_none_of_names() {
    let cluster = cluster();
    let topic_id = cluster.topics()[0].1;
    let mut client = Client::new(&cluster, 1);
    for (opened, asked) in [(IDS, NAMES), (NAMES, IDS)] {
        let in_version = |version, request| match version {
            IDS => by_id(request, topic_id),
            _ => request,
        };
        let full = in_version(opened, request((0, 0), &[(0, 0)]));
        let id = client.ask(opened, &full).await.expect("an answer").session_id;
        assert!(
            cluster
                .fetch_sessions(1)
                .expect("a known broker")
                .iter()
                .any(|one| { one.id == id && one.topic_ids == (opened == IDS) })
        );
        let other = in_version(asked, request((id, 1), &[]));
        let response = client.ask(asked, &other).await.expect("an answer");
        assert_eq!(outcome(&response), (code::FETCH_SESSION_TOPIC_ID_ERROR, 0, vec![]));
        // The session is as it was; a wrong epoch is said before.
        let other = in_version(asked, request((id, 2), &[]));
        let response = client.ask(asked, &other).await.expect("an answer");
        assert_eq!(response.error_code, code::INVALID_FETCH_SESSION_EPOCH);
        let same = in_version(opened, request((id, 1), &[]));
        assert_eq!(client.ask(opened, &same).await.expect("an answer").error_code, 0);
        // As a full request of the other kind it ends it.
        let full = in_version(asked, request((id, 0), &[(1, 0)]));
        let response = client.ask(asked, &full).await.expect("an answer");
        assert_eq!((response.error_code, told(&response)), (0, vec![(1, 0, false)]));
    }
    // Before version 7 there are none: what such a request would say is not read.
    let response = client.ask(6, &request((0, 0), &[(0, 0)])).await.expect("an answer");
    assert_eq!((response.session_id, told(&response).len()), (0, 1));
    assert_eq!(cluster.fetch_sessions(1).expect("a known broker").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_stays_another_one_for_a_session_that_knew_the_old_one() {
    let cluster = cluster();
    let old = cluster.topics()[0].1;
    let mut client = Client::new(&cluster, 1);
    let mut ids = async |session, partitions: &[(i32, i64)], id| {
        let request = by_id(request(session, partitions), id);
        client.ask(IDS, &request).await.expect("an answer")
    };
    let session = ids((0, 0), &[(0, 0), (1, 0)], old).await.session_id;
    cluster.delete_topic(TOPIC).expect("a known topic");
    let gone = code::UNKNOWN_TOPIC_OR_PARTITION;
    let response = ids((session, 1), &[], old).await;
    assert_eq!(told(&response), [(0, gone, false), (1, gone, false)], "the session has its name");
    let new = cluster.create_topic(TOPIC, 4, 1).expect("a topic");
    let other = code::INCONSISTENT_TOPIC_ID;
    for epoch in [2, 3] {
        let response = ids((session, epoch), &[], old).await;
        assert_eq!(told(&response), [(0, other, false), (1, other, false)]);
    }
    // The new one beside it.
    let response = ids((session, 4), &[(0, 0)], new).await;
    assert_eq!(told(&response), [(0, other, false), (1, other, false), (0, 0, false)]);
    assert_eq!(response.responses.len(), 2);
    // Whoever names the old id anew names what nobody knows.
    let full = ids((0, 0), &[(0, 0)], old).await;
    assert_eq!(told(&full), [(0, code::UNKNOWN_TOPIC_ID, false)]);
}

#[tokio::test(start_paused = true)]
async fn by_name_a_topic_made_anew_is_read_as_if_it_were_the_old_one() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(1)).await.expect("an answer");
    let id = open(&mut client, 1).await;
    cluster.delete_topic(TOPIC).expect("a known topic");
    let response = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!(told(&response), [(0, code::UNKNOWN_TOPIC_OR_PARTITION, false)]);
    cluster.create_topic(TOPIC, 4, 1).expect("a topic");
    client.produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!(told(&ask(&mut client, &request((id, 2), &[])).await), [(0, 0, true)]);
}

/// Partitions of two topics, in an order in which they do not lie side by side.
#[tokio::test(start_paused = true)]
async fn a_topic_comes_as_often_as_its_partitions_are_apart() {
    let cluster = start(|builder| builder.topic("a", 2, 1).topic("b", 2, 1));
    let named = |name: &'static str, index| {
        FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(name)))
            .with_partitions(vec![partition(index, 0)])
    };
    let topics = |response: &FetchResponse| -> Vec<(String, Vec<i32>)> {
        let topics = response.responses.iter();
        let indexes = |topic: &FetchableTopicResponse| {
            topic.partitions.iter().map(|one| one.partition_index).collect()
        };
        topics.map(|topic| (topic.topic.to_string(), indexes(topic))).collect()
    };
    let group = |name: &str, indexes: &[i32]| (name.to_owned(), indexes.to_vec());
    let mut client = Client::new(&cluster, 1);
    // What is named twice is answered once.
    let all = vec![named("a", 0), named("a", 1), named("b", 0), named("a", 0), named("b", 1)];
    let response = ask(&mut client, &request((0, 0), &[]).with_topics(all)).await;
    assert_eq!(topics(&response), [group("a", &[0, 1]), group("b", &[0, 1])]);
    let id = response.session_id;
    cluster.append("a", 0, &batch(1)).expect("it fits");
    let response = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!(topics(&response), [group("a", &[0])]);
    // It is last now, behind the other topic.
    cluster.faults().inject(FaultRule::new(Fault::Error(42)).api(ApiKey::FETCH));
    let response = ask(&mut client, &request((id, 2), &[])).await;
    assert_eq!(topics(&response), [group("a", &[1]), group("b", &[0, 1]), group("a", &[0])]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_answer_is_empty_and_makes_no_session() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(1)).await.expect("an answer");
    let throttle = || cluster.faults().on(1, ApiKey::FETCH, Fault::Throttle(secs(1)), 1);
    throttle();
    let response = ask(&mut client, &request((0, 0), &[(0, 0)])).await;
    assert_eq!((response.throttle_time_ms, outcome(&response)), (1000, (0, 0, vec![])));
    assert!(cluster.fetch_sessions(1).expect("a known broker").is_empty());
    let id = open(&mut client, 2).await;
    throttle();
    let response = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!((response.throttle_time_ms, outcome(&response)), (1000, (0, id, vec![])));
    // Its epoch is past, and what it did not tell comes with the next.
    assert_eq!(told(&ask(&mut client, &request((id, 2), &[])).await), [(0, 0, true)]);
    // The throttled answer to a request with a wrong epoch says nothing of it.
    throttle();
    let response = ask(&mut client, &request((id, 9), &[])).await;
    assert_eq!(outcome(&response), (0, 0, vec![]));
    assert_eq!(cluster.stats().brokers[0].fetch_bytes, 2 * batch(1).len() as u64);
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_sessions_as_slots() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 4, 1).fetch_session_slots(1));
    let mut client = Client::new(&cluster, 1);
    let first = open(&mut client, 2).await;
    assert!(first > 0);
    // Another broker has slots of its own.
    assert!(open(&mut Client::new(&cluster, 2), 2).await > 0);
    tokio::time::advance(secs(119)).await;
    assert_eq!(open(&mut client, 4).await, 0, "answered in full, and without a session");
    tokio::time::advance(secs(2)).await;
    let second = open(&mut client, 1).await;
    assert!(second > 0, "what is not used for two minutes makes room");
    let gone = ask(&mut client, &request((first, 1), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
    // One slot is free again when its session is closed.
    ask(&mut client, &request((second, -1), &[])).await;
    assert!(open(&mut client, 1).await > 0);

    let cluster = start(|builder| builder.topic(TOPIC, 4, 1).fetch_session_slots(0));
    assert_eq!(open(&mut Client::new(&cluster, 1), 2).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_starts_anew_knows_no_session() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    cluster.forget_fetch_sessions(1).expect("a known broker");
    let gone = ask(&mut client, &request((id, 1), &[])).await;
    assert_eq!(outcome(&gone), (code::FETCH_SESSION_ID_NOT_FOUND, 0, vec![]));
    let next = open(&mut client, 2).await;
    assert_ne!(next, id);
    cluster.stop_broker(1, Leaders::Keep).expect("a known broker");
    cluster.start_broker(1).expect("a known broker");
    let gone = ask(&mut Client::new(&cluster, 1), &request((next, 1), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
    assert!(cluster.forget_fetch_sessions(7).is_err());
    assert!(cluster.fetch_sessions(7).is_err());
}

/// A long poll whose session is evicted meanwhile is answered as if it were there.
#[tokio::test(start_paused = true)]
async fn a_long_poll_outlives_its_session() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    let poll = request((id, 1), &[]).with_max_wait_ms(30_000);
    let sent = client.send(NAMES, &poll).await.expect("sent");
    client.silent_for(secs(1)).await;
    cluster.forget_fetch_sessions(1).expect("a known broker");
    Client::new(&cluster, 1).produce(1, 1, &batch(1)).await.expect("an answer");
    let response = client.answer::<FetchRequest>(sent, NAMES).await.expect("an answer");
    assert_eq!(outcome(&response), (0, id, vec![(1, 0, true)]));
    let gone = ask(&mut client, &request((id, 2), &[])).await;
    assert_eq!(gone.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn two_requests_of_one_session_at_once() {
    let cluster = cluster();
    let (mut one, mut other) = (Client::new(&cluster, 1), Client::new(&cluster, 1));
    let id = open(&mut one, 2).await;
    let poll = request((id, 1), &[]).with_max_wait_ms(5_000);
    let sent = one.send(NAMES, &poll).await.expect("sent");
    one.silent_for(secs(1)).await;
    assert_eq!(ask(&mut other, &request((id, 2), &[])).await.error_code, 0);
    let response = one.answer::<FetchRequest>(sent, NAMES).await.expect("an answer");
    assert_eq!(outcome(&response), (code::INVALID_FETCH_SESSION_EPOCH, id, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_fault_script_has_errors_of_sessions() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 2).await;
    let error = code::INVALID_FETCH_SESSION_EPOCH;
    cluster.faults().on(1, ApiKey::FETCH, Fault::SessionError(error), 1);
    let response = ask(&mut client, &request((id, 1), &[(3, 0)])).await;
    assert_eq!(outcome(&response), (error, 0, vec![]));
    // It has not happened.
    assert_eq!(outcome(&ask(&mut client, &request((id, 1), &[])).await), (0, id, vec![]));
    // Before version 7 there is no place for it.
    cluster.faults().on(1, ApiKey::FETCH, Fault::SessionError(error), 1);
    let response = client.ask(6, &request((0, -1), &[(0, 0)])).await.expect("an answer");
    assert_eq!(told(&response), [(0, 0, false)]);
    cluster.faults().on(1, ApiKey::METADATA, Fault::SessionError(error), 1);
    let metadata = MetadataRequest::default();
    assert_eq!(client.ask(9, &metadata).await.expect("an answer").brokers.len(), 1);
}

/// A thousand quiet partitions cost some tens of bytes.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_requests_and_answers_are_counted() {
    let cluster = start(|builder| builder.topic(TOPIC, 1000, 1));
    let mut client = Client::new(&cluster, 1);
    let id = open(&mut client, 1000).await;
    let bytes = || {
        let stats = cluster.stats();
        (stats.brokers[0].fetch_request_bytes, stats.brokers[0].fetch_response_bytes)
    };
    let full = bytes();
    assert!(full.0 > 30_000 && full.1 > 30_000, "{full:?}");
    ask(&mut client, &request((id, 1), &[])).await;
    let empty = bytes();
    assert!((40..80).contains(&(empty.0 - full.0)), "{}", empty.0 - full.0);
    assert!((15..30).contains(&(empty.1 - full.1)), "{}", empty.1 - full.1);
    // Other requests are not counted.
    client.ask(9, &MetadataRequest::default()).await.expect("an answer");
    assert_eq!(bytes(), empty);
}
