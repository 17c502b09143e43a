//! The handles against the embedded broker.

use std::time::{Duration, Instant};

use ottla_test_broker::{ApiKey, Cluster, Fault, FaultRule};

use super::*;
use crate::error::ErrorKind;
use crate::record::Compression;
use crate::{OffsetSpec, Standing, TopicPartition};

/// Long enough for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    Cluster::builder().brokers(1).topic("t", 2, 1).start().unwrap()
}

fn connect(cluster: &Cluster) -> HostClient {
    HostClient::connect_wait(ClientOptions { bootstrap: cluster.bootstrap(), ..Default::default() })
        .unwrap()
}

/// Nothing produced is answered or written.
fn silence(cluster: &Cluster) {
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
}

/// Completions, until `enough` says so.
fn until(engine: &HostClient, enough: impl Fn(&[Completion]) -> bool) -> Vec<Completion> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while !enough(&out) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(engine.queue().wait(Some(left)), "only these came: {out:?}");
        engine.queue().drain(&mut out, usize::MAX);
    }
    out
}

fn kinds(told: &[Completion]) -> Vec<(CompletionKind, u64, Option<ErrorKind>)> {
    told.iter().map(|c| (c.kind, c.tag, c.error.as_ref().map(Error::kind))).collect()
}

fn value(v: &[u8]) -> Entry<'_> {
    Entry { value: Some(v), ..Entry::default() }
}

fn all(topic: &str) -> ConsumerOptions {
    ConsumerOptions::new(Subscription::Topics(vec![topic.into()], Start::Earliest))
}

#[test]
fn a_round_trip_through_the_queue() {
    let cluster = cluster();
    let options = ClientOptions { bootstrap: cluster.bootstrap(), tag: 1, ..Default::default() };
    let engine = HostClient::connect(options).unwrap();
    let told = until(&engine, |c| !c.is_empty());
    assert_eq!(kinds(&told), [(CompletionKind::Connected, 1, None)]);

    engine.create_topic(2, "made", 3, 1);
    let told = until(&engine, |c| !c.is_empty());
    assert_eq!(kinds(&told), [(CompletionKind::TopicCreated, 2, None)]);

    let consumer = engine.consumer(ConsumerOptions { tag: 3, ..all("made") }).unwrap();
    assert!(consumer.try_next().unwrap().is_none());
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("b", None)];
    let first = Entry { key: Some(b"k"), headers: &headers, partition: Some(2), ..value(b"one") };
    let second = Entry { partition: Some(2), timestamp_ms: Some(77), ..Entry::default() };
    let mut packed = Vec::new();
    pack(&mut packed, &first);
    pack(&mut packed, &second);
    let done = producer.submit_packed(9, "made", &packed, 2);
    assert!(done.accepted == 2 && done.refused.is_none());
    producer.flush(10);
    let told = until(&engine, |c| {
        c.iter().any(|c| c.kind == CompletionKind::Flushed)
            && c.iter().any(|c| c.kind == CompletionKind::ConsumerReady)
    });
    let told: Vec<_> =
        told.into_iter().filter(|c| c.kind != CompletionKind::ConsumerReady).collect();
    let delivery = &told[0];
    assert_eq!((delivery.kind, delivery.tag), (CompletionKind::Delivery, 9));
    assert_eq!((delivery.first, delivery.count), (0, 2));
    assert_eq!((delivery.partition, delivery.offset), (2, 0));
    assert_eq!(kinds(&told[1..]), [(CompletionKind::Flushed, 10, None)]);

    let batch = consumer.next(Some(PATIENCE)).unwrap().expect("what was written");
    assert_eq!((batch.topic(), batch.partition(), batch.len()), ("made", 2, 2));
    let one = batch.get(0).unwrap();
    assert_eq!((one.key, one.value, one.offset), (Some(&b"k"[..]), Some(&b"one"[..]), 0));
    let got: Vec<_> = one.headers.collect();
    assert_eq!(got, [(&b"a"[..], Some(&b"1"[..])), (&b"b"[..], None)]);
    let two = batch.get(1).unwrap();
    assert_eq!((two.value, two.timestamp_ms, two.offset), (None, 77, 1));
    assert!(batch.get(2).is_none());
    let mut offsets = Vec::new();
    batch.visit(|r| {
        offsets.push(r.offset);
        true
    });
    assert_eq!(offsets, [0, 1]);
    assert_eq!((batch.next_offset(), consumer.position("made", 2)), (2, Some(2)));
    consumer.seek("made", 2, Start::Offset(1)).unwrap();
    let batch = consumer.next(Some(PATIENCE)).unwrap().expect("the second again");
    assert_eq!((batch.len(), batch.get(0).unwrap().offset), (1, 1));
    producer.close_wait(PATIENCE).unwrap();
    producer.close_wait(PATIENCE).unwrap();
    assert_eq!(producer.flush_wait(None).unwrap_err().kind(), ErrorKind::Closed);
    engine.close();
}

