//! Fetch sessions (KIP-227): what a broker knows of a consumer is not said again, and whatever becomes of a session,
//! each record is read once and in order. In virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{FetchRequest, FetchResponse, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, SessionInfo};
use ottla::{Client, Consumer, ErrorKind, Record, Start};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{acked, cluster, connect, ms, requests, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

async fn client(cluster: &Cluster, seed: u64) -> Client {
    connect(virtual_cluster::client(cluster, seed)).await
}

/// One record in each partition, by somebody else.
async fn write_each(cluster: &Cluster, partitions: i32) {
    let producer = client(cluster, 77).await;
    let producer = small_batches(&producer).build().unwrap();
    for partition in 0..partitions {
        acked(&producer, Record::to("t").partition(partition).value("x")).await;
    }
}

/// The next record: its partition and its offset.
async fn next(consumer: &mut Consumer) -> (i32, i64) {
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.len(), 1);
    (batch.partition(), batch.base_offset())
}

/// One record of each partition, and nothing else: all at this offset.
async fn one_of_each(consumer: &mut Consumer, partitions: i32, offset: i64) {
    let mut got = Vec::new();
    for _ in 0..partitions {
        got.push(next(consumer).await);
    }
    got.sort_unstable();
    assert_eq!(got, (0..partitions).map(|partition| (partition, offset)).collect::<Vec<_>>());
}

fn sessions(cluster: &Cluster, broker: i32) -> Vec<SessionInfo> {
    cluster.fetch_sessions(broker).unwrap()
}

/// The partitions that the only session of broker 1 holds.
fn held(cluster: &Cluster) -> Vec<i32> {
    let mut sessions = sessions(cluster, 1);
    assert!(sessions.len() <= 1, "{sessions:?}");
    let held = sessions.pop().map(|session| session.partitions).unwrap_or_default();
    let mut held: Vec<i32> = held.into_iter().map(|held| held.partition).collect();
    held.sort_unstable();
    held
}

/// What each Fetch since the last call said: its session, epoch, and how many partitions it named and gave up.
fn asked(hostile: &Hostile) -> Vec<(i32, i32, usize, usize)> {
    let read = |(version, bytes): (i16, Vec<u8>)| {
        let mut bytes = Bytes::from(bytes);
        RequestHeader::decode(&mut bytes, FetchRequest::header_version(version)).unwrap();
        let fetch = FetchRequest::decode(&mut bytes, version).unwrap();
        let named = fetch.topics.iter().map(|topic| topic.partitions.len()).sum();
        let given_up = fetch.forgotten_topics_data.iter().map(|topic| topic.partitions.len());
        (fetch.session_id, fetch.session_epoch, named, given_up.sum())
    };
    hostile.requests().into_iter().map(read).collect()
}

/// A reader of all, whose requests are seen.
async fn watched(cluster: &Cluster) -> (Hostile, Client, Consumer) {
    let hostile = Hostile::new(cluster);
    hostile.watch(ApiKey::FETCH);
    let client = connect(hostile.client(cluster)).await;
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    (hostile, client, consumer)
}

/// Fetch bytes in and out within a minute in which nothing is written.
async fn idle_minute(partitions: i32) -> (u64, u64, u64) {
    let cluster = cluster(1, partitions);
    let client = client(&cluster, 1).await;
    let _consumer = client.consumer().topics(["t"]).build().unwrap();
    until("a session", || held(&cluster).len() == partitions as usize).await;
    tokio::time::sleep(secs(5)).await;
    let before = cluster.stats();
    tokio::time::sleep(secs(60)).await;
    let after = cluster.stats();
    (
        after.requests_of(ApiKey::FETCH) - before.requests_of(ApiKey::FETCH),
        after.brokers[0].fetch_request_bytes - before.brokers[0].fetch_request_bytes,
        after.brokers[0].fetch_response_bytes - before.brokers[0].fetch_response_bytes,
    )
}

#[tokio::test(start_paused = true)]
async fn s27_a_thousand_idle_partitions_cost_as_much_as_ten() {
    let ten = idle_minute(10).await;
    assert!((100..=130).contains(&ten.0), "two requests a second, as long polls are: {ten:?}");
    assert_eq!(idle_minute(1_000).await, ten);
    assert!(ten.1 / ten.0 < 100 && ten.2 / ten.0 < 100, "{ten:?}");
}

