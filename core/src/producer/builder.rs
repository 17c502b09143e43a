//! Settings of a producer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Inner, Producer, Registry, Unread};
use crate::cluster::Handle;
use crate::config::foreign::Owner;
use crate::config::properties::{self, Properties, Value};
use crate::config::{Acks, InDoubt, Partitioner, ProducerConfig};
use crate::error::{Error, Result};
use crate::record::Compression;

/// Settings of a [`Producer`]; get one from [`Client::producer`](crate::Client::producer).
#[derive(Clone)]
#[must_use]
pub struct ProducerBuilder {
    pool: Handle,
    config: ProducerConfig,
    /// Why its properties were refused.
    refused: Option<Error>,
}

impl ProducerBuilder {
    pub(crate) fn new(pool: Handle) -> Self {
        Self { pool, config: ProducerConfig::default(), refused: None }
    }

    /// How long an open batch may wait for more records. 0 to 60 s, default 5 ms.
    ///
    /// It does not wait while its broker has nothing in flight and this process has made few requests of
    /// late: all producers of a client's process and cluster together may make 180 a second, of which up to
    /// 1,000 are saved up while fewer are made. Beyond that, records gather: until the next request may be
    /// made, for this long at most. Up to 20 ms while a broker's responses take much longer than they
    /// usually do. A batch that is full, that a flush or a full buffer waits for, or whose time is nearly up goes
    /// at once.
    ///
    /// So a program that waits for each record before it sends the next comes down to 180 records a second
    /// after the first thousand: let it send many before it waits, or use
    /// [`send_batch`](Producer::send_batch). 0 sends every batch at once whatever others do, which is a
    /// request to a broker for nearly every record, and costs it many times what records cost that are sent
    /// together; so does a flush after each record.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Bytes of records, before compression, at which a batch is full. 1 KiB to 16 MiB, default
    /// 256 KiB. The topic's `max.message.bytes` bounds a batch as a whole.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.config.batch_size = bytes;
        self
    }

    /// The codec of batches. Default: lz4 where it is built in.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// The codec of one topic's batches, instead of [`compression`](Self::compression).
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.config.topic_compression.insert(topic.into(), compression);
        self
    }

    /// How records that name no partition get one. Default: spread by load.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.config.partitioner = partitioner;
        self
    }

    /// Who must have a record before it counts as acknowledged. Default: all in-sync replicas, idempotently.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.config.acks = acks;
        self
    }

    /// Where a batch whose records named no partition goes once nobody can tell whether it was written.
    /// Default: it waits where it was sent, and is written once.
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.config.in_doubt = in_doubt;
        self
    }

    /// Bytes that open and unacknowledged batches may hold. 1 MiB to 1 TiB, default 64 MiB. One topic (of
    /// records with a partition or a hashed key: one partition, and one broker) holds twice what all
    /// leave free at most, two thirds if it is alone: what takes nothing does not stop the rest.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// By when a record is acknowledged or fails, counted from its batch's first record. 10 ms to
    /// one day, default 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// How long a send may wait for buffer space. 0 to one day, default 60 s.
    pub fn max_block(mut self, timeout: Duration) -> Self {
        self.config.max_block = timeout;
        self
    }

    /// Largest record (key, value and headers) this producer takes. 1 B to 100 MiB, default 1 MiB
    /// (what a topic takes unless told otherwise).
    pub fn max_record_size(mut self, bytes: usize) -> Self {
        self.config.max_record_size = bytes;
        self
    }

    /// Takes the settings of a producer from properties as Java's client and librdkafka have them:
    /// `acks`, `linger.ms`, `batch.size`, `buffer.memory`, `compression.type` and its levels,
    /// `delivery.timeout.ms`, `max.block.ms`, `max.request.size`, `partitioner` and their aliases. Those of
    /// clients are passed over ([`ClientBuilder::from_properties`](crate::ClientBuilder::from_properties)).
    ///
    /// Settings that are not named keep Ottla's defaults: records with keys are spread too, unless
    /// [`partitioner`](Self::partitioner) is told otherwise.
    ///
    /// A consumer's property, a name that no client has, and one that asks for what is not done here,
    /// is refused by [`build`](Self::build) (`Config`), with what there is instead.
    pub fn from_properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.read_properties(&properties.into_iter().collect())
    }

    pub(crate) fn read_properties(mut self, properties: &Properties) -> Self {
        let settings = properties::read(Owner::Producer, properties);
        let taken = settings.and_then(|settings| {
            let config = &mut self.config;
            for (name, value) in settings {
                match (name, value) {
                    ("acks", Value::Acks(acks)) => config.acks = acks,
                    ("batch_size", Value::Size(bytes)) => config.batch_size = bytes,
                    ("buffer_memory", Value::Size(bytes)) => config.buffer_memory = bytes,
                    ("compression", Value::Compression(codec)) => config.compression = codec,
                    ("delivery_timeout", Value::Time(time)) => config.delivery_timeout = time,
                    ("linger", Value::Time(time)) => config.linger = time,
                    ("max_block", Value::Time(time)) => config.max_block = time,
                    ("max_record_size", Value::Size(bytes)) => config.max_record_size = bytes,
                    ("partitioner", Value::Partitioner(how)) => config.partitioner = how,
                    (name, _) => return Err(properties::not_taken(name)),
                }
            }
            Ok(())
        });
        self.refused = self.refused.or(taken.err());
        self
    }

    /// The producer. Producers with equal settings on one client share batches and memory; making
    /// one costs next to nothing.
    ///
    /// # Errors
    /// `Config` for a setting out of its range.
    pub fn build(self) -> Result<Producer> {
        self.pool.env().check_process()?;
        if let Some(error) = self.refused {
            return Err(error);
        }
        self.config.check()?;
        let accumulator = Registry::of(&self.pool).accumulator(&self.pool, &self.config);
        let shard = accumulator.shards().first();
        let unread = Unread::new(Some(Registry::of(&self.pool).heir()));
        let closed = AtomicBool::new(false);
        let inner = Arc::new(Inner { pool: self.pool, accumulator, unread, closed });
        Ok(Producer { inner, shard })
    }
}
