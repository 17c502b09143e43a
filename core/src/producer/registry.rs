//! What all producers of a pool share: a sender for each kind of batches, and an accumulator for each set of
//! settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::mpsc;

use super::accumulator::{Accumulator, Event};
use super::delivery::Unread;
use super::sender::Sender;
use crate::caught::{self, caught};
use crate::cluster::{Guest, Handle, Pool, Settings};
use crate::config::{Acks, ProducerConfig};
use crate::error::Undelivered;
use crate::metrics::{Logs, loudly};
use crate::policy::backoff::Backoff;

/// The batches that one sender sends: those with equal acks, of clients with equal settings.
type Kind = (Acks, Arc<Settings>);

/// Accumulators by the settings of their producers. Those that are gone are removed as others are made.
type Accumulators = HashMap<(ProducerConfig, Arc<Settings>), Weak<Accumulator>>;

/// Up to this many senders are kept that no producer uses: a program that makes a producer for each record must
/// not need a producer id for each.
const UNUSED_SENDERS: usize = 16;

/// The registry of a pool's producers.
pub(crate) struct Registry {
    /// The sender for each kind of batches. Their number is bounded by the kinds of producers there are, and by
    /// [`UNUSED_SENDERS`].
    senders: Mutex<BTreeMap<Kind, mpsc::UnboundedSender<Event>>>,
    accumulators: Arc<Mutex<Accumulators>>,
    /// Counts records that failed after their producer was dropped.
    heir: Arc<Unread>,
    /// A binding reports unacknowledged records itself: no warnings here.
    told: AtomicBool,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            senders: Mutex::default(),
            accumulators: Arc::default(),
            heir: Unread::new(None),
            told: AtomicBool::new(false),
        }
    }
}

impl Guest for Registry {
    fn topic_created(&self, topic: &str) {
        let accumulators: Vec<_> = {
            let accumulators = self.accumulators();
            accumulators.values().filter_map(Weak::upgrade).collect()
        };
        accumulators.iter().for_each(|accumulator| accumulator.topic_created(topic));
    }

    fn left_behind(&self, logs: &Logs) {
        if self.told.load(Ordering::Relaxed) {
            return;
        }
        let accumulators: Vec<_> = self.accumulators().values().filter_map(Weak::upgrade).collect();
        let records: usize =
            accumulators.iter().map(|accumulator| accumulator.unresolved_records()).sum();
        if records > 0 {
            loudly!(
                logs,
                "ottla::producer",
                records,
                "client and producers were dropped with records unacknowledged; flush or close before that"
            );
        }
        if let Some(lost) = self.heir.take() {
            loudly!(
                logs, "ottla::producer", error = %lost,
                "records failed after their producer was dropped; flush or close before that"
            );
        }
    }

    fn stop(&self) {
        for sender in self.senders.lock().unwrap_or_else(|e| e.into_inner()).values() {
            let _ = sender.send(Event::Stop);
        }
    }
}

impl Registry {
    /// The registry of a pool.
    pub(crate) fn of(pool: &Pool) -> &Self {
        pool.guest()
    }

    /// Counts records that fail when their producer is gone.
    pub(crate) fn heir(&self) -> &Arc<Unread> {
        &self.heir
    }

    /// A binding reports what is left when the pool is dropped.
    pub(crate) fn told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// A producer is dropped with failures that nobody has looked at.
    pub(crate) fn lost(&self, logs: &Logs, lost: &Undelivered) {
        if !self.told.load(Ordering::Relaxed) {
            loudly!(
                logs, "ottla::producer", error = %lost,
                "a producer was dropped with failures that nobody has looked at; read its deliveries, or flush or close it, before that"
            );
        }
    }

    fn accumulators(&self) -> MutexGuard<'_, Accumulators> {
        self.accumulators.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The sender for one kind of batches. A request carries one value of acks and one client id, so a sender for
    /// each kind has nothing to tell apart. All senders share the lanes.
    fn sender(
        &self,
        pool: &Handle,
        acks: Acks,
        accumulators: &Accumulators,
    ) -> mpsc::UnboundedSender<Event> {
        let kind = (acks, Arc::clone(pool.settings()));
        let mut senders = self.senders.lock().unwrap_or_else(|e| e.into_inner());
        if !senders.contains_key(&kind) {
            let used = |(acks, settings): &Kind| {
                accumulators.iter().any(|((config, of), accumulator)| {
                    config.acks == *acks && of == settings && accumulator.strong_count() > 0
                })
            };
            let unused: Vec<Kind> = senders.keys().filter(|kind| !used(kind)).cloned().collect();
            // Without an accumulator there are no batches: the sender has nothing left to do.
            for kind in unused.iter().take(unused.len().saturating_sub(UNUSED_SENDERS - 1)) {
                if let Some(sender) = senders.remove(kind) {
                    let _ = sender.send(Event::Stop);
                }
            }
        }
        let start = || {
            let (events, rx) = mpsc::unbounded_channel();
            let sender = Sender::new(pool, pool.settings(), acks, events.clone(), 0);
            let on_end = OnEnd { kind: kind.clone(), accumulators: Arc::clone(&self.accumulators) };
            pool.env().spawn(run(Arc::downgrade(pool), sender, events.clone(), rx, on_end));
            events
        };
        senders.entry(kind.clone()).or_insert_with(start).clone()
    }

