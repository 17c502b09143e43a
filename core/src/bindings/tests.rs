//! The handles together, against the echo.

use std::time::Duration;

use super::*;
use crate::error::ErrorKind;

fn all(topic: &str) -> ConsumerOptions {
    ConsumerOptions::new(Subscription::Topics(vec![topic.into()], Start::Earliest))
}

fn drain(engine: &HostClient) -> Vec<Completion> {
    let mut out = Vec::new();
    engine.queue().drain(&mut out, usize::MAX);
    out
}

fn value(v: &[u8]) -> Entry<'_> {
    Entry { value: Some(v), ..Entry::default() }
}

#[test]
fn an_echo_round_trip() {
    let engine = HostClient::echo().unwrap();
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let consumer = engine.consumer(ConsumerOptions { tag: 5, ..all("t") }).unwrap();
    assert!(consumer.try_next().unwrap().is_none());

    let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("a", None)];
    let mut bytes = Vec::new();
    let first = Entry { key: Some(b"k"), timestamp_ms: Some(77), headers: &headers, ..value(b"x") };
    pack(&mut bytes, &first);
    pack(&mut bytes, &Entry::default());
    pack(&mut bytes, &Entry { partition: Some(3), ..value(b"z") });
    let done = producer.submit_packed(9, "t", &bytes, 3);
    assert_eq!(done.accepted, 3);
    assert!(done.refused.is_none());

    let told = drain(&engine);
    let brief: Vec<_> =
        told.iter().map(|c| (c.kind, c.tag, c.first, c.count, c.partition, c.offset)).collect();
    assert_eq!(
        brief,
        [
            (CompletionKind::Delivery, 9, 0, 2, 0, 0),
            (CompletionKind::Delivery, 9, 2, 1, 3, 0),
            (CompletionKind::ConsumerReady, 5, 0, 0, -1, -1),
        ]
    );
    let batch = consumer.try_next().unwrap().expect("two records");
    assert_eq!((batch.topic(), batch.partition(), batch.len()), ("t", 0, 2));
    let record = batch.get(0).unwrap();
    assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"x"[..])));
    assert_eq!((record.offset, record.timestamp_ms), (0, 77));
    assert_eq!(record.headers.collect::<Vec<_>>(), headers.map(|(n, v)| (n.as_bytes(), v)));
    assert_eq!(batch.get(1).unwrap().value, None);
    assert!(batch.get(2).is_none());
    let batch = consumer.next(None).unwrap().expect("one record");
    assert_eq!((batch.partition(), batch.get(0).unwrap().value), (3, Some(&b"z"[..])));
    assert_eq!(consumer.position("t", 0), Some(2));
    assert!(consumer.next(Some(Duration::ZERO)).unwrap().is_none());
    consumer.seek("t", 0, Start::Offset(1)).unwrap();
    assert_eq!(consumer.try_next().unwrap().unwrap().get(0).unwrap().offset, 1);
}

#[test]
fn a_record_too_large_ends_the_call_and_the_rest_is_kept() {
    let engine = HostClient::echo().unwrap();
    let options = ProducerOptions { max_record_size: Some(4), ..Default::default() };
    let producer = engine.producer(options).unwrap();
    let done = producer.submit(1, "t", [value(b"1234"), value(b"12345")].into_iter());
    assert_eq!(done.accepted, 1);
    assert_eq!(done.refused.unwrap().kind(), ErrorKind::RecordTooLarge);
    assert_eq!(drain(&engine).len(), 1);
}

