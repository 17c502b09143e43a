//! What all producers of a pool share: the sender, and an accumulator for each set of settings.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;

use super::accumulator::Accumulator;
use super::sender::{Event, Sender};
use crate::cluster::Pool;
use crate::config::ProducerConfig;

/// See the module.
pub(crate) struct Producers {
    events: mpsc::UnboundedSender<Event>,
    homes: Arc<Mutex<HashMap<ProducerConfig, Weak<Accumulator>>>>,
}

impl Producers {
    pub(crate) fn start(pool: &Arc<Pool>) -> Arc<Self> {
        let (events, rx) = mpsc::unbounded_channel();
        let homes: Arc<Mutex<HashMap<ProducerConfig, Weak<Accumulator>>>> = Arc::default();
        let sender = Sender::new(pool, events.clone(), rx);
        let left = Arc::clone(&homes);
        pool.env().spawn(async move {
            // Batches that the sender holds resolve as they are dropped; those still open in their
            // homes are dropped here, so that nobody waits for ever.
            let guard = DropOpen(left);
            sender.run().await;
            drop(guard);
        });
        Arc::new(Self { events, homes })
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
            self.events.clone(),
        ));
        homes.insert(config.clone(), Arc::downgrade(&home));
        home
    }

    /// The pool is gone: whatever is left resolves with an error.
    pub(crate) fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }
}

struct DropOpen(Arc<Mutex<HashMap<ProducerConfig, Weak<Accumulator>>>>);

impl Drop for DropOpen {
    fn drop(&mut self) {
        let homes: Vec<_> = {
            let homes = self.0.lock().unwrap_or_else(|e| e.into_inner());
            homes.values().filter_map(Weak::upgrade).collect()
        };
        for home in homes {
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| home.drop_open()));
        }
    }
}
