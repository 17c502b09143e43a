//! Delivery handles: who waits for them, who no longer does, and who never did. In virtual time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use ottla::testing::{ApiKey, Fault, Leaders};
use ottla::{Compression, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

/// One task has asked for two records of a batch, and then gives one handle away.
#[tokio::test(start_paused = true)]
async fn a_handle_that_another_task_waits_for_takes_nobodys_wake_up_away() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    for given in [0, 1] {
        cluster.faults().on(1, ApiKey::PRODUCE, Fault::DelayResponse(secs(1)), 1);
        let begun = Instant::now();
        let mut handles =
            vec![producer.try_send(free()).unwrap(), producer.try_send(free()).unwrap()];
        poll_fn(|cx| {
            assert!(handles.iter_mut().all(|handle| Pin::new(handle).poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
        let other = tokio::spawn(handles.remove(given));
        within("an ack", handles.remove(0)).await.unwrap();
        assert!((secs(1)..secs(1) + ms(100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        within("an ack", other).await.unwrap().unwrap();
    }
}

/// Sends that wait for space are dropped, in every order and at every place in the line.
#[tokio::test(start_paused = true)]
async fn a_send_that_is_given_up_is_not_sent_and_in_nobodys_way() {
    let value = [b'f'; 100_000];
    for mut drops in [vec![0, 1, 2, 3], vec![3, 2, 1, 0], vec![1, 3], vec![2, 0, 1], vec![]] {
        let cluster = cluster(1, 1);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let small = client.producer().buffer_memory(1 << 20).compression(Compression::None);
        let producer = small.build().unwrap();
        cluster.stop_broker(1, Leaders::Keep).unwrap();
        let mut taken = Vec::new();
        while let Ok(delivery) = producer.try_send(Record::to("t").value(&value)) {
            taken.push(delivery);
        }
        let values: Vec<_> = (0..5).map(|i| vec![b'0' + i; 100_000]).collect();
        let mut waiting: Vec<_> = values
            .iter()
            .map(|value| Some(Box::pin(producer.send(Record::to("t").value(value)))))
            .collect();
        poll_fn(|cx| {
            let mut polled = waiting.iter_mut().flatten().map(|send| send.as_mut().poll(cx));
            assert!(polled.all(|poll| poll.is_pending()));
            Poll::Ready(())
        })
        .await;
        // Half of them while nothing moves, the others as space comes.
        for at in drops.drain(..drops.len() / 2).collect::<Vec<_>>() {
            waiting[at] = None;
        }
        cluster.start_broker(1).unwrap();
        within("an ack", taken.remove(0)).await.unwrap();
        for at in drops {
            waiting[at] = None;
        }
        let left: Vec<_> = (0..5).filter(|at| waiting[*at].is_some()).collect();
        for send in waiting.into_iter().flatten() {
            let delivery = within("space", send).await.unwrap();
            within("an ack", delivery).await.unwrap();
        }
        acked(&producer, free()).await;
        let there = cluster.records("t", 0).unwrap();
        let first = |value: &[u8]| usize::from(value[0] - b'0');
        let sent: Vec<_> =
            there.iter().map(|r| first(r.value.as_deref().unwrap())).filter(|n| *n < 5).collect();
        assert_eq!(sent, left, "those that were not given up, in their order");
    }
}

/// Nobody waits for any of them, or only for some; the records are sent all the same.
#[tokio::test(start_paused = true)]
async fn handles_are_dropped_before_and_after_the_response_and_while_it_is_waited_for() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for round in 0..20 {
        let mut handles: Vec<_> = (0..6).map(|_| producer.try_send(free()).unwrap()).collect();
        drop(handles.pop());
        let mut polled = handles.pop().unwrap();
        let mut kept = handles.pop().unwrap();
        poll_fn(|cx| {
            assert!(Pin::new(&mut polled).poll(cx).is_pending());
            assert!(Pin::new(&mut kept).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(polled);
        let abandoned = tokio::spawn(handles.pop().unwrap());
        tokio::task::yield_now().await;
        abandoned.abort();
        assert_eq!(within("an ack", kept).await.unwrap().offset, round * 6 + 3);
        let answered = handles.pop().unwrap();
        assert_eq!(answered.try_get().unwrap().unwrap().offset, round * 6 + 1);
        drop((answered, handles));
    }
    within("flush", producer.flush()).await.unwrap();
    assert_eq!(cluster.records("t", 0).unwrap().len(), 120);
}
