//! What belongs to the program runs under none of our locks: wakers, iterators and values that are
//! given to `send_batch`, subscribers of `tracing`. Each of them here uses the client on the spot,
//! which would wait for itself for ever. In virtual time, on one thread.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, ClientBuilder, Delivery, Partitioner, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{SOON, within};
use ottla_scenarios::warnings::listen;
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

/// Runs `work` on a thread and in a runtime of its own. A thread that waits for itself never ends:
/// then this one says so.
fn alone<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(work());
        let _ = done.send(());
    });
    match ended.recv_timeout(SOON) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a thread waits for itself"),
    }
}

/// What a program may do wherever it has a handle.
fn use_it(client: &Client, producer: &Producer) {
    let _ = client.stats();
    let _ = client.cluster();
    for record in [free(), Record::to("t").key("k").value("y"), Record::to("t").partition(0)] {
        drop(producer.try_send(record));
    }
    let flush = pin!(producer.flush());
    let _ = flush.poll(&mut Context::from_waker(Waker::noop()));
    drop(producer.clone());
}

/// A waker that looks at the handle that it was given for, and sends.
struct Curious {
    client: Client,
    producer: Producer,
    handles: Mutex<Vec<Delivery>>,
    woken: AtomicUsize,
    found: AtomicUsize,
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        // Sending may wake it again.
        if self.woken.fetch_add(1, Ordering::Relaxed) > 3 {
            return;
        }
        let found = self.handles.lock().unwrap().iter().filter(|d| d.try_get().is_some()).count();
        self.found.fetch_max(found, Ordering::Relaxed);
        use_it(&self.client, &self.producer);
    }
}

/// Has such a waker wait for both.
fn wait_curiously(client: &Client, producer: &Producer, handles: Vec<Delivery>) -> Arc<Curious> {
    let curious = Arc::new(Curious {
        client: client.clone(),
        producer: producer.clone(),
        handles: Mutex::new(handles),
        woken: AtomicUsize::new(0),
        found: AtomicUsize::new(0),
    });
    let waker = Waker::from(Arc::clone(&curious));
    for handle in curious.handles.lock().unwrap().iter_mut() {
        assert!(Pin::new(handle).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    curious
}

fn silent(cluster: &Cluster) {
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
}

#[test]
fn a_waker_may_look_at_its_handle_whatever_becomes_of_the_record() {
    for fails in [false, true] {
        alone(move || async move {
            let cluster = cluster(1, 1);
            let client = connect(virtual_cluster::client(&cluster, 1)).await;
            let producer = client.producer().delivery_timeout(secs(1)).build().unwrap();
            acked(&producer, free()).await;
            if fails {
                silent(&cluster);
            }
            let handles = (0..2).map(|_| producer.try_send(free()).unwrap()).collect();
            let curious = wait_curiously(&client, &producer, handles);
            tokio::time::sleep(secs(5)).await;
            assert_eq!(curious.found.load(Ordering::Relaxed), 2);
            let handle = curious.handles.lock().unwrap().pop().unwrap();
            assert_eq!(within("an outcome", handle).await.is_err(), fails);
        });
    }
}

/// A waker that panics when it is called.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        panic!("by the test");
    }
}

/// It is to blame for nobody else: other records go on, and who waits for them is woken.
#[test]
fn a_waker_that_panics_is_its_own_trouble() {
    for fails in [false, true] {
        alone(move || async move {
            let cluster = cluster(1, 2);
            let client = connect(virtual_cluster::client(&cluster, 1)).await;
            let producer = client.producer().build().unwrap();
            let there = || Record::to("t").partition(0).value("x");
            acked(&producer, there()).await;
            if fails {
                let refused = FaultRule::new(Fault::Error(29)).api(ApiKey::PRODUCE);
                cluster.faults().inject(refused.partition(0));
            }
            let slow = FaultRule::new(Fault::DelayResponse(ms(50))).api(ApiKey::PRODUCE);
            cluster.faults().inject(slow.always());
            let mut first = producer.try_send(there()).unwrap();
            let second = producer.try_send(there()).unwrap();
            let other = producer.try_send(Record::to("t").partition(1).value("y")).unwrap();
            let waker = Waker::from(Arc::new(Broken));
            assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
            let flush = pin!(producer.flush());
            assert!(flush.poll(&mut Context::from_waker(&waker)).is_pending());
            // Registered behind it.
            let outcomes = async { (second.await.is_err(), other.await) };
            let (failed, at) = within("outcomes", outcomes).await;
            assert_eq!((failed, at.unwrap().partition), (fails, 1));
            assert_eq!(first.await.is_err(), fails);
        });
    }
}

/// Its record moves into the batch of its partition once that is known.
#[test]
fn a_waker_may_send_when_its_record_finds_its_partition() {
    alone(|| async {
        let cluster = cluster(1, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let slow = FaultRule::new(Fault::DelayResponse(secs(1)));
        cluster.faults().inject(slow.api(ApiKey::METADATA).always());
        let producer = client.producer().partitioner(Partitioner::KeyHash).build().unwrap();
        let keyed = |key: &'static str| Record::to("t").key(key).value("x");
        let handles = ["a", "b"].map(|key| producer.try_send(keyed(key)).unwrap());
        let curious = wait_curiously(&client, &producer, handles.into());
        within("a wake-up", async {
            while curious.woken.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(ms(100)).await;
            }
        })
        .await;
        let handles = std::mem::take(&mut *curious.handles.lock().unwrap());
        for handle in handles {
            within("an ack", handle).await.unwrap();
        }
    });
}