#[test]
fn a_consumer_that_is_closed_is_nowhere() {
    let cluster = cluster();
    let engine = connect(&cluster);
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let entry = Entry { partition: Some(0), ..value(b"a") };
    assert_eq!(producer.submit(1, "t", std::iter::once(entry)).accepted, 1);
    producer.flush_wait(Some(PATIENCE)).unwrap();
    let consumer = engine.consumer(all("t")).unwrap();
    assert!(consumer.next(Some(PATIENCE)).unwrap().is_some());
    assert_eq!(consumer.position("t", 0), Some(1));
    consumer.close();
    assert_eq!(consumer.position("t", 0), None);
}

/// What a host says of a partition, whatever is behind the handle.
fn steered(engine: &HostClient) {
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    for partition in [0, 0, 0, 1] {
        let entry = Entry { partition: Some(partition), ..value(b"v") };
        assert_eq!(producer.submit(1, "t", std::iter::once(entry)).accepted, 1);
        producer.flush_wait(Some(PATIENCE)).unwrap();
    }
    let [begin, end] = [OffsetSpec::Earliest, OffsetSpec::Latest];
    let wanted = [("t", 1, end), ("t", 0, begin), ("t", 7, end), ("t", 0, end)];
    let wanted = wanted.map(|(topic, part, spec)| (topic.to_owned(), part, spec)).to_vec();
    let found = engine.list_offsets_wait(wanted.clone(), Some(PATIENCE)).unwrap();
    let told: Vec<_> = (0..5).map(|i| found.get(i).map_err(|e| e.kind())).collect();
    let [unknown, none] = [ErrorKind::UnknownPartition, ErrorKind::InvalidArgument];
    assert_eq!(told, [Ok(1), Ok(0), Err(unknown), Ok(3), Err(none)]);
    let _ = until(engine, |c| c.iter().map(|c| c.count).sum::<u32>() == 4);
    let late = engine.list_offsets(8, wanted);
    let told = until(engine, |c| !c.is_empty());
    assert_eq!(kinds(&told), [(CompletionKind::OffsetsListed, 8, None)]);
    assert_eq!((late.len(), late.get(3).unwrap()), (4, 3));

    let of = Subscription::Partitions(vec![("t".into(), 0, Start::Offset(1))]);
    let consumer = engine.consumer(ConsumerOptions::new(of)).unwrap();
    let offset = |batch: &Batch| batch.get(0).unwrap().offset;
    assert_eq!(consumer.position("t", 0), Some(1));
    let first = consumer.next(Some(PATIENCE)).unwrap().unwrap();
    assert_eq!((offset(&first), first.standing()), (1, Standing::Current));
    consumer.pause(&[("t", 0)]).unwrap();
    let wanted = first.wanted();
    assert_eq!((first.standing(), wanted.standing()), (Standing::Paused, Standing::Paused));
    consumer.assign(&[("t", 1, Start::Earliest)]).unwrap();
    assert_eq!(consumer.next(Some(PATIENCE)).unwrap().unwrap().partition(), 1);
    assert!(consumer.try_next().unwrap().is_none());
    // A seek while it is paused leaves it so.
    consumer.seek("t", 0, Start::Offset(2)).unwrap();
    assert_eq!((first.standing(), consumer.paused().unwrap().len()), (Standing::Left, 1));
    let named = |partition| TopicPartition { topic: "t".into(), partition };
    let ends = [(named(0), 3), (named(1), 1)];
    assert!(matches!(consumer.try_next_until(&ends).unwrap(), Next::Nothing));
    consumer.resume(&[("t", 0)]).unwrap();
    let next = consumer.next_until(&ends, Some(PATIENCE)).unwrap().batch().unwrap();
    assert_eq!((offset(&next), consumer.lag("t", 0)), (2, Some(0)));
    assert!(matches!(consumer.next_until(&ends, Some(PATIENCE)).unwrap(), Next::Reached));
    drop(first);
    assert_eq!(wanted.standing(), Standing::Left);
    consumer.unassign(&[("t", 1)]).unwrap();
    assert_eq!(consumer.assignment().unwrap(), [named(0)]);
    let error = consumer.resume(&[("t", 0), ("t", 1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
    consumer.close();
    let error = consumer.next_until(&ends, None).err().unwrap();
    assert_eq!((error.kind(), consumer.lag("t", 0)), (ErrorKind::Closed, None));
}

#[test]
fn a_host_steers_its_consumer() {
    steered(&HostClient::echo().unwrap());
    let cluster = cluster();
    steered(&connect(&cluster));
}

#[test]
fn a_close_ends_what_a_silent_broker_leaves_open() {
    let cluster = cluster();
    let engine = connect(&cluster);
    silence(&cluster);
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let consumer = engine.consumer(all("t")).unwrap();
    assert_eq!(producer.submit(5, "t", [value(b"a"), value(b"b")].into_iter()).accepted, 2);
    producer.flush(6);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| producer.flush_wait(None));
        let reads = scope.spawn(|| consumer.next(None).map(|_| ()));
        engine.close();
        for ended in [waits.join().unwrap(), reads.join().unwrap()] {
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    let mut told = Vec::new();
    engine.queue().drain(&mut told, 9);
    let closed = Some(ErrorKind::Closed);
    assert_eq!(
        kinds(&told),
        [(CompletionKind::Delivery, 5, closed), (CompletionKind::Flushed, 6, closed)]
    );
    assert_eq!((told[0].first, told[0].count), (0, 2));
    assert!(told[0].error.as_ref().unwrap().maybe_written());
    assert!(engine.queue().ended());
}

#[test]
fn a_producer_without_space_hears_when_there_is_some() {
    let cluster = cluster();
    let engine = connect(&cluster);
    let options = ProducerOptions { buffer_memory: Some(1 << 20), tag: 8, ..Default::default() };
    let producer = engine.producer(options).unwrap();
    // Nothing leaves before the buffer was full once (LEADER_NOT_AVAILABLE): a quick broker would empty it
    // as it fills.
    let held = FaultRule::new(Fault::Error(5)).api(ApiKey::METADATA).topic("t").always();
    let held = cluster.faults().inject(held);
    let big = vec![7; 300_000];
    let (mut sent, mut told, mut refusals) = (0u64, 0, 0);
    let mut out = Vec::new();
    while sent < 40 {
        let done = producer.submit(sent, "t", std::iter::once(value(&big)));
        sent += done.accepted as u64;
        let Some(refused) = done.refused else { continue };
        assert_eq!(refused.kind(), ErrorKind::BufferFull);
        refusals += 1;
        cluster.faults().remove(held);
        let mut space = false;
        while !space {
            assert!(engine.queue().wait(Some(PATIENCE)), "no space after {sent} records");
            out.clear();
            engine.queue().drain(&mut out, usize::MAX);
            for c in &out {
                assert!(c.error.is_none(), "{c:?}");
                space |= (c.kind, c.tag) == (CompletionKind::Space, 8);
                told += c.count;
            }
        }
    }
    assert!(refusals > 0, "40 records of 300 kB never filled 1 MiB");
    producer.flush_wait(Some(PATIENCE)).unwrap();
    out.clear();
    engine.queue().drain(&mut out, usize::MAX);
    told += out.iter().map(|c| c.count).sum::<u32>();
    assert_eq!(told, 40);
}

#[test]
fn a_close_with_a_deadline_gives_up_what_is_left() {
    let cluster = cluster();
    let engine = connect(&cluster);
    silence(&cluster);
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    assert_eq!(producer.submit(5, "t", std::iter::once(value(b"a"))).accepted, 1);
    let error = producer.close_wait(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let told = until(&engine, |c| !c.is_empty());
    assert_eq!(kinds(&told), [(CompletionKind::Delivery, 5, Some(ErrorKind::Timeout))]);
    let refused = producer.submit(6, "t", std::iter::once(value(b"a"))).refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::Closed);
}

/// However long it takes, and whatever time it gives itself.
#[test]
fn a_second_close_ends_when_the_first_has() {
    let cluster = cluster();
    let engine = connect(&cluster);
    silence(&cluster);
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    assert_eq!(producer.submit(5, "t", std::iter::once(value(b"a"))).accepted, 1);
    producer.close(1, Duration::from_millis(100));
    producer.close(2, Duration::ZERO);
    let mut told = kinds(&until(&engine, |c| c.len() == 3));
    let timeout = Some(ErrorKind::Timeout);
    assert_eq!(told[0], (CompletionKind::Delivery, 5, timeout), "before either close ends");
    told[1..].sort_by_key(|(_, tag, _)| *tag);
    assert_eq!(
        told[1..],
        [(CompletionKind::Closed, 1, timeout), (CompletionKind::Closed, 2, None)]
    );
}

/// Who waits for all records hears of those that failed, and whose completions nobody has drained.
#[test]
fn a_flush_and_a_close_tell_of_what_failed() {
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    let cluster = cluster();
    let engine = connect(&cluster);
    let refuse = FaultRule::new(Fault::Error(TOPIC_AUTHORIZATION_FAILED)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refuse.always());
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let submit = || assert_eq!(producer.submit(5, "t", std::iter::once(value(b"a"))).accepted, 1);
    submit();
    let told = producer.flush_wait(Some(PATIENCE)).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Undelivered, "{told}");
    submit();
    let told = producer.close_wait(PATIENCE).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Undelivered, "{told}");
}

/// Who drains is given a moment to look at failures before they are told, and no longer than the wait may
/// take: what is told by no flush that is through has to be told by this one.
#[test]
fn a_flush_with_little_time_tells_of_what_failed() {
    let cluster = cluster();
    let engine = connect(&cluster);
    let refuse = FaultRule::new(Fault::Error(29)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refuse.always());
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    assert_eq!(producer.submit(5, "t", std::iter::once(value(b"a"))).accepted, 1);
    assert!(engine.queue().wait(Some(PATIENCE)), "it fails, and lies in the queue");
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        match producer.flush_wait(Some(Duration::from_millis(10))) {
            // Not even the flush was through.
            Err(e) if e.kind() == ErrorKind::Timeout && Instant::now() < deadline => {}
            told => break told.unwrap_err(),
        }
    };
    assert_eq!(told.kind(), ErrorKind::Undelivered, "{told}");
    producer.flush_wait(Some(PATIENCE)).unwrap();
}

