//! Scenario 33, the other half: answers that are well-formed and say what no broker should. Partitions
//! named twice, numbers at the end of their range, a decompression bomb.

use allocation_counter::measure;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, FetchRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, ProducerId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use ottla::testing::{ApiKey, Cluster};
use ottla::{Client, Compression, ErrorKind, OffsetSpec, Record, Start};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::wait::within;

/// Changes every answer to a request, as a message.
fn change<R: Request>(hostile: &Hostile, change: impl Fn(&mut R::Response) + Send + Sync + 'static)
where
    R::Response: Decodable + Encodable + HeaderVersion,
{
    hostile.rewrite(ApiKey(R::KEY), move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        if R::Response::header_version(version) >= 1 {
            assert_eq!(body.get_u8(), 0, "the broker writes no tagged fields in headers");
            out.put_u8(0);
        }
        let mut answer = R::Response::decode(&mut body, version).unwrap();
        change(&mut answer);
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}

fn cluster() -> Cluster {
    Cluster::builder().brokers(1).tcp(false).topic("t", 2, 1).start_on_current_runtime().unwrap()
}

async fn start() -> (Cluster, Hostile, Client) {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    let client = within("connect", hostile.client(&cluster).connect()).await.unwrap();
    (cluster, hostile, client)
}

async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    let producer =
        client.producer().batch_size(1 << 10).compression(Compression::None).build().unwrap();
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = format!("{number:0300}");
        let record = Record::to("t").partition(0).value(&value);
        deliveries.push(producer.send(record).await.unwrap());
    }
    for delivery in deliveries {
        within("ack", delivery).await.unwrap();
    }
}

