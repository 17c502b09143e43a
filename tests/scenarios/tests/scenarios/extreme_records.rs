//! Records at the ends of what there can be, many of them in one batch, in every codec. In virtual
//! time.

use ottla::testing::ApiKey;
use ottla::{Compression, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

const CODECS: [&str; 5] = ["none", "lz4", "snappy", "gzip", "zstd"];
const BYTES: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"x"), Some(&[0xff; 200])];
const TIMES: [Option<i64>; 6] =
    [None, Some(0), Some(i64::MAX), Some(1), Some(i64::MAX - 1), Some(i32::MAX as i64)];
type Header = (&'static str, Option<&'static [u8]>);
const HEADERS: [&[Header]; 3] =
    [&[], &[("", None)], &[("a", Some(b"")), ("a", Some(b"y")), ("\u{1f980}", None)]];

#[tokio::test(start_paused = true)]
async fn every_key_with_every_value_every_time_and_all_headers_in_every_codec() {
    let mut records = Vec::new();
    for key in BYTES {
        for value in BYTES {
            for time in TIMES {
                for headers in HEADERS {
                    let record = Record::to("t").key_opt(key).value_opt(value).headers(headers);
                    records.push((record, key, value, time, headers));
                }
            }
        }
    }
    for codec in CODECS {
        let cluster = cluster(1, 1);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = client.producer().compression(codec.parse().unwrap()).build().unwrap();
        acked(&producer, free()).await;
        let requests = cluster.stats().requests_of(ApiKey::PRODUCE);
        let mut deliveries = Vec::new();
        for (record, _, _, time, _) in &records {
            let record = time.map_or(*record, |ms| record.timestamp_ms(ms));
            deliveries.push(producer.try_send(record).unwrap());
        }
        let mut times = Vec::new();
        for (delivery, (.., time, _)) in deliveries.into_iter().zip(&records) {
            let at = within("an ack", delivery).await.unwrap();
            assert_eq!(at.timestamp_ms, time.unwrap_or(at.timestamp_ms));
            times.push(at.timestamp_ms);
        }
        assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), requests + 1, "one batch");
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        let mut read = 0;
        while read <= records.len() {
            let batch = within("records", consumer.next()).await.unwrap().unwrap();
            for found in batch.iter() {
                read += 1;
                // The first one only opened the way.
                let Some(at) = (found.offset() as usize).checked_sub(1) else { continue };
                let (_, key, value, ..) = records[at];
                assert_eq!((found.key(), found.value()), (key, value), "{codec}: {at}");
                assert_eq!(found.timestamp_ms(), times[at], "{codec}: {at}");
            }
        }
        let stored = cluster.records("t", 0).unwrap();
        for (found, (_, key, value, _, headers)) in stored.iter().skip(1).zip(&records) {
            assert_eq!((found.key.as_deref(), found.value.as_deref()), (*key, *value), "{codec}");
            let told = found.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
            assert!(told.eq(headers.iter().map(|(name, value)| (name.as_bytes(), *value))));
        }
    }
}

/// Records that leave no byte of a batch free, that are a byte too large to share one, and that are
/// alone in theirs.
#[tokio::test(start_paused = true)]
async fn records_as_large_as_a_batch() {
    const BATCH: usize = 16 << 10;
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let small = client.producer().batch_size(BATCH).compression(Compression::None);
    let producer = small.build().unwrap();
    let mut sent = 0;
    for len in (BATCH - 100..BATCH + 100).chain(BATCH / 2 - 50..BATCH / 2 + 10) {
        let value = vec![b'v'; len];
        let two: Vec<_> =
            (0..2).map(|_| producer.try_send(Record::to("t").value(&value)).unwrap()).collect();
        for delivery in two {
            assert_eq!(within("an ack", delivery).await.unwrap().offset, sent);
            sent += 1;
        }
    }
    within("flush", producer.flush()).await.unwrap();
}
