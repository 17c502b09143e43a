//! What a consumer asks for: its settings, and the place it stands at, as brokers are told them; one
//! request at a time to each, and no more at once than there is room for. In virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, ErrorKind, Record, Start};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{
    acked, acks, cluster, connect, ms, requests, secs, seen, send_pinned, small_batches,
};
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

/// Requests that came since the last call, with their versions.
fn asked<R: Request + Decodable + HeaderVersion>(hostile: &Hostile) -> Vec<(i16, R)> {
    let read = |(version, bytes): (i16, Vec<u8>)| {
        let mut bytes = Bytes::from(bytes);
        RequestHeader::decode(&mut bytes, R::header_version(version)).unwrap();
        (version, R::decode(&mut bytes, version).unwrap())
    };
    hostile.requests().into_iter().map(read).collect()
}

async fn start(cluster: &Cluster, watched: ApiKey) -> (Hostile, Client) {
    let hostile = Hostile::new(cluster);
    hostile.watch(watched);
    let client = connect(hostile.client(cluster)).await;
    (hostile, client)
}

async fn write(client: &Client, partition: i32) -> i64 {
    let producer = client.producer().build().unwrap();
    acked(&producer, Record::to("t").partition(partition).value("x")).await.offset
}

#[tokio::test(start_paused = true)]
async fn a_fetch_says_what_the_settings_say() {
    let cluster = cluster(1, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let reader = client.consumer().topics(["t"]).max_wait(ms(777)).min_bytes(33);
    let reader = reader.max_bytes(555_000).max_partition_bytes(44_000);
    let _consumer = reader.build().unwrap();
    until("a fetch", || seen(&cluster, 1, ApiKey::FETCH) > 0).await;
    let (version, fetch) = asked::<FetchRequest>(&hostile).remove(0);
    assert!(version >= 13, "topic ids are told: {version}");
    assert_eq!((fetch.max_wait_ms, fetch.min_bytes, fetch.max_bytes), (777, 33, 555_000));
    assert_eq!(fetch.topics[0].partitions[0].partition_max_bytes, 44_000);
    assert_eq!((fetch.session_id, fetch.session_epoch), (0, 0), "a session is begun");
    assert_eq!(fetch.isolation_level, 0);
}

/// The leader's epoch as metadata has it, and that of what was read last: what a broker compares with
/// its own log.
#[tokio::test(start_paused = true)]
async fn a_fetch_says_by_which_epochs_it_stands_where_it_does() {
    let cluster = cluster(2, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    let before = cluster.partition("t", 0).unwrap();
    let to = 3 - before.leader.unwrap();
    cluster.move_leader("t", 0, to).unwrap();
    let after = cluster.partition("t", 0).unwrap().leader_epoch;
    assert!(after > before.leader_epoch);
    write(&client, 0).await;
    within("a record", consumer.next()).await.unwrap().unwrap();
    until("a fetch behind it", || {
        asked::<FetchRequest>(&hostile).into_iter().any(|(_, fetch)| {
            let at = &fetch.topics[0].partitions[0];
            at.fetch_offset == 2
                && (at.current_leader_epoch, at.last_fetched_epoch) == (after, after)
        })
    })
    .await;
    // An offset that the application chose says nothing of epochs.
    consumer.seek("t", 0, Start::Offset(1)).unwrap();
    until("a fetch from there", || {
        asked::<FetchRequest>(&hostile).into_iter().any(|(_, fetch)| {
            let at = &fetch.topics[0].partitions[0];
            at.fetch_offset == 1 && (at.current_leader_epoch, at.last_fetched_epoch) == (after, -1)
        })
    })
    .await;
    hostile.watch(ApiKey::LIST_OFFSETS);
    consumer.seek("t", 0, Start::Latest).unwrap();
    until("a question for the end", || seen(&cluster, to, ApiKey::LIST_OFFSETS) > 0).await;
    let (_, question) = asked::<ListOffsetsRequest>(&hostile).remove(0);
    assert_eq!(question.topics[0].partitions[0].current_leader_epoch, after);
}

/// What came with an end that was looked up is told from the first fetch on.
#[tokio::test(start_paused = true)]
async fn the_epoch_of_a_start_that_was_looked_up_is_told() {
    let cluster = cluster(2, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    let epoch = cluster.partition("t", 0).unwrap().leader_epoch;
    let _consumer = client.consumer().topics(["t"]).start(Start::Latest).build().unwrap();
    let leader = cluster.partition("t", 0).unwrap().leader.unwrap();
    until("a fetch", || seen(&cluster, leader, ApiKey::FETCH) > 0).await;
    let (_, fetch) = asked::<FetchRequest>(&hostile).remove(0);
    let at = &fetch.topics[0].partitions[0];
    assert_eq!((at.fetch_offset, at.last_fetched_epoch), (1, epoch));
}

/// Brokers before topic ids are asked by name, and told no epochs.
#[tokio::test(start_paused = true)]
async fn an_old_broker_is_asked_as_it_understands() {
    for (api, version) in [(ApiKey::METADATA, 9), (ApiKey::FETCH, 11)] {
        let cluster = Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1);
        let cluster = cluster.max_version(api, version).start_on_current_runtime().unwrap();
        let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        for _ in 0..3 {
            write(&client, 0).await;
            within("a record", consumer.next()).await.unwrap().unwrap();
        }
        for (version, fetch) in asked::<FetchRequest>(&hostile) {
            assert!(version <= 12, "version {version} knows topics by their ids alone");
            let at = &fetch.topics[0].partitions[0];
            assert!(version == 12 || at.last_fetched_epoch == -1);
        }
    }
}

/// What is found while a fetch is held back waits for its response: there is one at a time to each broker,
/// and none where what is asked for already fills the buffer.
#[tokio::test(start_paused = true)]
async fn one_fetch_at_a_time_to_a_broker() {
    for brokers in [1, 2] {
        let cluster = cluster(brokers, 1);
        let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
        let reader = client.consumer().topics(["t", "u"]).max_wait(secs(20));
        let memory = if brokers == 1 { 64 << 20 } else { 64 << 10 };
        let mut consumer = reader.buffer_memory(memory).build().unwrap();
        let error = within("news", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic);
        cluster.create_topic("u", 1, brokers).unwrap();
        if brokers == 2 {
            let other = 3 - cluster.partition("t", 0).unwrap().leader.unwrap();
            cluster.move_leader("u", 0, other).unwrap();
        }
        // It is looked for every five seconds.
        until("the topic", || consumer.assignment().len() == 2).await;
        tokio::time::sleep(secs(1)).await;
        let before = asked::<FetchRequest>(&hostile);
        // That of before is held back still; another broker has its own.
        assert_eq!(before.len(), brokers as usize);
        tokio::time::sleep(secs(21)).await;
        let topics: std::collections::BTreeSet<_> = before
            .into_iter()
            .chain(asked::<FetchRequest>(&hostile))
            .flat_map(|(_, fetch)| fetch.topics)
            .map(|topic| topic.topic_id)
            .collect();
        assert_eq!(topics.len(), 2, "each has its turn");
    }
}

/// Responses that are still to come have their room: all together fit the buffer.
#[tokio::test(start_paused = true)]
async fn what_is_asked_for_at_once_fits_the_buffer() {
    const MEMORY: usize = 90_000;
    let cluster = cluster(3, 3);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let all_at_once = (0..3).map(|partition| ("t", partition, Start::Offset(0)));
    let reader = client.consumer().assign(all_at_once).buffer_memory(MEMORY).max_wait(secs(20));
    let _consumer = reader.build().unwrap();
    tokio::time::sleep(secs(5)).await;
    let mut asked_for = BTreeMap::new();
    for (_, fetch) in asked::<FetchRequest>(&hostile) {
        let partition = fetch.topics[0].partitions[0].partition;
        assert!(asked_for.insert(partition, fetch.max_bytes).is_none(), "held back for 20 s");
    }
    let all: i32 = asked_for.values().sum();
    assert!((1..=MEMORY as i32).contains(&all), "{asked_for:?}");
    assert_eq!(asked_for.len(), 3, "each broker has its share");
}

/// What failed together is tried again together: one request, not one for each partition.
#[tokio::test(start_paused = true)]
async fn what_failed_together_comes_back_together() {
    // The whole request, and each partition of a response.
    for (fault, again) in [(Fault::CutBeforeAppend, 20), (Fault::Error(6), 0)] {
        let cluster = cluster(1, 20);
        let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
        write(&client, 0).await;
        let rule = cluster.faults().inject(FaultRule::new(fault).api(ApiKey::FETCH));
        let mut consumer = client.consumer().topics(["t"]).max_wait(secs(20)).build().unwrap();
        within("a record", consumer.next()).await.unwrap().unwrap();
        assert!(!cluster.faults().is_pending(rule));
        tokio::time::sleep(secs(5)).await;
        let partitions = |fetch: &FetchRequest| -> usize {
            fetch.topics.iter().map(|topic| topic.partitions.len()).sum()
        };
        let asked: Vec<usize> =
            asked::<FetchRequest>(&hostile).iter().map(|(_, fetch)| partitions(fetch)).collect();
        // The one that fails; the same once more, of which the broker knows all if it has answered; and the one that
        // is held back, which names what was read.
        assert_eq!(asked, [20, again, 1], "{fault:?}");
    }
}

/// Whoever seeks asks for something else: what came empty before is no reason to wait.
#[tokio::test(start_paused = true)]
async fn a_seek_waits_for_no_pace() {
    let cluster = cluster(1, 1);
    let far = FaultRule::new(Fault::DelayResponse(ms(1))).api(ApiKey::FETCH).always();
    cluster.faults().inject(far);
    let (_hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    let reader = client.consumer().topics(["t"]).max_wait(ms(0));
    let mut consumer = reader.build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    for _ in 0..20 {
        tokio::time::sleep(ms(1_234)).await;
        let begun = Instant::now();
        consumer.seek("t", 0, Start::Offset(0)).unwrap();
        within("a record", consumer.next()).await.unwrap().unwrap();
        assert!(begun.elapsed() < ms(5), "{:?}", begun.elapsed());
    }
}

/// Those that are open, and those that are being made.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_goes_gives_its_connections_back() {
    let cluster = cluster(1, 1);
    let (_hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let producer = small_batches(&client).build().unwrap();
    acks(send_pinned(&producer, 0..100).await).await;
    let open = || cluster.stats().connections_open();
    let before = open();
    // The buffer is full, and nothing is asked for.
    let reader = || client.consumer().assign([("t", 0, Start::Offset(0))]).buffer_memory(64 << 10);
    let consumer = reader().build().unwrap();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(open(), before + 1);
    drop(consumer);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(open(), before);

    let slow = FaultRule::new(Fault::Delay(secs(1))).api(ApiKey::API_VERSIONS);
    cluster.faults().inject(slow);
    let consumer = reader().build().unwrap();
    until("a dial", || open() > before).await;
    drop(consumer);
    tokio::time::sleep(secs(5)).await;
    assert_eq!(open(), before);
}

/// Changes every answer to a fetch, as a message.
fn change(hostile: &Hostile, change: impl Fn(&mut FetchResponse) + Send + Sync + 'static) {
    hostile.rewrite(ApiKey::FETCH, move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        out.put_u8(body.get_u8());
        let mut answer = FetchResponse::decode(&mut body, version).unwrap();
        change(&mut answer);
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}

/// Answers name topics by their ids alone, and in any order.
#[tokio::test(start_paused = true)]
async fn responses_are_told_apart_by_topic_ids() {
    let cluster = cluster(1, 1);
    cluster.create_topic("u", 1, 1).unwrap();
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let producer = client.producer().build().unwrap();
    for topic in ["t", "u"] {
        acked(&producer, Record::to(topic).value(topic)).await;
    }
    change(&hostile, |answer| {
        answer.responses.reverse();
    });
    let mut consumer = client.consumer().topics(["t", "u"]).build().unwrap();
    for _ in 0..2 {
        let batch = within("a record", consumer.next()).await.unwrap().unwrap();
        let record = batch.get(0).unwrap();
        assert_eq!(record.value(), Some(batch.topic().as_bytes()));
    }
    assert!(hostile.done() > 0);
}

/// A broker that refuses the request as a whole is told of by what it said.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_whole_response_is_told_by_its_code() {
    let cluster = cluster(1, 2);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let refused = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&refused);
    change(&hostile, move |answer| {
        if refuses.load(Ordering::Relaxed) {
            answer.error_code = 56;
            answer.responses.clear();
        }
    });
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    for spell in 0..2 {
        let error = within("the trouble", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.broker_code(), Some(56), "{spell}: {error}");
        refused.store(false, Ordering::Relaxed);
        write(&client, 0).await;
        within("a record", consumer.next()).await.unwrap().unwrap();
        refused.store(true, Ordering::Relaxed);
    }
}

/// What is refused is asked for again with pauses, and every time is paid for.
#[tokio::test(start_paused = true)]
async fn what_is_refused_is_asked_for_at_a_pace_and_paid() {
    let cluster = cluster(1, 1);
    let (_hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    let refused = FaultRule::new(Fault::Error(6)).api(ApiKey::FETCH).always();
    cluster.faults().inject(refused);
    let (asked, begun) = (seen(&cluster, 1, ApiKey::FETCH), Instant::now());
    let level = || client.stats().retry_budget.fetch.level.unwrap();
    until("eight more", || seen(&cluster, 1, ApiKey::FETCH) >= asked + 8).await;
    assert!(begun.elapsed() > ms(500), "{:?}", begun.elapsed());
    // Twenty in the beginning, and one a second.
    let most = 20.0 - 6.0 + begun.elapsed().as_secs_f64();
    assert!(level() < most, "{} of {most}", level());
}

/// A partition that is tried again rides along with those that are not.
#[tokio::test(start_paused = true)]
async fn who_rides_along_is_no_retry() {
    let cluster = cluster(1, 2);
    let (_hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    write(&client, 1).await;
    let mut consumer = client.consumer().topics(["t"]).max_wait(ms(100)).build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    let refused = FaultRule::new(Fault::Error(6)).api(ApiKey::FETCH).topic("t").partition(0);
    cluster.faults().inject(refused.always());
    let fired = cluster.faults().fired();
    until("refusals", || cluster.faults().fired() >= fired + 8).await;
    let fetches = requests(&client, 1, "Fetch");
    assert!(fetches.sent > 8, "{fetches:?}");
    assert_eq!(fetches.retries, 0);
}

/// What nobody reads any more is not asked for, while others are.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_far_enough_ahead_is_not_asked_for() {
    let cluster = cluster(1, 2);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let producer = small_batches(&client).build().unwrap();
    acks(send_pinned(&producer, 0..200).await).await;
    let reader = client.consumer().topics(["t"]).max_bytes(16 << 10);
    let mut consumer = reader.max_partition_bytes(8 << 10).build().unwrap();
    let held = || {
        let session = cluster.fetch_sessions(1).unwrap().pop();
        let parts = session.map(|session| session.partitions).unwrap_or_default();
        parts.iter().map(|part| part.partition).collect::<Vec<_>>()
    };
    until("it is given up", || held() == [1]).await;
    asked::<FetchRequest>(&hostile);
    tokio::time::sleep(secs(10)).await;
    let fetches = asked::<FetchRequest>(&hostile);
    assert!(fetches.len() > 5, "the other one is asked for: {}", fetches.len());
    assert!(fetches.iter().all(|(_, fetch)| fetch.topics.is_empty()), "and it is not");
    for _ in 0..200 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
}

/// Nobody leads a partition for a while: somebody is asked who does, now and then, the application
/// is told, and reading goes on.
#[tokio::test(start_paused = true)]
async fn a_partition_that_nobody_leads_is_asked_about() {
    let cluster = cluster(2, 1);
    let (_hostile, client) = start(&cluster, ApiKey::FETCH).await;
    write(&client, 0).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    cluster.remove_leader("t", 0).unwrap();
    let error = within("the trouble", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.broker_code(), Some(5), "{error}");
    let asked = || cluster.stats().requests_of(ApiKey::METADATA);
    let before = asked();
    tokio::time::sleep(secs(30)).await;
    assert!((3..=60).contains(&(asked() - before)), "{}", asked() - before);
    cluster.move_leader("t", 0, 2).unwrap();
    let begun = Instant::now();
    let other = connect(ottla_scenarios::virtual_cluster::client(&cluster, 9)).await;
    write(&other, 0).await;
    within("a record", consumer.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() < secs(15), "{:?}", begun.elapsed());
}

/// The first response for a partition counts, and no other in the same message.
#[tokio::test(start_paused = true)]
async fn a_second_response_for_a_partition_is_none() {
    let cluster = cluster(1, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    change(&hostile, |answer| {
        let again: Vec<_> = answer
            .responses
            .iter()
            .map(|topic| {
                let mut topic = topic.clone();
                topic.partitions.iter_mut().for_each(|p| p.error_code = 29);
                topic
            })
            .collect();
        answer.responses.extend(again);
    });
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    for _ in 0..5 {
        write(&client, 0).await;
        within("a record", consumer.next()).await.unwrap().expect("nobody refused it");
    }
    assert!(hostile.done() > 0);
}

/// A broker that does not know the epoch of a position says that it is out of range: it is asked once
/// more, by the offset alone.
#[tokio::test(start_paused = true)]
async fn out_of_range_by_an_epoch_is_no_reset() {
    let cluster = cluster(1, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    let mut consumer = client.consumer().topics(["t"]).max_wait(ms(100)).build().unwrap();
    write(&client, 0).await;
    within("a record", consumer.next()).await.unwrap().unwrap();
    let once = AtomicBool::new(true);
    change(&hostile, move |answer| {
        for at in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let empty = at.records.as_ref().is_none_or(Bytes::is_empty);
            if empty && once.swap(false, Ordering::Relaxed) {
                at.error_code = 1;
            }
        }
    });
    tokio::time::sleep(secs(1)).await;
    assert_eq!(write(&client, 0).await, 1);
    let batch = within("a record", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 1, "what was read is not read once more");
}

/// So is what fails as a whole.
#[tokio::test(start_paused = true)]
async fn responses_that_fail_as_a_whole_are_asked_for_at_a_pace() {
    let cluster = cluster(1, 1);
    let (hostile, client) = start(&cluster, ApiKey::FETCH).await;
    change(&hostile, |answer| {
        answer.error_code = 56;
        answer.responses.clear();
    });
    let _consumer = client.consumer().topics(["t"]).max_wait(ms(0)).build().unwrap();
    until("a fetch", || seen(&cluster, 1, ApiKey::FETCH) > 0).await;
    tokio::time::sleep(secs(3)).await;
    let asked = asked::<FetchRequest>(&hostile).len();
    assert!((3..=15).contains(&asked), "{asked}");
}
