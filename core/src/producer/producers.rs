//! What all producers of a pool share: the senders, and an accumulator for each set of settings.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;

use super::accumulator::Accumulator;
use super::sender::{Event, Sender};
use crate::cluster::Pool;
use crate::config::{Acks, ProducerConfig};

type Homes = HashMap<ProducerConfig, Weak<Accumulator>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Producers {
    /// The sender for each kind of acknowledgement that is used.
    senders: Mutex<BTreeMap<Acks, mpsc::UnboundedSender<Event>>>,
    homes: Arc<Mutex<Homes>>,
}

impl Producers {
    /// The sender for one kind of acknowledgement. A request carries one, and batches of one kind only
    /// are numbered: a sender for each has nothing to tell apart. They share the lanes.
    fn sender(&self, pool: &Arc<Pool>, acks: Acks) -> mpsc::UnboundedSender<Event> {
        let mut senders = self.senders.lock().unwrap_or_else(|e| e.into_inner());
        let start = || {
            let (events, rx) = mpsc::unbounded_channel();
            let sender = Sender::new(pool, acks, events.clone(), rx);
            let left = DropOpen { acks, homes: Arc::clone(&self.homes) };
            pool.env().spawn(async move {
                // Batches that the sender holds resolve as they are dropped; those still open in
                // their homes are dropped here, so that nobody waits for ever.
                let guard = left;
                sender.run().await;
                drop(guard);
            });
            events
        };
        senders.entry(acks).or_insert_with(start).clone()
    }

    /// The accumulator for these settings.
    pub(crate) fn home(&self, pool: &Arc<Pool>, config: &ProducerConfig) -> Arc<Accumulator> {
        let mut homes = self.homes.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(home) = homes.get(config).and_then(Weak::upgrade) {
            return home;
        }
        homes.retain(|_, home| home.strong_count() > 0);
        let home = Arc::new(Accumulator::new(
            config.clone(),
            pool.env(),
            pool.buffers(),
            pool.metrics(),
            self.sender(pool, config.acks),
        ));
        homes.insert(config.clone(), Arc::downgrade(&home));
        home
    }

    /// Our own CreateTopics made a topic: nobody refuses its records any more for having been missing.
    pub(crate) fn created(&self, topic: &str) {
        let homes: Vec<_> = {
            let homes = self.homes.lock().unwrap_or_else(|e| e.into_inner());
            homes.values().filter_map(Weak::upgrade).collect()
        };
        homes.iter().for_each(|home| home.topic_created(topic));
    }

    /// The pool is gone: whatever is left resolves with an error.
    pub(crate) fn stop(&self) {
        for sender in self.senders.lock().unwrap_or_else(|e| e.into_inner()).values() {
            let _ = sender.send(Event::Stop);
        }
    }
}

struct DropOpen {
    acks: Acks,
    homes: Arc<Mutex<Homes>>,
}

impl Drop for DropOpen {
    fn drop(&mut self) {
        let homes: Vec<_> = {
            let homes = self.homes.lock().unwrap_or_else(|e| e.into_inner());
            let of_it = homes.iter().filter(|(config, _)| config.acks == self.acks);
            of_it.filter_map(|(_, home)| home.upgrade()).collect()
        };
        for home in homes {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| home.drop_open()));
        }
    }
}
