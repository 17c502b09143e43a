//! The sending side of [`crate::bench`]: everything a send does on the caller's thread, with the
//! sender's task and the network left out, so that instructions can be counted.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::accumulator::{Accumulator, Event, Shard};
use super::delivery::{BatchAck, Unread};
use super::{Delivery, Record};
use crate::config::ProducerConfig;
use crate::environment::Environment;
use crate::metrics::Metrics;
use crate::record::Compression;
use crate::record::pool::ChunkPool;

/// A producer whose batches are acknowledged when asked for.
#[derive(Debug)]
pub struct Sends {
    accumulator: Arc<Accumulator>,
    shard: Shard,
    producer: Arc<Unread>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Sends {
    /// With the default settings but for the codec.
    pub fn new(compression: Compression) -> Self {
        let (tx, events) = mpsc::unbounded_channel();
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        let env = Environment::builder().seed(1).build();
        let metrics = Arc::<Metrics>::default();
        let accumulator = Accumulator::new(config, &env, &ChunkPool::default(), &metrics, tx);
        let (shard, producer) = (Shard::default(), Unread::new(None));
        Self { accumulator: Arc::new(accumulator), shard, producer, events }
    }

    /// Sends a record for each value and keeps the handles.
    ///
    /// # Panics
    /// If the buffer is full.
    pub fn send(&self, topic: &str, values: &[impl AsRef<[u8]>], kept: &mut Vec<Delivery>) {
        for value in values {
            let record = Record::to(topic).value(value.as_ref());
            let at_once = self.accumulator.append_at_once(self.shard, &record, &self.producer);
            let slowly = || self.accumulator.append(self.shard, &record, &self.producer);
            let delivery = at_once.map_or_else(slowly, Ok);
            kept.push(delivery.expect("the values fit the buffer"));
        }
    }

    /// Seals and acknowledges everything.
    pub fn acknowledge(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            let Event::Ready(accumulator, _, batch_queue) = event else { continue };
            while let Some(batch) = batch_queue.take(&accumulator) {
                let ack = BatchAck { partition: 0, base_offset: 0, append_time: None };
                batch.resolve(Ok(ack));
            }
            // Off the sender's list, as an empty queue is.
            let _ = batch_queue.peek(&accumulator);
        }
    }
}
