//! Load as an application makes it: many clients that send a little each, with every record's fate
//! written down.

mod check;
mod ottla_client;
pub mod process;
#[cfg(feature = "rdkafka")]
mod rdkafka_client;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use check::{Row, Verdict, check, read_back};
pub use ottla_client::{Dial, Dials, OttlaClient};
#[cfg(feature = "rdkafka")]
pub use rdkafka_client::RdkafkaClient;

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the topic.
    pub partition: i32,
    /// -1 where the broker only knew that it had the record.
    pub offset: i64,
}

/// What becomes of a record, in time.
pub type Fate = Pin<Box<dyn Future<Output = Result<Place, String>> + Send>>;

/// A client of any library.
pub trait Client: Send + Sync {
    /// Takes a record without a key at once; it is acknowledged, or fails, later. Records are given
    /// to the library in the order of the calls.
    fn send(&self, topic: &str, value: &str) -> Fate;
}

/// One record that was sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its content.
    pub value: String,
    /// Which of the clients.
    pub client: usize,
    /// When the application sent it.
    pub sent: Instant,
    /// When its fate was known.
    pub resolved: Instant,
    /// Its fate.
    pub fate: Result<Place, String>,
}

impl Outcome {
    /// From sending to acknowledgement or failure.
    pub fn latency(&self) -> Duration {
        self.resolved - self.sent
    }
}

/// Clients that send at a steady pace, until stopped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<JoinSet<()>>>,
}

#[derive(Debug)]
struct Shared {
    outcomes: Mutex<Vec<Outcome>>,
    acked: Vec<AtomicUsize>,
    /// Told of each acknowledgement.
    changed: watch::Sender<()>,
}

impl Load {
    /// Each client sends to `topic` every `every`, evenly spread over that time. Values are
    /// `name/client/number`.
    pub fn start(clients: &[Arc<dyn Client>], name: &str, topic: &str, every: Duration) -> Self {
        let shared = Arc::new(Shared {
            outcomes: Mutex::default(),
            acked: clients.iter().map(|_| AtomicUsize::new(0)).collect(),
            changed: watch::channel(()).0,
        });
        let (stop, stopped) = watch::channel(false);
        let start = tokio::time::Instant::now();
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        let senders = (0u32..).zip(clients).map(|(index, client)| {
            let sender = Sender {
                client: Arc::clone(client),
                index: index as usize,
                name: format!("{name}/{index}"),
                topic: topic.to_owned(),
                shared: Arc::clone(&shared),
            };
            let ticks = tokio::time::interval_at(start + every * index / count, every);
            tokio::spawn(sender.run(ticks, stopped.clone()))
        });
        let senders = senders.collect();
        Self { stop, shared, senders }
    }

