//! Reading from a replica in the client's own rack (KIP-392), and from the leader again as soon as something is wrong
//! with that.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Client, Compression, Consumer, Producer, Record};
use ottla_scenarios::steps::{acks, connect, ms, secs, seen};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

struct Set {
    cluster: Cluster,
    client: Client,
    producer: Producer,
    consumer: Consumer,
    written: i64,
    read: i64,
}

/// Three brokers in racks a, b and c, of which the first leads.
fn cluster() -> Cluster {
    let cluster = Cluster::builder()
        .brokers(3)
        .racks(["a", "b", "c"])
        .tcp(false)
        .topic("t", 1, 3)
        .start_on_current_runtime()
        .unwrap();
    cluster.move_leader("t", 0, 1).unwrap();
    cluster
}

/// The same, with a client in one of the racks.
async fn set(rack: Option<&str>) -> Set {
    of(cluster(), rack).await
}

async fn of(cluster: Cluster, rack: Option<&str>) -> Set {
    let mut builder = virtual_cluster::client(&cluster, 1);
    if let Some(rack) = rack {
        builder = builder.rack(rack);
    }
    let client = connect(builder).await;
    let producer = client.producer().compression(Compression::None).build().unwrap();
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    Set { cluster, client, producer, consumer, written: 0, read: 0 }
}

impl Set {
    /// Ten records, of which each is a batch.
    async fn write(&mut self) {
        for _ in 0..10 {
            let value = format!("{}", self.written);
            let sent = self.producer.try_send(Record::to("t").partition(0).value(&value)).unwrap();
            assert_eq!(acks(vec![sent]).await[0].offset, self.written);
            self.written += 1;
        }
    }

    /// Reads all that was written, in order and once each. How long that took.
    async fn reads_all(&mut self) -> std::time::Duration {
        let begun = Instant::now();
        while self.read < self.written {
            let next = tokio::time::timeout(secs(120), self.consumer.next()).await;
            let batch = next.expect("records").unwrap().expect("nothing is told");
            for record in &batch {
                assert_eq!(record.offset(), self.read);
                self.read += 1;
            }
        }
        begun.elapsed()
    }

    /// Fetches that a broker has got since a count before.
    fn fetches(&self, broker: i32) -> u64 {
        seen(&self.cluster, broker, ApiKey::FETCH)
    }

    fn replicas(&self) -> (u64, u64) {
        let stats = self.client.stats();
        (stats.replicas_chosen, stats.replicas_left)
    }

    /// Reads from the follower in its rack.
    async fn near() -> Self {
        let mut set = set(Some("b")).await;
        set.write().await;
        set.reads_all().await;
        assert_eq!(set.replicas(), (1, 0));
        set
    }