#[test]
fn closed_handles_refuse_and_every_operation_still_ends() {
    let engine = HostClient::echo().unwrap();
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let consumer = engine.consumer(all("t")).unwrap();
    producer.close_wait(Duration::ZERO).unwrap();
    producer.close(1, Duration::ZERO);
    let refused = producer.submit(2, "t", [value(b"v")].into_iter()).refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    producer.flush(3);
    engine.create_topic(4, "made", 2, 1);
    engine.create_topic(5, "made", 2, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| engine.close());
        let ended = consumer.next(None);
        assert_eq!(ended.err().expect("closed").kind(), ErrorKind::Closed);
    });
    engine.close();
    engine.create_topic(6, "more", 2, 1);
    let told: Vec<_> =
        drain(&engine).into_iter().map(|c| (c.tag, c.error.map(|e| e.kind()))).collect();
    assert_eq!(
        told,
        [
            (1, None),
            (3, Some(ErrorKind::Closed)),
            (4, None),
            (5, Some(ErrorKind::TopicExists)),
            (6, Some(ErrorKind::Closed)),
        ]
    );
    assert_eq!(engine.consumer(all("t")).err().unwrap().kind(), ErrorKind::Closed);
}

/// Each setting of a producer arrives: one out of its range is refused by its name.
#[test]
fn every_setting_of_a_producer_is_passed_on() {
    type Set = fn(&mut ProducerOptions);
    let out_of_range: [(&str, Set); 5] = [
        ("linger", |o| o.linger = Some(Duration::from_secs(61))),
        ("batch_size", |o| o.batch_size = Some(1)),
        ("buffer_memory", |o| o.buffer_memory = Some(1)),
        ("delivery_timeout", |o| o.delivery_timeout = Some(Duration::ZERO)),
        ("max_record_size", |o| o.max_record_size = Some(0)),
    ];
    let client = ClientOptions { bootstrap: "localhost:1".into(), ..ClientOptions::default() };
    let client = client.builder().build().unwrap();
    for (name, set) in out_of_range {
        let mut options = ProducerOptions::default();
        assert!(options.apply(client.producer()).build().is_ok());
        set(&mut options);
        let error = options.apply(client.producer()).build().err().expect(name);
        assert!(error.kind() == ErrorKind::Config && error.message().contains(name), "{error}");
    }
}

/// And each of a client.
#[test]
fn every_setting_of_a_client_is_passed_on() {
    type Set = fn(&mut ClientOptions);
    let out_of_range: [(&str, Set); 6] = [
        ("bootstrap", |o| o.bootstrap = "a:b".into()),
        ("client_id", |o| o.client_id = Some("x".repeat(250))),
        ("connect_timeout", |o| o.connect_timeout = Some(Duration::ZERO)),
        ("request_timeout", |o| o.request_timeout = Some(Duration::ZERO)),
        ("idle_timeout", |o| o.idle_timeout = Some(Duration::ZERO)),
        ("ordinal", |o| o.ordinal = Some((3, 3))),
    ];
    for (name, set) in out_of_range {
        let mut options =
            ClientOptions { bootstrap: "localhost:1".into(), ..ClientOptions::default() };
        assert!(options.builder().build().is_ok());
        set(&mut options);
        let error = options.builder().build().err().expect(name);
        assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error}");
    }
}