#[test]
fn nobody_there_is_told_within_the_connect_timeout() {
    // Taken for as long as the test: a port that was only free a moment ago may be somebody's.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let options = ClientOptions {
        bootstrap: socket.local_addr().unwrap().to_string(),
        connect_timeout: Some(Duration::from_millis(200)),
        tag: 4,
        ..Default::default()
    };
    let error = HostClient::connect_wait(options.clone()).err().expect("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Connect);
    let engine = HostClient::connect(options).unwrap();
    let told = until(&engine, |c| !c.is_empty());
    assert_eq!(kinds(&told), [(CompletionKind::Connected, 4, Some(ErrorKind::Connect))]);
    let nowhere = ClientOptions { bootstrap: String::new(), ..Default::default() };
    assert_eq!(HostClient::connect(nowhere).err().unwrap().kind(), ErrorKind::Config);
}

/// What the refused one takes counts, whatever was taken before it.
#[test]
fn space_is_told_of_once_the_refused_record_has_room() {
    let cluster = Cluster::builder().brokers(2).topic("t", 2, 2).start().unwrap();
    let engine = connect(&cluster);
    let options = ProducerOptions { buffer_memory: Some(1 << 20), tag: 8, ..Default::default() };
    let options = ProducerOptions { compression: Some(Compression::None), ..options };
    let producer = engine.producer(options).unwrap();
    let copied_after = |delay| cluster.set_partition_replica_delay("t", 1, Some(delay)).unwrap();
    copied_after(Duration::from_secs(3_600));
    let bytes = vec![7_u8; 1_000_000];
    let to = |partition, len: usize| Entry { partition: Some(partition), ..value(&bytes[..len]) };
    assert_eq!(producer.submit(1, "t", std::iter::once(to(1, 60_000))).accepted, 1);
    let done = producer.submit(2, "t", [to(0, 1), to(0, 1_000_000)].into_iter());
    let refused = done.refused.map(|error| error.kind());
    assert_eq!((done.accepted, refused), (1, Some(ErrorKind::BufferFull)));
    let mut told = until(&engine, |c| !c.is_empty());
    // What the engine has to tell by then it has told before this is made.
    engine.create_topic_wait("u", 1, 1, Some(PATIENCE)).unwrap();
    engine.queue().drain(&mut told, usize::MAX);
    assert_eq!(kinds(&told), [(CompletionKind::Delivery, 2, None)]);
    copied_after(Duration::from_millis(1));
    until(&engine, |c| c.iter().any(|c| (c.kind, c.tag) == (CompletionKind::Space, 8)));
}