    /// Whom it asks while nothing happens.
    async fn asks(&mut self) -> Vec<i32> {
        let before = [1, 2, 3].map(|broker| self.fetches(broker));
        let waits = tokio::time::timeout(secs(5), self.consumer.next()).await;
        assert!(waits.is_err(), "{waits:?}");
        (1..=3).filter(|id| self.fetches(*id) > before[*id as usize - 1] + 1).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn s26_a_client_reads_in_its_own_rack() {
    let mut set = Set::near().await;
    assert_eq!(set.asks().await, [2]);
    set.write().await;
    set.reads_all().await;
    assert_eq!(set.replicas(), (1, 0));
    // In the leader's, in one where no replica is, and in none.
    for rack in [Some("a"), Some("d"), None] {
        let mut set = self::set(rack).await;
        set.write().await;
        set.reads_all().await;
        assert_eq!((set.asks().await, set.replicas()), (vec![1], (0, 0)), "{rack:?}");
    }
}

/// Only the leader knows who is in sync: it is asked again every five minutes.
#[tokio::test(start_paused = true)]
async fn s26_the_leader_is_asked_again_after_some_minutes() {
    let mut set = Set::near().await;
    set.cluster.set_in_sync("t", 0, 2, false).unwrap();
    assert_eq!(set.asks().await, [2], "its word still counts");
    let waits = tokio::time::timeout(secs(360), set.consumer.next()).await;
    assert!(waits.is_err());
    assert_eq!(set.asks().await, [1]);
    set.write().await;
    assert!(set.reads_all().await < secs(1));
}

#[tokio::test(start_paused = true)]
async fn s26_a_follower_that_dies_is_left_for_the_leader() {
    let mut set = Set::near().await;
    set.write().await;
    set.cluster.stop_broker(2, Leaders::Keep).unwrap();
    set.write().await;
    let took = set.reads_all().await;
    assert!(took < ms(1_500), "{took:?}");
    assert_eq!(set.replicas(), (1, 1));
    // The leader goes on naming it, as the cluster has not noticed. It is not told the rack, and gives records.
    set.write().await;
    assert!(set.reads_all().await < ms(600));
    assert_eq!(set.asks().await, [1]);
    // It comes back, and is chosen again once it was shunned for a while.
    set.cluster.start_broker(2).unwrap();
    let waits = tokio::time::timeout(secs(40), set.consumer.next()).await;
    assert!(waits.is_err());
    assert_eq!((set.asks().await, set.replicas()), (vec![2], (2, 1)));
}

/// What it has not, or refuses, is said by somebody who need not know.
#[tokio::test(start_paused = true)]
async fn s26_what_a_follower_refuses_the_leader_gives() {
    for act in ["out of range", "error", "parted"] {
        let mut set = Set::near().await;
        match act {
            "out of range" => _ = set.cluster.set_follower_start("t", 0, 2, Some(25)).unwrap(),
            "parted" => _ = set.cluster.set_follower_end("t", 0, 2, Some(5)).unwrap(),
            _ => {
                let rule = FaultRule::new(Fault::Error(6)).api(ApiKey::FETCH).broker(2).times(1);
                set.cluster.faults().inject(rule);
            }
        }
        set.write().await;
        let took = set.reads_all().await;
        assert!(took < secs(2), "{act}: {took:?}");
        assert_eq!(set.replicas(), (1, 1), "{act}");
        assert_eq!(set.consumer.position("t", 0), Some(20), "{act}");
    }
}

/// In sync, and behind: brokers allow that for half a minute and longer.
#[tokio::test(start_paused = true)]
async fn s26_a_follower_that_is_behind_is_left_for_the_leader() {
    let mut set = set(Some("b")).await;
    set.write().await;
    set.cluster.freeze_follower("t", 0, 2).unwrap();
    set.cluster.set_follower_end("t", 0, 2, Some(5)).unwrap();
    set.write().await;
    let took = set.reads_all().await;
    assert!(took < secs(25), "{took:?}");
    assert_eq!(set.replicas(), (1, 1));
    within("what is new", async {
        set.write().await;
        set.reads_all().await;
    })
    .await;
}

/// Brokers hear of each other before a client does: metadata does not have the follower that the leader names.
#[tokio::test(start_paused = true)]
async fn s26_a_follower_that_nobody_knows_yet_keeps_nothing_from_the_leader() {
    let cluster = cluster();
    cluster.fence_broker(2).unwrap();
    (1..=3).for_each(|broker| cluster.cut_off_broker(broker).unwrap());
    cluster.unfence_broker(2).unwrap();
    let mut set = of(cluster, Some("b")).await;
    set.write().await;
    let took = set.reads_all().await;
    assert!(took < secs(2), "{took:?}");
    set.write().await;
    let took = set.reads_all().await;
    assert!(took < ms(600), "{took:?}");
    assert_eq!((set.asks().await, set.replicas()), (vec![1], (0, 0)));
    // Metadata is asked for, and not all the time.
    let asked = |set: &Set| (1..=3).map(|id| seen(&set.cluster, id, ApiKey::METADATA)).sum::<u64>();
    let before = asked(&set);
    assert!(before <= 6, "{before}");
    // It hears of the follower: that is read from, without a wait for the end of its time.
    (1..=3).for_each(|broker| set.cluster.reconnect_broker(broker).unwrap());
    let waits = tokio::time::timeout(secs(120), set.consumer.next()).await;
    assert!(waits.is_err() && asked(&set) <= before + 8, "{}", asked(&set));
    assert_eq!((set.asks().await, set.replicas()), (vec![2], (1, 0)));
    set.write().await;
    assert!(set.reads_all().await < ms(600));
}
