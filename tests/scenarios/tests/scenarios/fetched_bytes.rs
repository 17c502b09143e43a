//! What a consumer makes of the bytes of a fetch: damage, markers of transactions, holes that compaction
//! leaves, batches that begin before the offset asked for, times that the broker set. In virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster};
use ottla::{
    Batch, Client, Commit, Compression, Consumer, ConsumerBuilder, ErrorKind, Record, Start,
};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{acks, cluster, connect, ms, secs, seen};
use ottla_scenarios::wait::within;

/// Bytes of a batch before its records, and where its checksum ends.
const HEADER: usize = 61;
const CHECKED: usize = 21;

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// A batch with its length and checksum right again.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[CHECKED..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn base_offset(batch: &[u8]) -> i64 {
    i64::from_be_bytes(batch[..8].try_into().unwrap())
}

/// Three batches of ten records each in the only partition of "t"; values are their offsets.
async fn three_batches() -> (Cluster, Hostile, Client) {
    let cluster = cluster(1, 1);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    write(&client, 0..30).await;
    (cluster, hostile, client)
}

async fn write(client: &Client, numbers: std::ops::Range<i64>) {
    let producer = client.producer().linger(ms(5)).compression(Compression::None).build().unwrap();
    let numbers: Vec<i64> = numbers.collect();
    for ten in numbers.chunks(10) {
        let mut sent = Vec::new();
        for number in ten {
            let value = format!("{number:04}");
            let record = Record::to("t").partition(0).value(&value).timestamp_ms(1_000 + number);
            // Without a turn for anybody in between: ten are one batch.
            sent.push(producer.try_send(record).unwrap());
        }
        let acks = acks(sent).await;
        assert_eq!(acks.last().unwrap().offset, *ten.last().unwrap());
    }
}

fn reader(client: &Client) -> ConsumerBuilder {
    client.consumer().topics(["t"])
}

/// Offsets of the next batch; its values are the same.
async fn next(consumer: &mut Consumer) -> Vec<i64> {
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    let offsets: Vec<i64> = batch.iter().map(|record| record.offset()).collect();
    let values = batch
        .iter()
        .map(|record| str::from_utf8(record.value().unwrap()).unwrap().parse::<i64>().unwrap());
    assert!(values.eq(offsets.iter().copied()));
    assert_eq!((batch.len(), batch.base_offset()), (offsets.len(), offsets[0]));
    // Behind it, and behind what follows it and is not shown.
    assert!(consumer.position("t", 0) >= Some(batch.next_offset()));
    offsets
}

fn is_empty_for(consumer: &mut Consumer, time: Duration) -> impl Future<Output = bool> {
    let next = tokio::time::timeout(time, consumer.next());
    async { next.await.is_err() }
}

/// The last batch of all is not asked for again and again, and what is written behind it is read.
async fn stands_behind(cluster: &Cluster, client: &Client, consumer: &mut Consumer, offset: i64) {
    let before = seen(cluster, 1, ApiKey::FETCH);
    assert!(is_empty_for(consumer, secs(30)).await);
    let fetches = seen(cluster, 1, ApiKey::FETCH) - before;
    assert!((58..=62).contains(&fetches), "{fetches} fetches in 30 s, of 500 ms each");
    write(client, offset..offset + 10).await;
    assert_eq!(next(consumer).await, (offset..offset + 10).collect::<Vec<_>>());
}

/// One bit of the records is another: that batch is told as damaged and passed over, the others are read.
#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_told_once_and_passed_over() {
    let (_cluster, hostile, client) = three_batches().await;
    hostile.change_batches(|mut batch| {
        if base_offset(&batch) == 10 {
            // In the first value, past the record's own fields.
            assert_eq!(&batch[HEADER + 6..HEADER + 10], b"0010");
            batch[HEADER + 9] ^= 1;
        }
        batch
    });
    let mut consumer = reader(&client).build().unwrap();
    assert_eq!(next(&mut consumer).await, (0..10).collect::<Vec<_>>());
    let error = within("the damage", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("checksum"), "{error}");
    assert!(error.message().contains("partition 0"), "{error}");
    assert_eq!(error.unreadable(), Some(("t", 0, 10)));
    assert_eq!(next(&mut consumer).await, (20..30).collect::<Vec<_>>());
    assert!(is_empty_for(&mut consumer, secs(5)).await);

    // Who does not want checksums compared takes it as it is.
    let mut consumer = reader(&client).check_crc(false).build().unwrap();
    within("a batch", consumer.next()).await.unwrap().unwrap();
    let batch: Batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.get(0).unwrap().value(), Some(&b"0011"[..]));
}