    /// The accumulator for these settings, with one user more.
    pub(crate) fn accumulator(&self, pool: &Handle, config: &ProducerConfig) -> Arc<Accumulator> {
        let key = (config.clone(), Arc::clone(pool.settings()));
        let mut accumulators = self.accumulators();
        if let Some(accumulator) = accumulators.get(&key).and_then(Weak::upgrade) {
            accumulator.joined();
            return accumulator;
        }
        accumulators.retain(|_, accumulator| accumulator.strong_count() > 0);
        let accumulator = Arc::new(Accumulator::new(
            config.clone(),
            pool.env(),
            pool.buffers(),
            pool.metrics(),
            self.sender(pool, config.acks, &accumulators),
        ));
        accumulator.joined();
        accumulators.insert(key, Arc::downgrade(&accumulator));
        accumulator
    }

    /// Whether no producer uses it. If so it is removed: producers that are built from now on get another one,
    /// so what is in this one can be failed.
    pub(crate) fn is_left(&self, accumulator: &Arc<Accumulator>) -> bool {
        let mut accumulators = self.accumulators.lock().unwrap_or_else(|e| e.into_inner());
        // Under the same lock: nobody becomes a user in between.
        let left = accumulator.is_left();
        if left {
            accumulators.retain(|_, other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(accumulator)));
        }
        left
    }
}

/// Requests of one sender: ids of the next one begin behind them.
const IDS: u64 = 1 << 40;

/// Runs a sender, and after a panic its successor. The batches that the old one held have resolved as it was
/// dropped; open batches go to the successor. That sends nothing before a pause, since it may panic for the
/// same reason, but it exists all the time: without a sender no record would end when its time is up.
async fn run(
    pool: Weak<Pool>,
    mut sender: Sender,
    events: mpsc::UnboundedSender<Event>,
    mut rx: mpsc::UnboundedReceiver<Event>,
    on_end: OnEnd,
) {
    let mut backoff = Backoff::default();
    let mut rests_until = None;
    for number in 1.. {
        let env = sender.env().clone();
        if caught(sender.run(&mut rx)).await.is_ok() {
            return;
        }
        let pause = backoff.next(&mut env.rng());
        if rests_until.is_some_and(|at| env.now() < at) {
            // The sender has panicked during the pause, so not because of what it sent.
            env.sleep(pause).await;
        }
        let until = env.now() + pause;
        rests_until = Some(until);
        let Some(pool) = pool.upgrade() else { return };
        sender = Sender::new(&pool, &on_end.kind.1, on_end.kind.0, events.clone(), number * IDS);
        sender.rest_until(until);
        // Requests that probed an ejected broker were the old sender's: their responses reach nobody.
        pool.members().iter().for_each(|broker| broker.probe_lost());
        on_end.accumulators().iter().for_each(Accumulator::announce_all);
    }
}

/// Dropped when a sender has ended for good: resolves what is still open in its accumulators, so that nobody
/// waits for ever.
struct OnEnd {
    kind: Kind,
    accumulators: Arc<Mutex<Accumulators>>,
}

impl OnEnd {
    fn accumulators(&self) -> Vec<Arc<Accumulator>> {
        let accumulators = self.accumulators.lock().unwrap_or_else(|e| e.into_inner());
        let (acks, settings) = &self.kind;
        let of_it =
            accumulators.iter().filter(|((config, of), _)| config.acks == *acks && of == settings);
        of_it.filter_map(|(_, accumulator)| accumulator.upgrade()).collect()
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        for accumulator in self.accumulators() {
            let _ = caught::call(|| accumulator.drop_open());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;
    use crate::cluster::by_hand;
    use crate::environment::Environment;
    use crate::policy::ejection::Admission;
    use crate::producer::accumulator::Shard;
    use crate::producer::record::Record;

    /// Else it would be answered to nobody, and the broker be avoided for good.
    #[tokio::test(start_paused = true)]
    async fn a_broker_whose_probe_was_of_a_sender_that_panicked_is_probed_again() {
        let panics = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&panics);
        let pool = by_hand::handle(Environment::builder().mishaps(move |place| {
            place == "sender" && counted.fetch_add(1, Ordering::Relaxed) == 0
        }));
        pool.told_of_topic(1..=1, 7, &[1]);
        let (env, broker) = (pool.env(), pool.broker(1).unwrap());
        let pause = pool.random(|rng| broker.eject(env.now(), rng));
        tokio::time::advance(pause).await;
        assert_eq!(broker.admission(env.now()), Admission::HalfOpen);
        broker.probe();
        assert_ne!(broker.admission(env.now()), Admission::HalfOpen);
        // Of a kind that waits for no producer id.
        let config = ProducerConfig { acks: Acks::Leader, ..ProducerConfig::default() };
        let accumulator = Registry::of(&pool).accumulator(&pool, &config);
        let record = Record::to("t").value("v");
        drop(accumulator.append(Shard::default(), &record, &Unread::new(None)).unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(panics.load(Ordering::Relaxed) > 0, "nothing has panicked");
        assert_eq!(broker.admission(env.now()), Admission::HalfOpen);
    }
}