/// -1 says that there is none; what is below says nothing.
#[test]
fn numbers_below_what_means_none_are_refused() {
    for (at, bytes) in [(0, &(-2i32).to_le_bytes()[..]), (8, &(-2i64).to_le_bytes()[..])] {
        let mut packed = Vec::new();
        pack(&mut packed, &value(b"x"));
        assert!(Packed::parse(&packed, 1).is_ok());
        packed[at..at + bytes.len()].copy_from_slice(bytes);
        let error = Packed::parse(&packed, 1).err().expect("a number that says nothing");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

/// A count that the bytes cannot hold is refused before anything is reserved for it: a header takes 8.
#[test]
fn headers_are_counted_against_the_bytes_that_are_there() {
    let mut packed = Vec::new();
    pack(&mut packed, &Entry::default());
    // One whose name and value are empty.
    packed.extend([0; 8]);
    for (count, fits) in [(1u32, true), (2, false), (8, false), (9, false)] {
        packed[4..8].copy_from_slice(&count.to_le_bytes());
        match Packed::parse(&packed, 1) {
            Ok(_) => assert!(fits, "{count} headers in 8 bytes"),
            Err(e) => assert!(!fits && e.message().contains("cannot fit"), "{count}: {e}"),
        }
    }
}

/// What a host leaves lying about has a limit, and it hears when it is below that again.
#[test]
fn a_host_that_does_not_drain_is_refused_until_it_does() {
    let engine = HostClient::echo().unwrap();
    let options = ProducerOptions { tag: 8, ..Default::default() };
    let producer = engine.producer(options).unwrap();
    for tag in 0..MAX_UNDRAINED as u64 {
        engine.queue().push(Completion::operation(tag, CompletionKind::Flushed, None));
    }
    let done = producer.submit(2, "t", std::iter::once(value(b"v")));
    assert_eq!(done.accepted, 0);
    assert_eq!(done.refused.expect("a refusal").kind(), ErrorKind::BufferFull);
    assert_eq!(drain(&engine).len(), MAX_UNDRAINED);
    let told: Vec<_> = drain(&engine).iter().map(|c| (c.kind, c.tag)).collect();
    assert_eq!(told, [(CompletionKind::Space, 8)]);
    assert_eq!(producer.submit(2, "t", std::iter::once(value(b"v"))).accepted, 1);
}

/// In whichever order runs were told of.
#[test]
fn a_close_tells_of_what_is_between_runs() {
    let queue = CompletionQueue::new().unwrap();
    let deliveries = deliveries::Deliveries::new(&queue);
    let id = deliveries.begin(1);
    deliveries.accepted(id, 6);
    let topic = "t".into();
    for first in [4, 1] {
        let outcome = Ok(crate::Acked { partition: 0, offset: 0, timestamp_ms: 0 });
        let run = crate::producer::RunResult { tag: id, topic: &topic, first, count: 1, outcome };
        crate::producer::RunSink::resolved(&*deliveries, run);
    }
    deliveries.fail_all(&crate::Error::closed("client"));
    let mut all = Vec::new();
    queue.drain(&mut all, usize::MAX);
    let failed = all.iter().filter(|c| c.error.is_some()).map(|c| (c.first, c.count));
    assert_eq!(failed.collect::<Vec<_>>(), [(0, 1), (2, 2), (5, 1)]);
}

/// Who waits for something as everything ends does not wait for ever, nor does who comes later.
#[test]
fn the_end_wakes_who_waits() {
    let queue = CompletionQueue::new().unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    let patience = Duration::from_secs(10);
    // So many that the first of them wait by the time the last has begun.
    for _ in 0..30 {
        let (told, waiting) = (told.clone(), std::sync::Arc::clone(&queue));
        std::thread::spawn(move || {
            told.send(None).unwrap();
            told.send(Some(waiting.wait(None))).unwrap();
            told.send(Some(waiting.wait(None))).unwrap();
        });
        assert_eq!(hears.recv_timeout(patience), Ok(None));
    }
    queue.end();
    for _ in 0..2 * 30 {
        assert_eq!(hears.recv_timeout(patience), Ok(Some(false)));
    }
}

#[test]
fn the_echo_forgets_its_oldest_records() {
    let engine = HostClient::echo().unwrap();
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    let large = vec![7; 1 << 20];
    for _ in 0..20 {
        assert_eq!(producer.submit(1, "t", std::iter::once(value(&large))).accepted, 1);
    }
    let consumer = engine.consumer(all("t")).unwrap();
    let oldest = consumer.try_next().unwrap().expect("a batch").get(0).unwrap().offset;
    assert!((4..19).contains(&oldest), "{oldest}");
}

/// Who asked to be told when to look again is told of the end, too.
#[test]
fn a_consumer_that_is_closed_says_so_to_who_waits() {
    let engine = HostClient::echo().unwrap();
    let consumer = engine.consumer(ConsumerOptions { tag: 5, ..all("t") }).unwrap();
    assert!(consumer.try_next().unwrap().is_none());
    assert!(drain(&engine).is_empty());
    consumer.close();
    assert_eq!(drain(&engine).iter().map(|c| c.tag).collect::<Vec<_>>(), [5]);
    assert_eq!(consumer.try_next().err().unwrap().kind(), ErrorKind::Closed);
}