/// What a transaction's coordinator writes into a log is nobody's record; reading goes on behind it.
#[tokio::test(start_paused = true)]
async fn markers_of_transactions_are_passed_over() {
    for marker in [0, 10, 20] {
        let (cluster, hostile, client) = three_batches().await;
        hostile.change_batches(move |mut batch| {
            if base_offset(&batch) == marker {
                batch[22] |= 0b10_0000;
            }
            sealed(batch)
        });
        let mut consumer = reader(&client).build().unwrap();
        for base in [0, 10, 20].into_iter().filter(|base| *base != marker) {
            assert_eq!(next(&mut consumer).await, (base..base + 10).collect::<Vec<_>>());
        }
        stands_behind(&cluster, &client, &mut consumer, 30).await;
    }
}

/// What is at the end is not handed out, and whether it came with what is before it or later, a loop that reads up
/// to the end ends.
#[tokio::test(start_paused = true)]
async fn reading_up_to_an_end_ends_behind_what_is_not_shown() {
    for marker in [true, false] {
        for later in [true, false] {
            let (_cluster, hostile, client) = three_batches().await;
            hostile.change_batches(move |mut batch| {
                if base_offset(&batch) == 20 {
                    if marker {
                        batch[22] |= 0b10_0000;
                    } else {
                        batch.truncate(HEADER);
                        batch[57..61].copy_from_slice(&0i32.to_be_bytes());
                    }
                }
                sealed(batch)
            });
            // One batch in a fetch, or all.
            let bytes = if later { 1 << 10 } else { 1 << 20 };
            let mut consumer =
                reader(&client).max_bytes(bytes).max_partition_bytes(bytes).build().unwrap();
            let ends = [(ottla::TopicPartition { topic: "t".into(), partition: 0 }, 30)];
            let mut read = Vec::new();
            while let Some(batch) = within("the end", consumer.next_until(&ends)).await {
                read.extend(batch.unwrap().iter().map(|record| record.offset()));
            }
            assert_eq!(read, (0..20).collect::<Vec<_>>());
            assert_eq!((consumer.position("t", 0), consumer.lag("t", 0)), (Some(30), Some(0)));
        }
    }
}

/// Compaction takes records out of a batch, and keeps its offsets: the one to go on from is behind the
/// last that there was.
#[tokio::test(start_paused = true)]
async fn holes_of_compaction_are_passed_over() {
    // Records that are left of the batch, which were ten.
    for left in [9, 1, 0] {
        for hole in [0, 10, 20] {
            let (cluster, hostile, client) = three_batches().await;
            hostile.change_batches(move |mut batch| {
                if base_offset(&batch) == hole {
                    // All of them are as long: a byte of length, and what it counts.
                    let record = 1 + usize::from(batch[HEADER] / 2);
                    batch.truncate(HEADER + left * record);
                    batch[57..61].copy_from_slice(&(left as i32).to_be_bytes());
                }
                sealed(batch)
            });
            let mut consumer = reader(&client).build().unwrap();
            for base in [0, 10, 20] {
                let left = if base == hole { left as i64 } else { 10 };
                if left > 0 {
                    assert_eq!(
                        next_of(&mut consumer).await,
                        (base..base + left).collect::<Vec<_>>()
                    );
                }
            }
            stands_behind(&cluster, &client, &mut consumer, 30).await;
        }
    }
}

/// As [`next`], where a batch ends before its last offset, or one follows that is not shown.
async fn next_of(consumer: &mut Consumer) -> Vec<i64> {
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.next_offset() % 10, 0);
    assert!(consumer.position("t", 0) >= Some(batch.next_offset()));
    batch.iter().map(|record| record.offset()).collect()
}

/// Who acknowledges each record has finished the batch, whatever compaction has taken out of it: between two records, and
/// behind the last.
#[tokio::test(start_paused = true)]
async fn what_compaction_removed_is_finished_with_the_record_before() {
    for by_range in [false, true] {
        let (cluster, hostile, client) = three_batches().await;
        hostile.change_batches(move |mut batch| {
            // Of ten the first five, of which the last has the offset of the eighth.
            let record = 1 + usize::from(batch[HEADER] / 2);
            batch.truncate(HEADER + 5 * record);
            batch[57..61].copy_from_slice(&5i32.to_be_bytes());
            // A zigzag number behind a length, attributes and a time of a byte each.
            assert_eq!(batch[HEADER + 4 * record + 3], 4 * 2);
            batch[HEADER + 4 * record + 3] = 7 * 2;
            sealed(batch)
        });
        let builder = client.consumer().group("g").topics(["t"]).commit(Commit::Acked);
        let mut consumer = builder.build().unwrap();
        let mut records = consumer.records();
        let mut offsets = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..15 {
            let record = within("a record", records.next()).await.unwrap().unwrap();
            offsets.push(record.record().offset());
            kept.push(record);
        }
        let of = |base: i64| [0, 1, 2, 3, 7].map(|at| base + at);
        assert_eq!(offsets, [of(0), of(10), of(20)].concat());
        // In any order.
        for record in kept.iter().rev() {
            let at = record.record().offset();
            if by_range { record.batch().ack_range(at, at + 1) } else { record.ack() }
        }
        drop(records);
        within("a commit", consumer.commit()).await.unwrap();
        let committed = cluster.group("g").unwrap().committed("t", 0).map(|at| at.offset);
        assert_eq!(committed, Some(30), "by range: {by_range}");
    }
}