/// Values in the log of partition 0, sorted.
fn stored(cluster: &Cluster) -> Vec<u32> {
    let records = cluster.records("t", 0).unwrap();
    let mut numbers: Vec<u32> = records
        .iter()
        .map(|r| str::from_utf8(r.value.as_ref().unwrap()).unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Offsets of `count` records as a consumer reads them.
async fn read(client: &Client, count: usize) -> ottla::Result<Vec<i64>> {
    let consumer = client.consumer().assign([("t", 0, Start::Earliest)]).max_partition_bytes(2_000);
    let mut consumer = consumer.build().unwrap();
    let mut read = Vec::new();
    while read.len() < count {
        let batch = within("a batch", consumer.next()).await.expect("it is open")?;
        read.extend(batch.iter().map(|r| r.offset()));
    }
    Ok(read)
}

async fn latest(client: &Client) -> ottla::Result<i64> {
    let admin = client.admin();
    let found = within("offsets", admin.list_offsets([("t", 0, OffsetSpec::Latest)])).await?;
    found.into_iter().next().expect("an answer for each partition").1
}

/// The same versions twice, and the same again upside down: whatever is believed, it is a refusal or
/// it works.
#[tokio::test(start_paused = true)]
async fn versions_twice() {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    change::<ApiVersionsRequest>(&hostile, |answer| {
        let again = answer.api_keys.clone();
        answer.api_keys.extend(again);
    });
    let client = within("connect", hostile.client(&cluster).connect()).await.unwrap();
    send(&client, 0..10).await;
    change::<ApiVersionsRequest>(&hostile, |answer| {
        for api in &mut answer.api_keys {
            std::mem::swap(&mut api.min_version, &mut api.max_version);
        }
    });
    let error = within("connect", hostile.client(&cluster).connect()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
}

/// A broker that knows only the first version of the question is asked in that one.
#[tokio::test(start_paused = true)]
async fn versions_are_asked_for_in_the_oldest_way_too() {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    hostile.rewrite(ApiKey::API_VERSIONS, |version, body| match version {
        0 => body.to_vec(),
        // UNSUPPORTED_VERSION, as version 0 has it: one range, of this request.
        _ => [&body[..4], &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 0]].concat(),
    });
    let client = within("connect", hostile.client(&cluster).connect()).await.unwrap();
    send(&client, 0..10).await;
    assert!(stored(&cluster).into_iter().eq(0..10));
}

/// Who answers that question with an error is not spoken with, whatever ranges come along.
#[tokio::test(start_paused = true)]
async fn versions_with_an_error_are_none() {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    change::<ApiVersionsRequest>(&hostile, |answer| answer.error_code = 42);
    let error = within("connect", hostile.client(&cluster).connect()).await.err().unwrap();
    assert!(error.message().contains("INVALID_REQUEST"), "{error}");
}

/// Brokers, topics and partitions twice, and partitions with numbers nobody has.
#[tokio::test(start_paused = true)]
async fn metadata_twice_and_out_of_range() {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    change::<MetadataRequest>(&hostile, |answer| {
        answer.brokers.extend(answer.brokers.clone());
        for topic in &mut answer.topics {
            let mut more = topic.partitions.clone();
            for (partition, number) in more.iter_mut().zip([i32::MAX, -1]) {
                partition.partition_index = number;
            }
            topic.partitions.extend(topic.partitions.clone());
            topic.partitions.extend(more);
        }
        answer.topics.extend(answer.topics.clone());
    });
    let client = within("connect", hostile.client(&cluster).connect()).await.unwrap();
    send(&client, 0..60).await;
    assert!(stored(&cluster).into_iter().eq(0..60));
    assert!(read(&client, 60).await.unwrap().into_iter().eq(0..60));
    assert_eq!(client.admin().partitions("t").await.unwrap(), 2);
}

/// One says written, the other that it certainly is not: sent again in place, kept once.
#[tokio::test(start_paused = true)]
async fn produce_names_a_partition_twice() {
    let (cluster, hostile, client) = start().await;
    send(&client, 0..10).await;
    let lies = std::sync::atomic::AtomicUsize::new(3);
    change::<ProduceRequest>(&hostile, move |answer| {
        let left = lies.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        if left == 0 || left > 3 {
            lies.store(0, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        for topic in &mut answer.responses {
            let mut refused = topic.partition_responses.clone();
            for partition in &mut refused {
                partition.error_code = 6;
                partition.base_offset = -1;
            }
            topic.partition_responses.extend(refused);
        }
    });
    send(&client, 10..60).await;
    assert!(hostile.done() > 3);
    assert!(stored(&cluster).into_iter().eq(0..60), "a record is missing or doubled");
}

#[tokio::test(start_paused = true)]
async fn produce_acknowledges_at_the_end_of_all_offsets() {
    let (_cluster, hostile, client) = start().await;
    change::<ProduceRequest>(&hostile, |answer| {
        for partition in answer.responses.iter_mut().flat_map(|t| &mut t.partition_responses) {
            partition.base_offset = i64::MAX;
        }
    });
    send(&client, 0..10).await;
    assert!(hostile.done() > 0);
}

/// Without an id, a retry would write twice.
#[tokio::test(start_paused = true)]
async fn no_producer_id() {
    let (cluster, hostile, client) = start().await;
    change::<InitProducerIdRequest>(&hostile, |answer| answer.producer_id = ProducerId(-1));
    let patience = std::time::Duration::from_secs(20);
    let producer = client.producer().delivery_timeout(patience).build().unwrap();
    let delivery = producer.send(Record::to("t").partition(0).value("1")).await.unwrap();
    let error = within("ack", delivery).await.unwrap_err();
    assert!(error.message().contains("carries no id"), "{error}");
    assert!(!error.maybe_written());
    assert!(stored(&cluster).is_empty());
}

/// Twice the same records, then an error for what was read: each record is read once.
#[tokio::test(start_paused = true)]
async fn fetch_names_a_partition_twice() {
    let (_cluster, hostile, client) = start().await;
    send(&client, 0..60).await;
    change::<FetchRequest>(&hostile, |answer| {
        for topic in &mut answer.responses {
            topic.partitions.extend(topic.partitions.clone());
            let mut moved = topic.partitions.clone();
            for partition in &mut moved {
                partition.error_code = 6;
                partition.records = None;
            }
            topic.partitions.extend(moved);
        }
    });
    assert!(read(&client, 60).await.unwrap().into_iter().eq(0..60));
}

/// Partitions nobody asked for, by number and by topic.
#[tokio::test(start_paused = true)]
async fn fetch_answers_what_nobody_asked() {
    let (_cluster, hostile, client) = start().await;
    send(&client, 0..60).await;
    change::<FetchRequest>(&hostile, |answer| {
        let mut foreign = answer.responses.clone();
        for topic in &mut foreign {
            topic.topic_id = uuid::Uuid::from_u128(7);
        }
        for topic in &mut answer.responses {
            let mut others = topic.partitions.clone();
            for (partition, number) in others.iter_mut().zip([i32::MIN, i32::MAX]) {
                partition.partition_index = number;
                partition.current_leader.leader_id = BrokerId(i32::MAX);
                partition.current_leader.leader_epoch = i32::MAX;
            }
            topic.partitions.splice(0..0, others);
        }
        answer.responses.splice(0..0, foreign);
    });
    assert!(read(&client, 60).await.unwrap().into_iter().eq(0..60));
}

/// Gives the records of every fetched partition to `change`, and puts its bytes in their place.
fn change_records(hostile: &Hostile, change_one: impl Fn(&[u8]) -> Bytes + Send + Sync + 'static) {
    change::<FetchRequest>(hostile, move |answer| {
        let filled = |p: &&mut PartitionData| p.records.as_ref().is_some_and(|r| !r.is_empty());
        let partitions = answer.responses.iter_mut().flat_map(|t| &mut t.partitions);
        for partition in partitions.filter(filled) {
            partition.records = partition.records.as_deref().map(&change_one);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn fetched_offsets_at_the_end_of_their_range() {
    let (_cluster, hostile, client) = start().await;
    send(&client, 0..3).await;
    change_records(&hostile, |records| {
        // The checksum does not cover the base offset.
        let mut records = records.to_vec();
        let last = i32::from_be_bytes(records[23..27].try_into().unwrap());
        records[..8].copy_from_slice(&(i64::MAX - i64::from(last)).to_be_bytes());
        records.into()
    });
    let error = read(&client, 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// What a consumer lets a batch decompress to.
const MAX_DECOMPRESSED: usize = 256 << 20;

/// Records as lz4: 4 MiB of zeros in each block of 16 KiB, and a block more than may be read.
fn bomb(header: &[u8]) -> Bytes {
    const BLOCK: usize = 4 << 20;
    // A literal, a match that repeats it, and the five literals that every block ends with.
    let repeat = BLOCK - 1 - 19 - 5;
    let mut block = vec![0x1f, 0, 1, 0];
    block.extend(vec![0xff; repeat / 255]);
    block.push((repeat % 255) as u8);
    block.extend([0x50, 0, 0, 0, 0, 0]);
    let mut payload = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
    for _ in 0..=MAX_DECOMPRESSED / BLOCK {
        payload.extend((block.len() as u32).to_le_bytes());
        payload.extend(&block);
    }
    payload.extend([0; 4]);
    let mut batch = [&header[..61], &payload].concat();
    batch[8..12].copy_from_slice(&(49 + payload.len() as u32).to_be_bytes());
    batch[22] = 3;
    batch.into()
}

#[test]
fn decompression_bomb() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let (_cluster, hostile, client) = runtime.block_on(start());
    runtime.block_on(send(&client, 0..3));
    change_records(&hostile, bomb);
    let memory = measure(|| {
        runtime.block_on(async {
            let consumer = client.consumer().topics(["t"]).check_crc(false);
            let mut consumer = consumer.build().unwrap();
            let result = within("a batch", consumer.next()).await.expect("it is open");
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.message().contains("more than the limit"), "{error}");
        });
    });
    // It is counted, and refused before there is a buffer for it.
    assert!(memory.bytes_max < 16 << 20, "{} bytes", memory.bytes_max);
    assert!(memory.bytes_current < 16 << 20, "{} bytes are kept", memory.bytes_current);
}

/// An end below every offset, as often as it is asked for: an error, not a question without end.
#[tokio::test(start_paused = true)]
async fn list_offsets_without_an_end() {
    let (_cluster, hostile, client) = start().await;
    change::<ListOffsetsRequest>(&hostile, |answer| {
        for partition in answer.topics.iter_mut().flat_map(|t| &mut t.partitions) {
            partition.offset = -1;
        }
    });
    let error = latest(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    assert_eq!(hostile.done(), 1);
}

#[tokio::test(start_paused = true)]
async fn list_offsets_names_a_partition_twice() {
    let (_cluster, hostile, client) = start().await;
    send(&client, 0..3).await;
    change::<ListOffsetsRequest>(&hostile, |answer| {
        for topic in &mut answer.topics {
            topic.partitions.extend(topic.partitions.clone());
        }
        answer.topics.extend(answer.topics.clone());
    });
    assert_eq!(latest(&client).await.unwrap(), 3);
}
