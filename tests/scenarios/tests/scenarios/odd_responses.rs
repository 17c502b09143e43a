//! Responses to Produce that are well-formed and odd: partitions left out or added, another order, no
//! offset, a leader that nobody knows. In virtual time.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{BrokerId, MetadataResponse, ProduceResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Acked, Client, Producer, Record};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{acked, cluster, connect, free, pinned, secs};
use ottla_scenarios::wait::within;
use tokio::time::Instant;

const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// Changes every response to Produce.
fn change(hostile: &Hostile, changed: impl Fn(&mut ProduceResponse) + Send + Sync + 'static) {
    change_any(hostile, ApiKey::PRODUCE, changed);
}

/// Changes every answer to a request whose responses have tagged fields.
fn change_any<A: Decodable + Encodable>(
    hostile: &Hostile,
    api: ApiKey,
    change: impl Fn(&mut A) + Send + Sync + 'static,
) {
    hostile.rewrite(api, move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        assert_eq!(body.get_u8(), 0, "the broker writes no tagged fields in headers");
        out.put_u8(0);
        let mut answer = A::decode(&mut body, version).unwrap();
        change(&mut answer);
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}

struct Odd {
    cluster: Cluster,
    hostile: Hostile,
    client: Client,
    producer: Producer,
}

/// One broker, three partitions, a record in each.
async fn start(brokers: i32, partitions: i32) -> Odd {
    let cluster = cluster(brokers, partitions);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..partitions {
        acked(&producer, pinned(partition)).await;
    }
    Odd { cluster, hostile, client, producer }
}

/// Sends a record to each partition, in one request; each is there once afterwards.
async fn second_record_of_each(odd: &Odd) -> Vec<Acked> {
    let before = odd.cluster.stats().requests_of(ApiKey::PRODUCE);
    let sent: Vec<_> = (0..3).map(|p| odd.producer.try_send(pinned(p)).unwrap()).collect();
    let begun = Instant::now();
    let mut at = Vec::new();
    for delivery in sent {
        at.push(within("an ack", delivery).await.unwrap());
    }
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    assert!(odd.hostile.done() > 0);
    let requests = odd.cluster.stats().requests_of(ApiKey::PRODUCE) - before;
    assert!(requests <= 2, "{requests} requests");
    for partition in 0..3 {
        assert_eq!(odd.cluster.records("t", partition).unwrap().len(), 2, "in {partition}");
        assert_eq!(at[partition as usize].partition, partition);
    }
    at
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_response_leaves_out_is_in_doubt_and_no_other() {
    let odd = start(1, 3).await;
    let once = AtomicBool::new(true);
    change(&odd.hostile, move |answer| {
        let parts = &mut answer.responses[0].partition_responses;
        if parts.len() > 1 && once.swap(false, Ordering::Relaxed) {
            parts.remove(1);
        }
    });
    let at = second_record_of_each(&odd).await;
    assert!(at.iter().all(|at| at.offset == 1), "{at:?}");
    let duplicates: u64 = odd.cluster.stats().brokers.iter().map(|b| b.produce_duplicates).sum();
    assert_eq!(duplicates, 1, "what was left out is sent again in place");
}

#[tokio::test(start_paused = true)]
async fn partitions_that_nobody_asked_about_change_nothing() {
    let odd = start(1, 3).await;
    change(&odd.hostile, |answer| {
        let refused = |index| {
            let part = PartitionProduceResponse::default();
            part.with_index(index).with_error_code(10).with_base_offset(-1)
        };
        answer.responses[0].partition_responses.insert(0, refused(99));
        answer.responses[0].partition_responses.push(refused(-1));
        answer.responses.push(
            TopicProduceResponse::default()
                .with_name(TopicName(StrBytes::from_static_str("u")))
                .with_topic_id(uuid::Uuid::from_u128(1))
                .with_partition_responses(vec![refused(0)]),
        );
        answer.responses[0].partition_responses.reverse();
    });
    let at = second_record_of_each(&odd).await;
    assert!(at.iter().all(|at| at.offset == 1), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn without_an_offset_a_record_is_acknowledged_somewhere() {
    for offset in [-1, -7, i64::MIN] {
        let odd = start(1, 3).await;
        change(&odd.hostile, move |answer| {
            for part in &mut answer.responses[0].partition_responses {
                part.base_offset = offset;
            }
        });
        let at = second_record_of_each(&odd).await;
        assert!(at.iter().all(|at| at.offset == -1), "{at:?}");
    }
}

/// The response that names the new leader does not say where it is.
#[tokio::test(start_paused = true)]
async fn a_new_leader_that_nobody_knows_is_asked_for() {
    for record in [free(), pinned(0)] {
        let odd = start(3, 1).await;
        change(&odd.hostile, |answer| {
            let leader = &mut answer.responses[0].partition_responses[0].current_leader.leader_id;
            *leader = if leader.0 >= 0 { BrokerId(9) } else { *leader };
            answer.node_endpoints.clear();
        });
        odd.cluster.move_leader("t", 0, 2).unwrap();
        let begun = Instant::now();
        assert_eq!(acked(&odd.producer, record).await.offset, 1);
        assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
        assert!(odd.hostile.done() >= 2 && odd.client.stats().hints_applied == 1);
    }
}

/// KIP-1102: the broker that was asked wants the client to begin again from the bootstrap list. What
/// is on its way, and what there are connections for, does not notice.
#[tokio::test(start_paused = true)]
async fn a_broker_sends_the_client_back_to_the_bootstrap_list() {
    let odd = start(3, 3).await;
    odd.cluster.create_topic("u", 3, 3).unwrap();
    let again = AtomicBool::new(true);
    change_any(&odd.hostile, ApiKey::METADATA, move |answer: &mut MetadataResponse| {
        if again.swap(false, Ordering::Relaxed) {
            answer.error_code = 129;
            answer.brokers.clear();
            answer.topics.clear();
        }
    });
    let begun = Instant::now();
    let new = odd.producer.send(Record::to("u").value("x")).await.unwrap();
    for partition in 0..3 {
        acked(&odd.producer, pinned(partition)).await;
        acked(&odd.producer, free()).await;
    }
    within("an ack", new).await.unwrap();
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    assert_eq!(odd.client.stats().metadata_reasons.rebootstrap, 1);
    for id in odd.cluster.broker_ids() {
        odd.cluster.cut_connections(id).unwrap();
    }
    for partition in 0..3 {
        acked(&odd.producer, pinned(partition)).await;
    }
}

/// It may be written, whatever the response says of others: it is not to be in another partition as well.
#[tokio::test(start_paused = true)]
async fn what_the_response_leaves_out_goes_nowhere_else() {
    let odd = start(1, 3).await;
    let once = AtomicBool::new(true);
    change(&odd.hostile, move |answer| {
        if once.swap(false, Ordering::Relaxed) {
            answer.responses.clear();
        }
    });
    acked(&odd.producer, free()).await;
    let stored: usize = (0..3).map(|p| odd.cluster.records("t", p).unwrap().len()).sum();
    assert_eq!(stored, 3 + 1);
}

/// Partitions are told apart by their numbers, not by their order.
#[tokio::test(start_paused = true)]
async fn responses_in_another_order_are_told_apart() {
    let odd = start(1, 3).await;
    for partition in 1..3 {
        for _ in 0..partition {
            acked(&odd.producer, pinned(partition)).await;
        }
    }
    change(&odd.hostile, |answer| {
        for topic in &mut answer.responses {
            topic.partition_responses.reverse();
        }
    });
    let sent: Vec<_> = (0..3).map(|p| odd.producer.try_send(pinned(p)).unwrap()).collect();
    for (partition, delivery) in (0..).zip(sent) {
        let at = within("an ack", delivery).await.unwrap();
        assert_eq!((at.partition, at.offset), (partition, i64::from(partition) + 1));
    }
}

/// The broker's clock, where the topic says so.
#[tokio::test(start_paused = true)]
async fn the_time_of_the_append_is_the_records() {
    let odd = start(1, 1).await;
    change(&odd.hostile, |answer| {
        answer.responses[0].partition_responses[0].log_append_time_ms = 12_345;
    });
    assert_eq!(acked(&odd.producer, pinned(0)).await.timestamp_ms, 12_345);
}

/// The broker has it already, and does not remember where.
#[tokio::test(start_paused = true)]
async fn what_is_called_a_duplicate_is_written() {
    let odd = start(1, 1).await;
    let duplicate = Fault::ErrorAfterAppend(DUPLICATE_SEQUENCE_NUMBER);
    odd.cluster.faults().inject(FaultRule::new(duplicate).api(ApiKey::PRODUCE));
    assert_eq!(acked(&odd.producer, pinned(0)).await.offset, -1);
    assert_eq!(odd.cluster.records("t", 0).unwrap().len(), 2);
}
