//! What one broker says alone fails nobody: a response that cannot be read, an error of its own, a
//! topic it does not know (yet), a right it does not see. Others are asked. In virtual time.

use std::sync::atomic::{AtomicI32, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{BrokerId, MetadataResponse};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ottla::testing::{ApiKey, Fault, FaultRule, Leaders};
use ottla::{ErrorKind, OffsetSpec, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::steps::{acked, cluster, connect, free, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

const UNKNOWN_SERVER_ERROR: i16 = -1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;

/// One malformed answer, of each kind: it condemns the connection it came by.
#[tokio::test(start_paused = true)]
async fn a_malformed_metadata_response_of_one_broker_fails_no_record() {
    for damage in [Damage::Short, Damage::Noise, Damage::Ones, Damage::HugeCount, Damage::Tiny] {
        let cluster = cluster(3, 3);
        let hostile = Hostile::new(&cluster);
        let client = connect(hostile.client(&cluster)).await;
        let producer = client.producer().build().unwrap();
        for topic in ["t", "u"] {
            if topic == "u" {
                cluster.create_topic("u", 3, 3).unwrap();
            }
            hostile.next(ApiKey::METADATA, damage);
            let begun = Instant::now();
            let waiting = producer.send(Record::to(topic).value("x")).await.unwrap();
            let asked = client.admin().partitions(topic).await;
            assert_eq!(asked.expect("others know it"), 3, "{damage:?}");
            within("an ack", waiting).await.unwrap_or_else(|e| panic!("{damage:?}, {topic}: {e}"));
            assert!(begun.elapsed() < secs(2), "{damage:?}: {:?}", begun.elapsed());
        }
        assert_eq!(hostile.done(), 2);
    }
}

/// All three, once: they spoke Kafka when they were dialled.
#[tokio::test(start_paused = true)]
async fn a_bad_moment_before_all_brokers_fails_no_record() {
    let cluster = cluster(3, 3);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    let producer = client.producer().build().unwrap();
    for _ in 0..3 {
        hostile.next(ApiKey::METADATA, Damage::HugeLength);
    }
    let waiting = producer.send(Record::to("t").value("x")).await.unwrap();
    within("an ack", waiting).await.unwrap();
    assert_eq!(hostile.done(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_brokers_own_is_asked_again_elsewhere() {
    for seed in 0..6 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        for api in [ApiKey::METADATA, ApiKey::INIT_PRODUCER_ID] {
            // Whichever is asked first.
            cluster.faults().on(None, api, Fault::Error(UNKNOWN_SERVER_ERROR), 1);
        }
        let producer = client.producer().build().unwrap();
        let begun = Instant::now();
        let mut sent = Vec::new();
        for partition in 0..3 {
            sent.push(producer.send(pinned(partition)).await.unwrap());
        }
        for delivery in sent {
            within("an ack", delivery).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
        assert!(begun.elapsed() < secs(2), "seed {seed}: {:?}", begun.elapsed());
        assert_eq!(cluster.faults().fired(), 2);
    }
}

/// Also when it says so again and again, and when it refuses.
#[tokio::test(start_paused = true)]
async fn one_broker_that_gives_no_producer_ids_stops_nobody() {
    for code in [UNKNOWN_SERVER_ERROR, CLUSTER_AUTHORIZATION_FAILED] {
        for seed in 0..6 {
            let cluster = cluster(3, 3);
            let client = connect(virtual_cluster::client(&cluster, seed)).await;
            client.admin().partitions("t").await.unwrap();
            let rule = FaultRule::new(Fault::Error(code)).api(ApiKey::INIT_PRODUCER_ID).broker(1);
            cluster.faults().inject(rule.always());
            let producer = client.producer().build().unwrap();
            let begun = Instant::now();
            acked(&producer, free()).await;
            assert!(begun.elapsed() < secs(2), "{code}, seed {seed}: {:?}", begun.elapsed());
        }
    }
}

/// What all of them refuse is refused, soon; and used again by itself once they do not.
#[tokio::test(start_paused = true)]
async fn what_every_broker_refuses_is_refused_until_they_do_not() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    client.admin().partitions("t").await.unwrap();
    let rule = FaultRule::new(Fault::Error(CLUSTER_AUTHORIZATION_FAILED));
    let rule = cluster.faults().inject(rule.api(ApiKey::INIT_PRODUCER_ID).always());
    let producer = client.producer().build().unwrap();
    let begun = Instant::now();
    let error = within("an end", producer.send(free()).await.unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Authorization, false), "{error}");
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    assert!(cluster.faults().remove(rule));
    acked(&producer, free()).await;
}

/// All brokers are in trouble for a while: that is no refusal, and records wait.
#[tokio::test(start_paused = true)]
async fn errors_of_all_brokers_own_are_waited_out() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    for api in [ApiKey::METADATA, ApiKey::INIT_PRODUCER_ID] {
        cluster.faults().on(None, api, Fault::Error(UNKNOWN_SERVER_ERROR), 8);
    }
    let producer = client.producer().build().unwrap();
    let begun = Instant::now();
    acked(&producer, free()).await;
    assert!(begun.elapsed() < secs(60), "{:?}", begun.elapsed());
    assert_eq!(cluster.faults().fired(), 16);
}

/// A topic in use that one broker answers an error for. The others know better, and are asked.
#[tokio::test(start_paused = true)]
async fn a_topic_in_use_outlives_one_brokers_error() {
    let codes =
        [UNKNOWN_SERVER_ERROR, UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED, 42, 17, 87];
    for code in codes {
        for seed in 0..2 {
            let cluster = cluster(3, 3);
            let client = connect(virtual_cluster::client(&cluster, seed)).await;
            let producer = client.producer().build().unwrap();
            acked(&producer, pinned(0)).await;
            let rule = FaultRule::new(Fault::Error(code)).api(ApiKey::METADATA).topic("t");
            cluster.faults().inject(rule.broker(2).always());
            let mut consumer = client.consumer().topics(["t"]).build().unwrap();
            within("the record", consumer.next()).await.unwrap().unwrap();
            // Leaders move and connections break: each time metadata is asked for.
            for round in 0..8 {
                let leader = 1 + round % 3;
                cluster.move_leader("t", 0, leader).unwrap();
                cluster.cut_connections(leader).unwrap();
                acked(&producer, pinned(0)).await;
                let batch = within("the record", consumer.next()).await.unwrap();
                batch.unwrap_or_else(|e| panic!("{code}, seed {seed}: {e}"));
                tokio::time::sleep(secs(3)).await;
            }
        }
    }
}

/// Two brokers that agree are believed, also of a topic in use.
#[tokio::test(start_paused = true)]
async fn a_topic_in_use_that_is_forbidden_and_allowed_again() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let refused = |api| {
        let rule = FaultRule::new(Fault::Error(TOPIC_AUTHORIZATION_FAILED)).api(api);
        cluster.faults().inject(rule.topic("t").always())
    };
    let rules = [refused(ApiKey::METADATA), refused(ApiKey::PRODUCE)];
    for _ in 0..20 {
        let sent = match producer.send(free()).await {
            Ok(delivery) => within("an end", delivery).await.map(drop),
            Err(e) => Err(e),
        };
        let error = sent.unwrap_err();
        assert_eq!(
            (error.kind(), error.maybe_written()),
            (ErrorKind::Authorization, false),
            "{error}"
        );
        tokio::time::sleep(secs(30)).await;
    }
    assert!(rules.map(|rule| cluster.faults().remove(rule)).iter().all(|gone| *gone));
    tokio::time::sleep(secs(6)).await;
    acked(&producer, free()).await;
}

/// Whose offsets they are nobody else can tell: it is asked again.
#[tokio::test(start_paused = true)]
async fn an_offset_that_its_leader_fails_to_tell_once_is_asked_for_again() {
    for code in [UNKNOWN_SERVER_ERROR, 56, 75, 78] {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let rule = FaultRule::new(Fault::Error(code)).api(ApiKey::LIST_OFFSETS).topic("t");
        cluster.faults().inject(rule.times(2));
        let wanted = (0..3).map(|partition| ("t", partition, OffsetSpec::Latest));
        let found = client.admin().list_offsets(wanted).await.unwrap();
        let found: Vec<i64> = found.into_iter().map(|(_, offset)| offset.unwrap()).collect();
        assert_eq!(found, [0, 0, 0], "{code}");
    }
}

/// A broker names one that is called -1, as brokers do where nobody is: it is not dialled, and the
/// bootstrap address that goes by that number here stays what it is.
#[tokio::test(start_paused = true)]
async fn a_broker_below_zero_is_nobody() {
    let cluster = cluster(3, 3);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    let producer = client.producer().build().unwrap();
    change(&hostile, |response| {
        for id in [-1, -2, -3, i32::MIN] {
            let nobody = MetadataResponseBroker::default().with_node_id(BrokerId(id));
            let host = StrBytes::from_static_str("nowhere");
            response.brokers.push(nobody.with_host(host).with_port(9092));
        }
    });
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    // Until nothing is left but the bootstrap list.
    while !client.cluster().brokers.is_empty() {
        drop(producer.send(free()).await.unwrap());
        tokio::time::sleep(secs(10)).await;
    }
    for broker in cluster.broker_ids() {
        cluster.start_broker(broker).unwrap();
    }
    acked(&producer, free()).await;
    assert!(hostile.done() > 0);
    assert_eq!(client.cluster().brokers.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
}

/// A cluster whose brokers are replaced all the time, each by one with another id.
#[tokio::test(start_paused = true)]
async fn brokers_that_are_gone_are_forgotten() {
    let cluster = cluster(3, 3);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let responses = AtomicI32::new(0);
    change(&hostile, move |response| {
        let first = 1_000 + 30 * responses.fetch_add(1, Ordering::Relaxed);
        for id in first..first + 30 {
            let new = MetadataResponseBroker::default().with_node_id(BrokerId(id));
            let host = StrBytes::from_static_str("nowhere");
            response.brokers.push(new.with_host(host).with_port(9092));
        }
    });
    for round in 0..200 {
        acked(&producer, pinned(round % 3)).await;
        tokio::time::sleep(secs(400)).await;
    }
    let stats = client.stats();
    assert!(hostile.done() > 50, "{} answers", hostile.done());
    assert!(stats.brokers.len() < 140, "{} brokers", stats.brokers.len());
    assert_eq!(client.cluster().brokers.len(), 33);
    assert_eq!(stats.records_acknowledged, 201);
}

/// The whole cluster has just started: for ten seconds no broker knows of any other, nor of a topic.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_has_just_started_knows_nothing_yet() {
    for seed in 0..6 {
        let cluster = cluster(3, 3);
        cluster.create_topic("u", 3, 3).unwrap();
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().delivery_timeout(secs(60)).build().unwrap();
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        acked(&producer, pinned(0)).await;
        within("the record", consumer.next()).await.unwrap().unwrap();
        let unknown = |api| {
            let rule = FaultRule::new(Fault::Error(UNKNOWN_TOPIC_OR_PARTITION)).api(api);
            cluster.faults().inject(rule.topic("t").always())
        };
        let rules = [ApiKey::PRODUCE, ApiKey::FETCH].map(unknown);
        for broker in cluster.broker_ids() {
            cluster.forget_cluster(broker).unwrap();
            cluster.cut_connections(broker).unwrap();
        }
        let healed = async {
            tokio::time::sleep(secs(10)).await;
            for broker in cluster.broker_ids() {
                cluster.reconnect_broker(broker).unwrap();
            }
            assert!(rules.map(|rule| cluster.faults().remove(rule)).iter().all(|gone| *gone));
        };
        let begun = Instant::now();
        // What is in use, and who comes anew: of this client, and a client of its own.
        let newcomer = connect(virtual_cluster::client(&cluster, 100 + seed)).await;
        let news = newcomer.producer().delivery_timeout(secs(60)).build().unwrap();
        let records = async {
            let known = producer.send(pinned(0)).await.unwrap();
            let free = producer.send(free()).await.unwrap();
            let new = producer.send(Record::to("u").value("x")).await.unwrap();
            let theirs = news.send(pinned(1)).await.unwrap();
            for delivery in [known, free, new, theirs] {
                within("an ack", delivery).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
        };
        let admin = client.admin();
        let partitions = async { admin.partitions("u").await.unwrap() };
        let read = async {
            let batch = within("the record", consumer.next()).await.unwrap();
            batch.unwrap_or_else(|e| panic!("seed {seed}: {e}"))
        };
        let ((), partitions, batch, ()) = tokio::join!(records, partitions, read, healed);
        assert_eq!((partitions, batch.len()), (3, 1));
        assert!(begun.elapsed() < secs(18), "seed {seed}: {:?}", begun.elapsed());
    }
}

/// It stays like that: who waits has an end of its own.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_cluster_that_knows_nothing_waits_its_own_time() {
    let cluster = cluster(3, 3);
    for broker in cluster.broker_ids() {
        cluster.forget_cluster(broker).unwrap();
    }
    let client = virtual_cluster::client(&cluster, 1).request_timeout(secs(20));
    let client = connect(client).await;
    let producer = client.producer().delivery_timeout(secs(30)).build().unwrap();
    let begun = Instant::now();
    let waits = producer.send(free()).await.unwrap();
    let error = client.admin().partitions("t").await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert!((secs(20)..secs(21)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let error = within("an end", waits).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false), "{error}");
    assert!((secs(30)..secs(31)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let asked = cluster.stats().requests_of(ApiKey::METADATA);
    assert!(asked < 40, "{asked} requests in half a minute");
}

/// Changes every response to Metadata.
fn change(hostile: &Hostile, change: impl Fn(&mut MetadataResponse) + Send + Sync + 'static) {
    hostile.rewrite(ApiKey::METADATA, move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        assert_eq!(body.get_u8(), 0, "the broker writes no tagged fields in headers");
        out.put_u8(0);
        let mut response = MetadataResponse::decode(&mut body, version).unwrap();
        change(&mut response);
        response.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}