/// And what is read is named again with its new offset, and nothing else is.
#[tokio::test(start_paused = true)]
async fn s27_nothing_is_named_that_did_not_change() {
    let cluster = cluster(1, 5);
    write_each(&cluster, 5).await;
    let (hostile, _client, mut consumer) = watched(&cluster).await;
    one_of_each(&mut consumer, 5, 0).await;
    tokio::time::sleep(secs(2)).await;
    let session = sessions(&cluster, 1).pop().unwrap();
    let all = asked(&hostile);
    assert_eq!((all[0], all[1]), ((0, 0, 5, 0), (session.id, 1, 5, 0)), "{all:?}");
    assert!(all[2..].iter().all(|ask| (ask.0, ask.2, ask.3) == (session.id, 0, 0)), "{all:?}");
    let producer = client(&cluster, 78).await.producer().build().unwrap();
    acked(&producer, Record::to("t").partition(3).value("x")).await;
    assert_eq!(next(&mut consumer).await, (3, 1));
    tokio::time::sleep(secs(2)).await;
    let named: usize = asked(&hostile).iter().map(|ask| ask.2).sum();
    assert_eq!(named, 1);
    assert!(session.topic_ids);
}

/// As a broker that was started again, or had no slot left for it.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_forgotten_is_begun_anew_at_once() {
    let cluster = cluster(1, 3);
    let (hostile, _client, mut consumer) = watched(&cluster).await;
    for offset in 0..5 {
        until("a session", || held(&cluster).len() == 3).await;
        cluster.forget_fetch_sessions(1).unwrap();
        let begun = tokio::time::Instant::now();
        write_each(&cluster, 3).await;
        one_of_each(&mut consumer, 3, offset).await;
        assert!(begun.elapsed() < ms(600), "no longer than a long poll: {:?}", begun.elapsed());
    }
    let full = asked(&hostile).iter().filter(|ask| ask.1 == 0).count();
    assert_eq!(full, 6, "one for each");
}

/// Whatever it answers instead, the next request rests on nothing.
#[tokio::test(start_paused = true)]
async fn errors_of_sessions_are_no_errors_of_partitions() {
    for code in [70, 71, 106] {
        let cluster = cluster(1, 3);
        let client = client(&cluster, 1).await;
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        until("a session", || held(&cluster).len() == 3).await;
        cluster.faults().inject(FaultRule::new(Fault::SessionError(code)).api(ApiKey::FETCH));
        write_each(&cluster, 3).await;
        one_of_each(&mut consumer, 3, 0).await;
        assert_eq!(requests(&client, 1, "Fetch").retries, 0, "{code}: nothing was tried again");
    }
}

/// A broker that always does so is not asked without a pause.
#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_to_begin_a_session_is_asked_with_pauses() {
    let cluster = cluster(1, 3);
    cluster
        .faults()
        .inject(FaultRule::new(Fault::SessionError(71)).api(ApiKey::FETCH).times(1_000_000));
    let client = client(&cluster, 1).await;
    let _consumer = client.consumer().topics(["t"]).build().unwrap();
    tokio::time::sleep(secs(60)).await;
    let asked = cluster.stats().requests_of(ApiKey::FETCH);
    assert!((5..300).contains(&asked), "{asked} in a minute");
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_taken_mean_full_fetches() {
    let cluster = Cluster::builder().brokers(1).tcp(false).topic("t", 3, 1).fetch_session_slots(0);
    let cluster = cluster.start_on_current_runtime().unwrap();
    let (hostile, _client, mut consumer) = watched(&cluster).await;
    for offset in 0..3 {
        write_each(&cluster, 3).await;
        one_of_each(&mut consumer, 3, offset).await;
    }
    tokio::time::sleep(secs(10)).await;
    let all = asked(&hostile);
    assert_eq!(all[0], (0, 0, 3, 0));
    assert!(all[1..].iter().all(|ask| *ask == (0, -1, 3, 0)), "{all:?}");
    // It is tried again after a minute or so.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(asked(&hostile).iter().filter(|ask| ask.1 == 0).count(), 1);
}

/// Whether the broker heard the request is not known: it may be an epoch ahead.
#[tokio::test(start_paused = true)]
async fn a_response_that_is_lost_is_read_once() {
    for fault in [Fault::CutBeforeAppend, Fault::CutAfterAppend] {
        let cluster = cluster(1, 3);
        let (hostile, _client, mut consumer) = watched(&cluster).await;
        for offset in 0..5 {
            until("a session", || held(&cluster).len() == 3).await;
            cluster.faults().inject(FaultRule::new(fault).api(ApiKey::FETCH));
            write_each(&cluster, 3).await;
            one_of_each(&mut consumer, 3, offset).await;
        }
        let all = asked(&hostile);
        let begun: Vec<_> = all.iter().filter(|ask| ask.1 == 0).collect();
        assert_eq!(begun.len(), 6, "{fault:?}: {all:?}");
        assert!(
            begun[1..].iter().all(|ask| ask.0 > 0 && ask.2 == 3),
            "the old one is named: {begun:?}"
        );
        assert_eq!(sessions(&cluster, 1).len(), 1, "{fault:?}: the old ones are gone");
    }
}