    /// Acknowledged so far, of all clients.
    pub fn acked(&self) -> usize {
        self.shared.acked.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// Waits until every client has so many records acknowledged.
    pub async fn reached(&self, each: usize) {
        self.until(|| self.shared.acked.iter().all(|n| n.load(Ordering::Relaxed) >= each)).await;
    }

    /// Waits until all clients together have so many records acknowledged.
    pub async fn reached_in_total(&self, count: usize) {
        self.until(|| self.acked() >= count).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !holds() {
            // The sender lives as long as this value.
            let _ = changed.changed().await;
        }
    }

    /// Sends no more, waits for the fate of what was sent, and tells it.
    pub async fn stop(self) -> Vec<Outcome> {
        self.stop.send_replace(true);
        for sender in self.senders {
            let mut open = sender.await.expect("a sender panicked");
            while let Some(done) = open.join_next().await {
                done.expect("waiting for a record panicked");
            }
        }
        std::mem::take(&mut *self.shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Sender {
    client: Arc<dyn Client>,
    index: usize,
    name: String,
    topic: String,
    shared: Arc<Shared>,
}

impl Sender {
    /// Gives back what is not resolved yet.
    async fn run(
        self,
        mut ticks: tokio::time::Interval,
        mut stopped: watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut open = JoinSet::new();
        for number in 0u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            let value = format!("{}/{number}", self.name);
            let sent = Instant::now();
            let fate = self.client.send(&self.topic, &value);
            let (shared, client) = (Arc::clone(&self.shared), self.index);
            open.spawn(async move {
                let fate = fate.await;
                let acked = fate.is_ok();
                let outcome = Outcome { value, client, sent, resolved: Instant::now(), fate };
                shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                if acked {
                    shared.acked[client].fetch_add(1, Ordering::Relaxed);
                    shared.changed.send_replace(());
                }
            });
            while open.try_join_next().is_some() {}
        }
        open
    }
}

/// The value that so large a share of `all` does not exceed; zero without any.
pub fn quantile(all: impl IntoIterator<Item = Duration>, share: f64) -> Duration {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_unstable();
    let rank = (all.len() as f64 * share).ceil() as usize;
    all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Latencies of records sent at `from` or later and before `to`.
pub fn latencies(outcomes: &[Outcome], from: Instant, to: Instant) -> Vec<Duration> {
    let inside = outcomes.iter().filter(|o| o.sent >= from && o.sent < to);
    inside.map(Outcome::latency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let ms = |n: u64| Duration::from_millis(n);
        let hundred: Vec<_> = (1..=100).map(ms).collect();
        assert_eq!(quantile(hundred.clone(), 0.99), ms(99));
        assert_eq!(quantile(hundred.clone(), 0.5), ms(50));
        assert_eq!(quantile(hundred, 0.501), ms(51));
        assert_eq!(quantile([ms(7)], 0.99), ms(7));
        assert_eq!(quantile([], 0.99), Duration::ZERO);
    }

    /// Acknowledges what is even.
    struct Picky;

    impl Client for Picky {
        fn send(&self, _: &str, value: &str) -> Fate {
            let number: i64 = value.rsplit('/').next().unwrap().parse().unwrap();
            let odd = (number % 2 == 1).then(|| "odd".to_owned());
            Box::pin(async move { odd.map_or(Ok(Place { partition: 0, offset: number }), Err) })
        }
    }

    #[tokio::test]
    async fn every_record_has_one_fate() {
        let clients: [Arc<dyn Client>; 2] = [Arc::new(Picky), Arc::new(Picky)];
        let load = Load::start(&clients, "x", "t", Duration::from_millis(1));
        load.reached(3).await;
        let acked = load.acked();
        let outcomes = load.stop().await;
        assert!(acked <= outcomes.iter().filter(|o| o.fate.is_ok()).count(), "{acked}");
        for client in ["x/0/", "x/1/"] {
            let mut own: Vec<_> =
                outcomes.iter().filter_map(|o| o.value.strip_prefix(client)).collect();
            own.sort_unstable_by_key(|number| number.parse::<u64>().unwrap());
            let wanted: Vec<_> = (0..own.len()).map(|n| n.to_string()).collect();
            assert_eq!(own, wanted);
            assert!(own.len() >= 5);
        }
        assert!(
            outcomes.iter().all(|o| o.fate.is_ok() != o.value.ends_with(['1', '3', '5', '7', '9']))
        );
    }

    /// Takes a while to acknowledge, and counts what it was given.
    #[derive(Default)]
    struct Slow(AtomicUsize);

    impl Client for Slow {
        fn send(&self, _: &str, _: &str) -> Fate {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Place { partition: 0, offset: -1 })
            })
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_waited_for() {
        let slow = Arc::new(Slow::default());
        let clients = [Arc::clone(&slow) as Arc<dyn Client>];
        let load = Load::start(&clients, "x", "t", Duration::from_millis(1));
        load.reached_in_total(1).await;
        let outcomes = load.stop().await;
        assert_eq!(outcomes.len(), slow.0.load(Ordering::Relaxed));
        assert!(outcomes.iter().all(|o| o.latency() >= Duration::from_millis(20)));
        assert_eq!(latencies(&outcomes, outcomes[0].sent, outcomes[0].sent).len(), 0);
        assert_eq!(latencies(&outcomes, outcomes[0].sent, Instant::now()).len(), outcomes.len());
    }
}
