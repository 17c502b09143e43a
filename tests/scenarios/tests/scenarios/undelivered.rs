//! What failed and nobody looked at is told: by flush, by close, by the end of a producer and of a
//! client. What was looked at is not told again. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Compression, Delivery, ErrorKind, Partitioner, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use ottla_scenarios::warnings::{Warnings, listen};

async fn there() -> (Cluster, Client) {
    let cluster = cluster(1, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    (cluster, client)
}

fn nowhere() -> Record<'static> {
    Record::to("nowhere").value("x")
}

#[tokio::test(start_paused = true)]
async fn a_flush_tells_of_a_record_that_nobody_looked_at() {
    let (_cluster, client) = there().await;
    let producer = client.producer().build().unwrap();
    drop(within("space", producer.send(nowhere())).await.unwrap());
    drop(within("space", producer.send(free())).await.unwrap());
    let error = within("a flush", producer.flush()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("1 record failed and nobody had looked"), "{text}");
    assert!(text.contains("'nowhere'") && text.contains("create the topic first"), "{text}");
    // Once.
    within("a flush", producer.flush()).await.unwrap();
    within("a close", producer.close(secs(5))).await.unwrap();
}

/// The count, the first error and the topics of what a flush tells.
async fn told(producer: &Producer) -> Option<(usize, ErrorKind, Vec<String>)> {
    let error = within("a flush", producer.flush()).await.err()?;
    assert_eq!(error.kind(), ErrorKind::Undelivered, "{error}");
    let lost = error.undelivered().expect("an error of this kind tells what is lost");
    let topics = lost.topics().map(str::to_owned).collect();
    Some((lost.records(), lost.first_error().kind(), topics))
}

fn unknown(records: usize) -> Option<(usize, ErrorKind, Vec<String>)> {
    Some((records, ErrorKind::UnknownTopic, vec!["nowhere".into()]))
}