/// It is empty, and of no session if everything was asked for (KIP-219): neither means anything.
#[tokio::test(start_paused = true)]
async fn throttled_responses_change_nothing() {
    let cluster = cluster(1, 3);
    cluster.faults().inject(FaultRule::new(Fault::Throttle(ms(700))).api(ApiKey::FETCH).times(2));
    let (hostile, client, mut consumer) = watched(&cluster).await;
    write_each(&cluster, 3).await;
    one_of_each(&mut consumer, 3, 0).await;
    until("a session", || held(&cluster).len() == 3).await;
    cluster.faults().inject(FaultRule::new(Fault::Throttle(ms(700))).api(ApiKey::FETCH).times(2));
    write_each(&cluster, 3).await;
    one_of_each(&mut consumer, 3, 1).await;
    let all = asked(&hostile);
    assert_eq!(all.iter().filter(|ask| ask.1 == 0).count(), 3, "{all:?}");
    assert!(all.iter().all(|ask| ask.1 != -1), "no lack of slots: {all:?}");
    assert_eq!(requests(&client, 1, "Fetch").retries, 0);
}

/// Where a slow reader has those that lag left out again and again, they come back in the order of their turns.
#[tokio::test(start_paused = true)]
async fn everybody_has_a_turn_beside_an_idle_one() {
    let cluster = cluster(1, 6);
    let writer = client(&cluster, 77).await;
    let producer = small_batches(&writer).build().unwrap();
    for _ in 0..500 {
        for partition in 0..5 {
            let record = Record::to("t").partition(partition).value(&[7; 700]);
            drop(producer.send(record).await.unwrap());
        }
    }
    within("acks", producer.flush()).await.unwrap();
    let client = client(&cluster, 1).await;
    let reader = client.consumer().topics(["t"]).buffer_memory(64 << 10);
    let mut consumer = reader.max_partition_bytes(16 << 10).build().unwrap();
    let mut got = [0; 6];
    while got.iter().sum::<usize>() < 1_000 {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        got[batch.partition() as usize] += batch.len();
        tokio::time::sleep(ms(1)).await;
    }
    let (least, most) = (got[..5].iter().min().unwrap(), got[..5].iter().max().unwrap());
    assert!(*least > 0 && most - least <= 150, "{got:?}");
}

