//! Loops in which everything is ready give others their turn: other tasks of a runtime with one thread,
//! and its timers. Also under executors that do not count what a task does.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ottla::testing::Cluster;
use ottla::{Client, Consumer, Delivery, Producer, Record};
use ottla_scenarios::steps::free;
use ottla_scenarios::wait::within;
use tokio::sync::oneshot;

/// The engine on its own thread, as programs have it.
async fn there() -> (Cluster, Client, Producer) {
    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
    let producer = client.producer().build().unwrap();
    let delivery = within("space", producer.send(free())).await.unwrap();
    within("an ack", delivery).await.unwrap();
    (cluster, client, producer)
}

/// Calls until another task of the same thread had its turn. More calls than any loop should make that
/// lets others in: a number, since how long they take is nobody's promise.
const MANY: usize = 200_000;

async fn until_others_had_a_turn(mut call: impl AsyncFnMut()) -> usize {
    let (turn, mut had) = oneshot::channel();
    tokio::spawn(async move { turn.send(()) });
    for calls in 0..MANY {
        if had.try_recv().is_ok() {
            return calls;
        }
        call().await;
    }
    panic!("no other task had a turn in {MANY} calls");
}

fn records(cluster: &Cluster) -> usize {
    cluster.records("t", 0).unwrap().len()
}

#[tokio::test]
async fn sends_in_a_loop_let_others_in() {
    let (_cluster, _client, producer) = there().await;
    // Neither waits for space: nothing but the budget makes room.
    for record in [free(), Record::to("t").key("k").value("v").partition(0)] {
        let calls = until_others_had_a_turn(async || {
            drop(producer.send(record).await.unwrap());
        });
        let calls = calls.await;
        assert!(calls < MANY / 2, "{calls} calls");
    }
    within("acks", producer.flush()).await.unwrap();
}

#[tokio::test]
async fn handles_that_are_done_let_others_in() {
    let (_cluster, _client, producer) = there().await;
    let mut handles: Vec<Delivery> = Vec::new();
    for _ in 0..20_000 {
        handles.push(within("space", producer.send(free())).await.unwrap());
    }
    within("acks", producer.flush()).await.unwrap();
    let mut handles = handles.into_iter();
    let calls = until_others_had_a_turn(async || {
        handles.next().expect("fewer calls than that").await.unwrap();
    });
    assert!(calls.await < 20_000);
}

#[tokio::test]
async fn flushes_and_batches_let_others_in() {
    let (cluster, client, producer) = there().await;
    let calls = until_others_had_a_turn(async || producer.flush().await.unwrap());
    assert!(calls.await < 1_000);
    let mut taken = 0;
    let calls = until_others_had_a_turn(async || {
        let values = std::iter::repeat_n(b"v", 32);
        taken += producer.send_batch("t", values).await.unwrap().len();
    });
    assert!(calls.await < 1_000);
    within("acks", producer.flush()).await.unwrap();
    assert_eq!(records(&cluster), taken + 1);
    drop(client);
}

/// Hundreds of small batches that are there already.
async fn backlog(client: &Client, cluster: &Cluster) -> Consumer {
    let single = client.producer().linger(Duration::ZERO).build().unwrap();
    for _ in 0..600 {
        let delivery = within("space", single.send(free())).await.unwrap();
        within("an ack", delivery).await.unwrap();
    }
    assert_eq!(records(cluster), 601);
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    // All of it in one response, once the first is here.
    within("a batch", consumer.next()).await.unwrap().unwrap();
    consumer
}

#[tokio::test]
async fn batches_that_were_read_ahead_let_others_in() {
    let (cluster, client, _producer) = there().await;
    let mut consumer = backlog(&client, &cluster).await;
    let (turn, mut had) = oneshot::channel();
    tokio::spawn(async move { turn.send(()) });
    let mut read = 1;
    // In one poll of the task, for as long as there is something.
    let polled = poll_fn(|cx| {
        while let Poll::Ready(batch) = consumer.poll_next(cx) {
            read += batch.unwrap().unwrap().len();
        }
        Poll::Ready(())
    });
    polled.await;
    assert!(read < 601 && had.try_recv().is_err(), "{read} records in one turn");
    // Whoever is turned away is woken again.
    while read < 601 {
        read += within("a batch", consumer.next()).await.unwrap().unwrap().len();
    }
    assert_eq!(read, 601);
}

struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// No runtime counts here: futures are polled by hand.
#[test]
fn other_executors_get_a_turn_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_cluster, _client, producer) = runtime.block_on(there());
    let counts = Arc::new(Counts(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&counts));
    // What counts at least are the pieces of memory that they fill, eight each; a turn is 512.
    let sends = async {
        for _ in 0..5 * MANY {
            drop(producer.send(free()).await.unwrap());
        }
    };
    let mut sends = pin!(sends);
    let mut turns = 0;
    let mut cx = Context::from_waker(&waker);
    while sends.as_mut().poll(&mut cx).is_pending() {
        turns += 1;
        let before = counts.0.load(Ordering::Relaxed);
        if before < turns {
            // For want of space: the engine wakes.
            while counts.0.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        }
    }
    assert!(turns >= 2, "{turns} turns of others in five times {MANY} sends");
    runtime.block_on(within("acks", producer.flush())).unwrap();
}

/// A thread that waits alone takes what is ready, however much it has taken before.
#[test]
fn a_wait_without_patience_takes_what_is_ready() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_cluster, _client, producer) = runtime.block_on(there());
    let mut handles: Vec<Delivery> = Vec::new();
    for _ in 0..2_000 {
        let delivery = runtime.block_on(within("space", producer.send(free()))).unwrap();
        runtime.block_on(within("an ack", async { producer.flush().await })).unwrap();
        handles.push(delivery);
    }
    // In a task of a runtime as well, whose budget is none of the thread's concern.
    runtime.block_on(async {
        for handle in &mut handles {
            handle.wait(Some(Duration::ZERO)).unwrap();
        }
    });
    for handle in &mut handles {
        handle.wait(Some(Duration::ZERO)).unwrap();
    }
}