/// Records without a partition leave their memory behind when they find one: who waits for space is
/// woken then.
#[test]
fn a_waker_that_waits_for_space_may_send_when_there_is_some() {
    alone(|| async {
        let cluster = cluster(1, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let slow = FaultRule::new(Fault::DelayResponse(secs(1)));
        cluster.faults().inject(slow.api(ApiKey::METADATA).always());
        let small = client.producer().buffer_memory(1 << 20).batch_size(64 << 10);
        let producer = small.partitioner(Partitioner::KeyHash).build().unwrap();
        let value = vec![b'v'; 10_000];
        let mut taken = Vec::new();
        let full = || Record::to("t").key("k").value(&value);
        while let Ok(delivery) = producer.try_send(full()) {
            taken.push(delivery);
        }
        let curious = wait_curiously(&client, &producer, Vec::new());
        let waker = Waker::from(Arc::clone(&curious));
        let mut waits = pin!(producer.send(full()));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        tokio::time::sleep(secs(5)).await;
        assert!(curious.woken.load(Ordering::Relaxed) > 0);
        drop(within("space", waits).await.unwrap());
        for handle in taken {
            within("an ack", handle).await.unwrap();
        }
    });
}

/// A value whose end sends another record.
struct Sends<'a>(&'a Client, &'a Producer);

impl AsRef<[u8]> for Sends<'_> {
    fn as_ref(&self) -> &[u8] {
        use_it(self.0, self.1);
        b"value"
    }
}

impl Drop for Sends<'_> {
    fn drop(&mut self) {
        use_it(self.0, self.1);
    }
}

#[test]
fn iterators_and_values_of_a_batch_may_send() {
    alone(|| async {
        let cluster = cluster(1, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = client.producer().build().unwrap();
        let values = (0..100).map(|_| {
            use_it(&client, &producer);
            Sends(&client, &producer)
        });
        let sent = within("space", producer.send_batch("t", values)).await.unwrap();
        assert_eq!(within("acks", sent).await.unwrap().records, 100);
        within("the rest", producer.flush()).await.unwrap();
        let there: usize = (0..3).map(|p| cluster.records("t", p).unwrap().len()).sum();
        // One record for each of three uses of each value.
        assert_eq!(there, 100 + 3 * 3 * 100);
    });
}

/// Uses the client at every event, and makes another at every new span. Clones are the same.
#[derive(Clone, Default)]
struct Nosy(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// How often each was heard.
    lines: BTreeMap<String, usize>,
    has: Option<(ClientBuilder, Client, Producer)>,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Nosy {
    fn look(&self, at: &'static Metadata<'static>) {
        let mut heard = self.0.lock().unwrap();
        let times = heard.lines.entry(format!("{}:{}", at.target(), at.name())).or_default();
        *times += 1;
        let often = *times > 3;
        let has = heard.has.clone();
        drop(heard);
        // What it does makes events itself: enough is enough.
        if often || INSIDE.replace(true) {
            return;
        }
        if let Some((settings, client, producer)) = has {
            use_it(&client, &producer);
            drop(client.producer().build().unwrap());
            if at.is_span() {
                drop(settings.software("made in a span", "1").build().unwrap());
            }
        }
        INSIDE.set(false);
    }
}

impl Subscriber for Nosy {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.look(attributes.metadata());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.look(event.metadata());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_subscriber_may_use_the_client_that_it_hears_of() {
    alone(|| async {
        let nosy = Nosy::default();
        let _set = listen(nosy.clone());
        let cluster = cluster(3, 6);
        let settings = virtual_cluster::client(&cluster, 1);
        let client = connect(settings.clone()).await;
        let producer = client.producer().delivery_timeout(secs(20)).build().unwrap();
        acked(&producer, free()).await;
        let has = (settings.clone(), client.clone(), producer.clone());
        nosy.0.lock().unwrap().has = Some(has);
        // A pool of its own, in the same environment.
        drop(connect(settings.software("other", "1")).await);
        // One broker fails until it is avoided; then nobody answers, until records time out.
        let failing = FaultRule::new(Fault::Error(-1)).api(ApiKey::PRODUCE).broker(2);
        cluster.faults().inject(failing.always());
        for _ in 0..200 {
            for partition in 0..6 {
                drop(producer.try_send(Record::to("t").partition(partition)));
            }
            tokio::time::sleep(ms(20)).await;
        }
        cluster.faults().clear();
        silent(&cluster);
        tokio::time::sleep(secs(60)).await;
        let heard = std::mem::take(&mut *nosy.0.lock().unwrap());
        let said = |what: &str| heard.lines.keys().any(|line| line.contains(what));
        for what in ["pool", "ottla::net", "ottla::producer"] {
            assert!(said(what), "{what}: {:?}", heard.lines);
        }
    });
}