/// Records for a topic that there is not: taken before that is known.
async fn send_nowhere(producer: &Producer, records: usize) -> Vec<Delivery> {
    // What is remembered of a missing topic is forgotten.
    tokio::time::sleep(secs(120)).await;
    let mut sent = Vec::new();
    for _ in 0..records {
        sent.push(within("space", producer.send(nowhere())).await.expect("taken"));
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_at_is_not_told() {
    let (_cluster, client) = there().await;
    let producer = client.producer().build().unwrap();
    // All, by awaiting; some; none, but printed and asked whether it is done.
    for delivery in send_nowhere(&producer, 5).await {
        assert!(within("an outcome", delivery).await.is_err());
    }
    assert_eq!(told(&producer).await, None);
    let sent = send_nowhere(&producer, 5).await;
    tokio::time::sleep(secs(30)).await;
    let looked_at = sent[1..3].iter().filter(|d| d.try_get().unwrap().is_err()).count();
    let again = sent[1..3].iter().filter(|d| d.try_get().unwrap().is_err()).count();
    assert_eq!((looked_at, again), (2, 2));
    assert!(sent.iter().all(|d| d.is_done() && d.peek().unwrap().is_err()));
    assert_eq!(told(&producer).await, unknown(3));
    assert_eq!(told(&producer).await, None);
    // Told of together; each still says so when it is asked.
    assert!(sent.into_iter().all(|d| d.try_get().unwrap().is_err()));
    assert_eq!(told(&producer).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_record_hears_of_it_and_the_flush_does_not() {
    let (_cluster, client) = there().await;
    let producer = client.producer().build().unwrap();
    let sent = send_nowhere(&producer, 3).await;
    let waiting = tokio::spawn(async move {
        let mut failed = 0;
        for delivery in sent {
            failed += usize::from(delivery.await.is_err());
        }
        failed
    });
    tokio::task::yield_now().await;
    assert_eq!(told(&producer).await, None);
    assert_eq!(within("the others", waiting).await.unwrap(), 3);
    // Who has given up does not.
    let mut sent = send_nowhere(&producer, 1).await;
    let waited = tokio::time::timeout(secs(1), &mut sent[0]).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(sent);
    assert_eq!(told(&producer).await, unknown(1));
}

/// Producers with equal settings share batches, and no failures.
#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_the_producer_that_sent_the_record() {
    let (_cluster, client) = there().await;
    let one = client.producer().build().unwrap();
    let two = client.producer().build().unwrap();
    let clone = one.clone();
    tokio::time::sleep(secs(120)).await;
    for producer in [&one, &two, &one, &clone, &clone, &two] {
        drop(within("space", producer.send(nowhere())).await.unwrap());
    }
    let values = within("space", two.send_batch("nowhere", [b"a", b"b", b"c"])).await.unwrap();
    drop(values);
    assert_eq!(told(&two).await, unknown(5));
    assert_eq!(told(&clone).await, unknown(4));
    assert_eq!(told(&one).await, None);
}

/// Keyed records that wait for their partition, and batches that are taken apart, keep their sender.
#[tokio::test(start_paused = true)]
async fn records_that_move_keep_their_sender() {
    let (cluster, client) = there().await;
    let keyed = || client.producer().partitioner(Partitioner::KeyHash).build().unwrap();
    let (one, two) = (keyed(), keyed());
    cluster.faults().inject(FaultRule::new(Fault::Error(29)).api(ApiKey::PRODUCE).always());
    for (i, producer) in [&one, &two, &one].into_iter().enumerate() {
        let key = i.to_string();
        drop(within("space", producer.send(Record::to("t").key(&key))).await.unwrap());
    }
    let lost = |n| Some((n, ErrorKind::Authorization, vec!["t".to_owned()]));
    assert_eq!(told(&one).await, lost(2));
    assert_eq!(told(&two).await, lost(1));
}

/// Also where the record is in another batch by then.
#[tokio::test(start_paused = true)]
async fn what_was_looked_at_after_it_moved_is_not_told() {
    let (cluster, client) = there().await;
    let producer = client.producer().partitioner(Partitioner::KeyHash).build().unwrap();
    cluster.faults().inject(FaultRule::new(Fault::Error(29)).api(ApiKey::PRODUCE).always());
    // Nobody knows yet how many partitions there are.
    let sent = ["a", "b", "c"].map(|key| producer.try_send(Record::to("t").key(key)).unwrap());
    tokio::time::sleep(secs(30)).await;
    assert!(sent[..2].iter().all(|delivery| delivery.try_get().unwrap().is_err()));
    let lost = Some((1, ErrorKind::Authorization, vec!["t".to_owned()]));
    assert_eq!(told(&producer).await, lost);
}

/// What is too large for the topic fails alone, in a batch of its own.
#[tokio::test(start_paused = true)]
async fn records_of_a_batch_that_is_cut_keep_their_sender() {
    let small = Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1).max_message_bytes(1_000);
    let cluster = small.start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let settings = || client.producer().compression(Compression::None).build().unwrap();
    let (one, two) = (settings(), settings());
    acked(&one, pinned(0)).await;
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::DelayResponse(secs(1)), 1);
    drop(one.try_send(pinned(0)).unwrap());
    tokio::time::sleep(ms(10)).await;
    let large = vec![b'l'; 2_000];
    for (producer, value) in [(&one, &b"x"[..]), (&two, &large), (&one, b"y"), (&two, &large)] {
        drop(producer.try_send(Record::to("t").partition(0).value(value)).unwrap());
    }
    assert_eq!(told(&two).await, Some((2, ErrorKind::RecordTooLarge, vec!["t".to_owned()])));
    assert_eq!(told(&one).await, None);
    assert_eq!(cluster.records("t", 0).unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_close_tells_and_counts_what_it_gives_up() {
    let (cluster, client) = there().await;
    let producer = client.producer().build().unwrap();
    drop(send_nowhere(&producer, 2).await);
    let error = within("a close", producer.close(secs(60))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undelivered);
    assert_eq!(error.undelivered().unwrap().records(), 2);
    assert!(!error.maybe_written() && !error.is_fatal());
    within("a close", producer.close(secs(60))).await.unwrap();

    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
    let sent: Vec<_> = (0..3).map(|_| producer.try_send(free()).unwrap()).collect();
    tokio::time::sleep(ms(100)).await;
    let error = within("a close", producer.close(secs(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let lost = error.undelivered().expect("what it gave up");
    assert_eq!((lost.records(), error.maybe_written()), (3, true));
    assert!(sent.iter().all(|d| d.try_get().unwrap().is_err()));
}

/// Of each record whether it failed, and of the others where they are.
#[tokio::test(start_paused = true)]
async fn a_batch_handle_tells_which_records_failed() {
    let (cluster, client) = there().await;
    let producer = client.producer().batch_size(16 << 10).build().unwrap();
    let values = vec![[b'v'; 1_000]; 100];
    let sent = within("space", producer.send_batch("t", &values)).await.unwrap();
    assert_eq!(sent.outcomes().filter(Option::is_none).count(), 100);
    within("a flush", producer.flush()).await.unwrap();
    let mut at: Vec<_> = sent.outcomes().map(|o| o.unwrap().unwrap()).collect();
    assert_eq!(at.len(), 100);
    at.sort_by_key(|at| (at.partition, at.offset));
    at.dedup();
    assert_eq!(at.len(), 100, "each has a place of its own");

    // Some partitions refuse.
    let refuses = FaultRule::new(Fault::Error(29)).api(ApiKey::PRODUCE).topic("t");
    cluster.faults().inject(refuses.always().share(0.3, 7));
    let mut sent = within("space", producer.send_batch("t", &values)).await.unwrap();
    let outcome = within("an outcome", &mut sent).await;
    let failed = sent.outcomes().filter(|o| matches!(o, Some(Err(_)))).count();
    let acked: Vec<_> = sent.outcomes().filter_map(|o| o.unwrap().ok()).collect();
    assert_eq!(failed + acked.len(), 100);
    assert_eq!(outcome.is_err(), failed > 0);
    assert!(failed > 0, "nothing was refused");
    let all = 100 + acked.len();
    let there: usize = (0..3).map(|p| cluster.records("t", p).unwrap().len()).sum();
    assert_eq!(there, all);
    assert_eq!(told(&producer).await, None, "the handle was read");
}

/// The last chance to say so.
#[tokio::test(start_paused = true)]
async fn dropped_handles_warn_with_the_number() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let (cluster, client) = there().await;
    let producer = client.producer().build().unwrap();
    drop(send_nowhere(&producer, 2).await);
    tokio::time::sleep(secs(30)).await;
    drop(producer);
    assert!(warnings.text().contains("2 records failed"), "{}", warnings.text());

    // What fails later, and what is on its way when the last handle goes.
    let producer = client.producer().build().unwrap();
    drop(send_nowhere(&producer, 3).await);
    drop(producer);
    tokio::time::sleep(secs(30)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
    for i in 0..1_000 {
        drop(producer.try_send(free()).unwrap());
        if i == 500 {
            tokio::time::sleep(ms(100)).await;
        }
    }
    drop(client);
    assert!(!warnings.text().contains("unacknowledged"), "{}", warnings.text());
    drop(producer);
    let text = warnings.text();
    assert!(text.contains("3 records failed"), "{text}");
    assert!(text.contains("unacknowledged") && text.contains("records=1000"), "{text}");
}
