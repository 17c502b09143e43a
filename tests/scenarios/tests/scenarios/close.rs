//! How a producer ends: flushed, closed or dropped, everything resolves and nothing stays open.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Compression, ErrorKind, Producer, Record};
use ottla_scenarios::steps::{
    acked, acks, cluster, connect, flushed, free, ms, pinned, secs, send_pinned, small_batches,
    stored, value, warm,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use ottla_scenarios::warnings::{Warnings, listen};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn s06_close_while_nothing_is_reachable() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    let deliveries = send_pinned(&producer, 0..10).await;
    let begun = Instant::now();
    let error = within("close", producer.close(secs(5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!((secs(5)..secs(6)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    for delivery in deliveries {
        let error = delivery.try_get().expect("close resolves everything").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!error.maybe_written(), "nothing left this process: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn s06_close_while_the_response_is_lost() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small_batches(&client).build().unwrap();
    warm(&producer).await;
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::BlackHoleAfterAppend, 1);
    let deliveries = send_pinned(&producer, 3..4).await;
    until("the append", || stored(&cluster, 0).len() == 4).await;
    within("close", producer.close(secs(5))).await.unwrap_err();
    for delivery in deliveries {
        let error = delivery.try_get().expect("close resolves everything").unwrap_err();
        assert!(error.maybe_written(), "it is in the log: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn s06_flush_while_nothing_is_reachable() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().delivery_timeout(secs(10)).build().unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let delivery = producer.send(Record::to("t").value("x")).await.unwrap();
    let begun = Instant::now();
    assert_eq!(flushed(&producer).await, 1);
    assert!((secs(9)..secs(11)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(delivery.try_get().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_producer_and_client_resolve_what_is_left() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let deliveries = send_pinned(&producer, 0..5).await;
    drop(producer);
    drop(client);
    for delivery in deliveries {
        let error = within("an end", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let said = warnings.text();
    assert!(said.contains("records=5") && said.contains("dropped"), "{said}");
}

/// The client lives on, and what was given to it: nothing is lost for want of a variable.
#[tokio::test(start_paused = true)]
async fn a_dropped_producers_records_are_delivered_while_its_client_lives() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().linger(secs(10)).build().unwrap();
    let deliveries = send_pinned(&producer, 0..5).await;
    drop(producer);
    acks(deliveries).await;
    assert_eq!(stored(&cluster, 0).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn connections_close_with_the_last_handle() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    acks(send_pinned(&producer, 0..6).await).await;
    drop(client);
    drop(consumer);
    assert!(cluster.stats().connections_open() >= 3, "a producer is left");
    drop(producer);
    // Long before they would for being idle.
    until("closed connections", || cluster.stats().connections_open() == 0).await;
}

/// Whatever was being dialled when all connections were lost at once.
#[tokio::test(start_paused = true)]
async fn connections_close_with_the_last_handle_after_a_reset() {
    for seed in 0..60 {
        let cluster = cluster(3, 6);
        let client = virtual_cluster::client(&cluster, seed);
        let client = within("connect", client.connect()).await.unwrap();
        let producer = client.producer().build().unwrap();
        acks(send_pinned(&producer, 0..6).await).await;
        for broker in cluster.broker_ids() {
            cluster.cut_connections(broker).unwrap();
        }
        let mut deliveries = Vec::new();
        for i in 0..20 {
            deliveries.push(producer.send(Record::to("t").value(&value(i))).await.unwrap());
            tokio::time::sleep(ms(10)).await;
        }
        acks(deliveries).await;
        drop((client, producer));
        // What is needed is dialled within 5 s; nothing else may be waited for.
        tokio::time::sleep(secs(5)).await;
        assert_eq!(cluster.stats().connections_open(), 0, "seed {seed}");
    }
}

/// So large that it is compressed on a thread of its own.
static LARGE: [u8; 300_000] = [b'x'; 300_000];

async fn slow_codec() -> (Cluster, Producer) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client
        .producer()
        .compression(Compression::Zstd { level: 12 })
        .batch_size(400_000)
        .build()
        .unwrap();
    acked(&producer, free()).await;
    (cluster, producer)
}

async fn closes_late(producer: &Producer, timeout: Duration) {
    let begun = Instant::now();
    let error = within("close", producer.close(timeout)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!((timeout..timeout + secs(1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Full batches are being compressed as the close begins, or not even that, and one is open.
#[tokio::test(start_paused = true)]
async fn s06_close_while_batches_are_compressed_and_nothing_is_reachable() {
    for records in [1, 2, 9] {
        for timeout in [Duration::ZERO, secs(3)] {
            let (cluster, producer) = slow_codec().await;
            cluster.stop_broker(1, Leaders::Keep).unwrap();
            let mut deliveries = Vec::new();
            for _ in 0..records {
                deliveries.push(producer.send(Record::to("t").value(&LARGE)).await.unwrap());
            }
            closes_late(&producer, timeout).await;
            for delivery in deliveries {
                let error = delivery.try_get().expect("close resolves everything").unwrap_err();
                assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
            }
        }
    }
}

/// One that is built in the moment in which a close gives up has nothing to do with it.
#[tokio::test(start_paused = true)]
async fn a_close_that_gives_up_spares_a_producer_built_meanwhile() {
    let cluster = cluster(1, 2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let build = || client.producer().build().unwrap();
    let closed = build();
    within("ack", closed.send(pinned(0)).await.unwrap()).await.unwrap();
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE));
    let left = closed.send(pinned(0)).await.unwrap();
    let mut closing = std::pin::pin!(closed.close(secs(1)));
    let mut step = async || {
        let step = |cx: &mut std::task::Context<'_>| {
            std::task::Poll::Ready(closing.as_mut().poll(cx).is_ready())
        };
        std::future::poll_fn(step).await
    };
    assert!(!step().await);
    tokio::time::advance(secs(1)).await;
    assert!(!step().await, "it has given up, and waits until that is heard");
    let built = build();
    let mine = built.try_send(pinned(1)).unwrap();
    within("its end", left).await.unwrap_err();
    within("ack", mine).await.unwrap();
}

/// From the moment of the close on, also what would only have to go into a batch that is open.
#[tokio::test(start_paused = true)]
async fn a_producer_that_closes_takes_no_more() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().linger(secs(5)).build().unwrap();
    acked(&producer, free()).await;
    // Two, so that the batch is known to this thread.
    let taken = [producer.try_send(free()).unwrap(), producer.try_send(free()).unwrap()];
    let mut closing = std::pin::pin!(producer.close(secs(60)));
    let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(closing.as_mut().poll(cx))).await;
    assert!(begun.is_pending());
    assert_eq!(producer.try_send(free()).unwrap_err().kind(), ErrorKind::Closed);
    within("close", closing).await.unwrap();
    acks(taken.into()).await;
    assert_eq!(stored(&cluster, 0).len(), 3);
}

/// Producers with equal settings share batches: what is left of one is on its way for the others, and with it
/// what the one that closes has in them.
#[tokio::test(start_paused = true)]
async fn a_close_that_gives_up_fails_nothing_of_who_shares_its_batches() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let build = || client.producer().build().unwrap();
    let (closed, stays) = (build(), build());
    acked(&closed, free()).await;
    cluster.faults().inject(FaultRule::new(Fault::DelayResponse(secs(10))).api(ApiKey::PRODUCE));
    let sent = vec![closed.try_send(free()).unwrap(), stays.try_send(free()).unwrap()];
    closes_late(&closed, secs(1)).await;
    assert!(sent.iter().all(|delivery| !delivery.is_done()));
    acks(sent).await;
    acked(&stays, free()).await;
}

/// There is space once all is acknowledged that a close waits for, and nothing new goes into it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_space_as_a_producer_closes_is_refused() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let builder = client.producer().buffer_memory(1 << 20).compression(Compression::None);
    let producer = builder.build().unwrap();
    acked(&producer, free()).await;
    let slow = FaultRule::new(Fault::DelayResponse(secs(1))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let large = Record::to("t").value(&LARGE);
    let taken: Vec<_> = std::iter::from_fn(|| producer.try_send(large).ok()).collect();
    let mut waiting = std::pin::pin!(producer.send(large));
    let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx))).await;
    assert!(begun.is_pending());
    let both = async { tokio::join!(producer.close(secs(60)), waiting) };
    let (closed, refused) = within("both ends", both).await;
    closed.unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stored(&cluster, 0).len(), 1 + acks(taken).await.len());
}
