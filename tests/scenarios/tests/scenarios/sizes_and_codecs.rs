//! Scenario 4: values of every size in every codec, through this client's reader and through the
//! embedded broker's, which shares no code with it. In virtual time.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Codec};
use ottla::{Client, Compression, ErrorKind, ProducerBuilder, Record};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

const MB15: usize = 15 << 20;
const CODECS: [&str; 5] = ["none", "lz4", "snappy", "gzip", "zstd"];

async fn connect() -> (Cluster, Client) {
    let mut builder = Cluster::builder().brokers(3).tcp(false).max_message_bytes(16 << 20);
    for codec in CODECS {
        builder = builder.topic(codec, 1, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = within("connect", virtual_cluster::client(&cluster, 1).connect()).await.unwrap();
    (cluster, client)
}

fn large(client: &Client, codec: &str) -> ProducerBuilder {
    client.producer().compression(codec.parse().unwrap()).max_record_size(MB15)
}

/// Repeats itself, not too often.
fn text(len: usize) -> Vec<u8> {
    let line = |i: usize| (i / 64 * 7 % 251) as u8;
    (0..len).map(line).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

#[tokio::test(start_paused = true)]
async fn s04_every_size_in_every_codec() {
    let values: [Option<Vec<u8>>; 7] = [
        None,
        Some(vec![]),
        Some(vec![b'x']),
        Some(text(1_000)),
        Some(text(MB15)),
        Some(noise(MB15)),
        Some(text(100_000)),
    ];
    let (cluster, client) = connect().await;
    for codec in CODECS {
        let producer = large(&client, codec).build().unwrap();
        let mut deliveries = Vec::new();
        for value in &values {
            let record = Record::to(codec).value_opt(value.as_deref());
            deliveries.push(within("space", producer.send(record)).await.unwrap());
        }
        for (offset, delivery) in deliveries.into_iter().enumerate() {
            let acked = within("an ack", delivery).await.unwrap();
            assert_eq!(acked.offset, offset as i64, "{codec}");
        }
        let stored = cluster.records(codec, 0).unwrap();
        assert_eq!(stored.len(), values.len());
        for (stored, value) in stored.iter().zip(&values) {
            assert!(
                stored.value.as_deref() == value.as_deref(),
                "{codec}: the broker reads another"
            );
        }
        let mut consumer = client.consumer().topics([codec]).build().unwrap();
        let mut read = 0;
        while read < values.len() {
            let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
            for record in &batch {
                assert!(record.value() == values[read].as_deref(), "{codec}: read {read} changed");
                read += 1;
            }
        }
    }
    let kept = cluster.retained_bytes();
    // Text and noise once plain, then four times noise and what is left of the text.
    assert!(kept < 6 * MB15 + (6 << 20), "{kept} bytes kept: too little was compressed");
}

#[tokio::test(start_paused = true)]
async fn s04_at_the_limit_and_one_byte_over() {
    let (cluster, client) = connect().await;
    for codec in CODECS {
        let producer = large(&client, codec).build().unwrap();
        let sent = cluster.stats().requests_of(ApiKey::PRODUCE);
        let over = text(MB15 + 1);
        let error = producer.send(Record::to(codec).value(&over)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{codec}: {error}");
        assert!(!error.maybe_written());
        let error = producer.try_send(Record::to(codec).key("k").value(&over[1..])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{codec}: key and value count");
        assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), sent, "before any network");
        let delivery = producer.send(Record::to(codec).value(&over[1..])).await.unwrap();
        within("an ack", delivery).await.unwrap();
        assert_eq!(cluster.records(codec, 0).unwrap().len(), 1, "{codec}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_has_a_codec_of_its_own() {
    let (cluster, client) = connect().await;
    let mut builder = client.producer().compression(Compression::None).linger(Duration::ZERO);
    for codec in CODECS {
        builder = builder.topic_compression(codec, codec.parse().unwrap());
    }
    let producer = builder.build().unwrap();
    let value = text(100_000);
    let mut sizes = Vec::new();
    for codec in CODECS {
        let before = cluster.retained_bytes();
        let delivery = producer.send(Record::to(codec).value(&value)).await.unwrap();
        within("an ack", delivery).await.unwrap();
        assert_eq!(cluster.records(codec, 0).unwrap()[0].value.as_deref(), Some(&value[..]));
        sizes.push(cluster.retained_bytes() - before);
        let found: Vec<_> = cluster.codecs(codec).unwrap().into_iter().map(Codec::as_str).collect();
        assert_eq!(found, [codec]);
    }
    assert!(sizes[0] > value.len() && sizes[1..].iter().all(|s| *s < value.len() / 2), "{sizes:?}");
    let wrong = Compression::Gzip { level: 10 };
    let error = client.producer().topic_compression("t", wrong).build().err().unwrap();
    assert!(error.kind() == ErrorKind::Config && error.message().contains("1 to 9"), "{error}");
}

/// Such batches are compressed beside the threads that send and those of the engine: that changes
/// nothing about their order, nor about what a flush waits for.
#[tokio::test(start_paused = true)]
async fn a_slow_codec_keeps_the_order_and_the_flush() {
    let (cluster, client) = connect().await;
    let producer = client.producer().compression(Compression::Gzip { level: 9 }).build().unwrap();
    let mut deliveries = Vec::new();
    for i in 0..4_000 {
        let value = format!("{i}:{:0500}", i * 7919 % 1_000_003);
        let record = Record::to("gzip").partition(0).value(&value);
        deliveries.push(within("space", producer.send(record)).await.unwrap());
    }
    within("flush", producer.flush()).await.unwrap();
    for (i, delivery) in deliveries.into_iter().enumerate() {
        let acked = delivery.try_get().expect("flush waits for it").unwrap();
        assert_eq!((acked.partition, acked.offset), (0, i as i64));
    }
    let stored = cluster.records("gzip", 0).unwrap();
    for (i, record) in stored.iter().enumerate() {
        assert!(record.value.as_ref().unwrap().starts_with(format!("{i}:").as_bytes()), "{i}");
    }
    within("close", producer.close(Duration::from_secs(1))).await.unwrap();
}

/// Threads that compress come and go, and no batch waits for one that has gone.
#[tokio::test(start_paused = true)]
async fn there_is_always_a_thread_to_compress_on() {
    let (_cluster, client) = connect().await;
    let producer = client.producer().compression(Compression::Gzip { level: 9 }).build().unwrap();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let value = text(200_000);
    for _ in 0..=at_once {
        let record = Record::to("gzip").value(&value);
        let delivery = within("space", producer.send(record)).await.unwrap();
        within("an ack", delivery).await.unwrap();
    }
}