/// The broker does not tell the end twice in a session: whoever seeks there knows it all the same, nothing fails, and what
/// is written is there at once.
#[tokio::test(start_paused = true)]
async fn a_seek_to_the_end_is_no_trouble() {
    for early in [false, true] {
        let cluster = cluster(1, 1);
        for _ in 0..3 {
            write_each(&cluster, 1).await;
        }
        let (_hostile, client, mut consumer) = watched(&cluster).await;
        if early {
            until("a fetch", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
        } else {
            for offset in 0..3 {
                assert_eq!(next(&mut consumer).await, (0, offset));
            }
            tokio::time::sleep(secs(2)).await;
        }
        for to in [Start::Offset(3), Start::Latest] {
            consumer.seek("t", 0, to).unwrap();
            until("the end is known", || consumer.lag("t", 0) == Some(0)).await;
            tokio::time::sleep(secs(20)).await;
            assert_eq!(consumer.lag("t", 0), Some(0), "{to:?}");
        }
        assert_eq!(requests(&client, 1, "Fetch").retries, 0);
        write_each(&cluster, 1).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(next(&mut consumer).await, (0, 3), "and no error");
        assert!(begun.elapsed() < ms(600), "{:?}", begun.elapsed());
    }
}

/// A broker reads all of a session for each request.
#[tokio::test(start_paused = true)]
async fn what_is_paused_is_given_up_until_it_is_resumed() {
    let cluster = cluster(1, 4);
    let (hostile, _client, mut consumer) = watched(&cluster).await;
    until("a session", || held(&cluster).len() == 4).await;
    consumer.pause([("t", 1), ("t", 2)]).unwrap();
    until("they are given up", || held(&cluster) == [0, 3]).await;
    write_each(&cluster, 4).await;
    let mut got = [next(&mut consumer).await, next(&mut consumer).await];
    got.sort_unstable();
    assert_eq!(got, [(0, 0), (3, 0)]);
    consumer.resume([("t", 2)]).unwrap();
    assert_eq!(next(&mut consumer).await, (2, 0));
    assert_eq!(held(&cluster), [0, 2, 3]);
    asked(&hostile);
    // With nothing left to read there is no session, after a while; and none is needed for what comes later.
    consumer.pause([("t", 0), ("t", 2), ("t", 3)]).unwrap();
    until("nothing is kept", || sessions(&cluster, 1).is_empty()).await;
    assert_eq!(asked(&hostile).last().unwrap().1, -1);
    tokio::time::sleep(secs(30)).await;
    assert_eq!(asked(&hostile), []);
    consumer.resume([("t", 1)]).unwrap();
    assert_eq!(next(&mut consumer).await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn close_gives_sessions_back() {
    let cluster = cluster(3, 6);
    write_each(&cluster, 6).await;
    let client = client(&cluster, 1).await;
    let all = || (1..=3).map(|broker| sessions(&cluster, broker).len()).sum::<usize>();
    for dropped in [false, true] {
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        one_of_each(&mut consumer, 6, 0).await;
        until("sessions", || all() == 3).await;
        if dropped {
            drop(consumer);
        } else {
            consumer.close().await.unwrap();
        }
        until("nothing is kept", || all() == 0).await;
    }
    // Its first requests are under way: whose response comes too late ends it.
    for _ in 0..20 {
        let consumer = client.consumer().topics(["t"]).build().unwrap();
        tokio::task::yield_now().await;
        drop(consumer);
    }
    tokio::time::sleep(secs(5)).await;
    assert_eq!(all(), 0);
}

/// The session knows the old one by its id, and would have it for ever.
#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_under_a_session_is_read_from_its_beginning() {
    let cluster = cluster(1, 2);
    write_each(&cluster, 2).await;
    write_each(&cluster, 2).await;
    let (_hostile, _client, mut consumer) = watched(&cluster).await;
    for _ in 0..4 {
        next(&mut consumer).await;
    }
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    write_each(&cluster, 2).await;
    let told = within("it is told", async {
        loop {
            if let Some(Err(error)) = consumer.next().await
                && error.kind() == ErrorKind::Truncated
            {
                return error;
            }
        }
    });
    assert!(told.await.message().contains("made anew"));
    one_of_each(&mut consumer, 2, 0).await;
    until("they are held by one session", || held(&cluster) == [0, 1]).await;
}

/// Changes every response to Fetch.
fn change(hostile: &Hostile, change: impl Fn(&mut FetchResponse) + Send + Sync + 'static) {
    hostile.rewrite(ApiKey::FETCH, move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        assert_eq!(body.get_u8(), 0, "the broker writes no tagged fields in headers");
        out.put_u8(0);
        let mut answer = FetchResponse::decode(&mut body, version).unwrap();
        change(&mut answer);
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}

/// Partitions that nobody asked for, one twice, sessions that are not ours or none: nothing is lost, nothing read twice,
/// and the broker is not asked without a pause.
#[tokio::test(start_paused = true)]
async fn s33_odd_responses_in_a_session() {
    type Odd = fn(&mut FetchResponse, usize);
    let odd: [(&str, Odd); 5] = [
        ("a stranger", |response, _| {
            if let Some(topic) = response.responses.first_mut() {
                let mut stranger = topic.partitions[0].clone();
                stranger.partition_index = 99;
                topic.partitions.push(stranger);
            }
        }),
        ("twice", |response, _| {
            if let Some(topic) = response.responses.first_mut() {
                topic.partitions.extend_from_within(..);
            }
        }),
        ("another session", |response, n| response.session_id += (n % 2) as i32),
        ("a session below zero", |response, _| response.session_id = -7),
        ("none", |response, n| response.session_id *= (n % 2) as i32),
    ];
    for (name, odd) in odd {
        let cluster = cluster(1, 3);
        let (hostile, _client, mut consumer) = watched(&cluster).await;
        let count = Arc::new(AtomicUsize::new(0));
        change(&hostile, move |response| odd(response, count.fetch_add(1, Ordering::Relaxed)));
        for offset in 0..5 {
            write_each(&cluster, 3).await;
            one_of_each(&mut consumer, 3, offset).await;
        }
        asked(&hostile);
        tokio::time::sleep(secs(60)).await;
        let idle = asked(&hostile).len();
        assert!(idle <= 150, "{name}: {idle} requests in a minute");
    }
}