/// A whole batch that is gone leaves a gap between two that are there.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_gone_leaves_a_gap() {
    for gone in [0, 10] {
        let (cluster, hostile, client) = three_batches().await;
        hostile
            .change_batches(move |batch| if base_offset(&batch) == gone { vec![] } else { batch });
        let mut consumer = reader(&client).build().unwrap();
        for base in [0, 10, 20].into_iter().filter(|base| *base != gone) {
            assert_eq!(next(&mut consumer).await, (base..base + 10).collect::<Vec<_>>());
        }
        stands_behind(&cluster, &client, &mut consumer, 30).await;
    }
}

/// Brokers keep whole batches: what stands before the offset asked for is not shown, the record at it is.
#[tokio::test(start_paused = true)]
async fn what_stands_before_the_offset_is_not_shown() {
    let (_cluster, _hostile, client) = three_batches().await;
    for offset in [0, 1, 9, 10, 15, 29] {
        let start = Start::Offset(offset);
        let mut consumer = client.consumer().assign([("t", 0, start)]).build().unwrap();
        let end = offset / 10 * 10 + 10;
        assert_eq!(next(&mut consumer).await, (offset..end).collect::<Vec<_>>());
        if end < 30 {
            assert_eq!(next(&mut consumer).await, (end..end + 10).collect::<Vec<_>>());
        }
    }
    let stats = client.stats();
    assert_eq!(stats.records_consumed, 20 + 19 + 11 + 20 + 15 + 1);
    // Whole batches come: at least as many bytes as the values of two batches from each but the last.
    assert!(stats.fetch_bytes > 5 * 2 * 10 * 4, "{}", stats.fetch_bytes);
}

/// The same batch once more, as a broker sends it whose index points too far back.
#[tokio::test(start_paused = true)]
async fn batches_before_the_offset_are_not_read_twice() {
    let (_cluster, hostile, client) = three_batches().await;
    let first = Arc::new(std::sync::Mutex::new(Vec::new()));
    hostile.change_batches(move |batch| {
        let mut first = first.lock().unwrap();
        if first.is_empty() {
            first.clone_from(&batch);
            return [&batch[..], &batch].concat();
        }
        [&first[..], &batch].concat()
    });
    let mut consumer = reader(&client).build().unwrap();
    for base in [0, 10, 20] {
        assert_eq!(next(&mut consumer).await, (base..base + 10).collect::<Vec<_>>());
    }
    write(&client, 30..40).await;
    assert_eq!(next(&mut consumer).await, (30..40).collect::<Vec<_>>());
}

/// Where the broker sets times, they are those of its append.
#[tokio::test(start_paused = true)]
async fn times_are_the_appends_where_the_topic_says_so() {
    let (_cluster, hostile, client) = three_batches().await;
    let append = Arc::new(AtomicBool::new(false));
    let by_append = Arc::clone(&append);
    hostile.change_batches(move |mut batch| {
        if by_append.load(Ordering::Relaxed) {
            batch[22] |= 0b1000;
            batch[35..43].copy_from_slice(&77_000i64.to_be_bytes());
        }
        sealed(batch)
    });
    for (set, times) in [(false, (1_000..1_010).collect::<Vec<_>>()), (true, vec![77_000; 10])] {
        append.store(set, Ordering::Relaxed);
        let mut consumer = reader(&client).build().unwrap();
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        assert!(batch.iter().map(|record| record.timestamp_ms()).eq(times));
    }
}

/// Behind a header that says nothing sensible nobody finds the next one: what came before it is read, and
/// the partition stops until the application says where it goes on.
#[tokio::test(start_paused = true)]
async fn behind_an_unreadable_header_reading_stops_until_a_seek() {
    let (cluster, hostile, client) = three_batches().await;
    hostile.change_batches(|mut batch| {
        if base_offset(&batch) == 10 {
            batch[16] = 1;
        }
        batch
    });
    let mut consumer = reader(&client).build().unwrap();
    assert_eq!(next(&mut consumer).await, (0..10).collect::<Vec<_>>());
    let error = within("the damage", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("offset 10"), "{error}");
    assert_eq!(error.unreadable(), Some(("t", 0, 10)));
    let before = seen(&cluster, 1, ApiKey::FETCH);
    assert!(is_empty_for(&mut consumer, secs(60)).await);
    let asked = seen(&cluster, 1, ApiKey::FETCH) - before;
    assert!(asked <= 1, "{asked} fetches of what nobody can read");
    consumer.seek("t", 0, Start::Offset(20)).unwrap();
    assert_eq!(next(&mut consumer).await, (20..30).collect::<Vec<_>>());
}
