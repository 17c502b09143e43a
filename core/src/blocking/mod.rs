//! The same client for programs without an async runtime: every call blocks its thread, nothing
//! else differs.
//!
//! ```
//! # use ottla::{Record, testing::Cluster};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = Cluster::builder().topic("events", 3, 1).start()?;
//! # let bootstrap = broker.bootstrap();
//! use std::time::Duration;
//! let client = ottla::blocking::Client::connect(&bootstrap)?;
//! let producer = client.producer(|settings| settings.linger(Duration::from_millis(2)))?;
//! let mut delivery = producer.send(Record::to("events").value("hello"))?;
//! println!("at {}", delivery.wait(None)?.offset);
//! let mut consumer = client.consumer(|settings| settings.topics(["events"]))?;
//! for record in &consumer.next_timeout(Duration::from_secs(10))?.expect("one was written") {
//!     assert_eq!(record.value(), Some(&b"hello"[..]));
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use crate::error::names::UNKNOWN_SERVER_ERROR;
use crate::error::{Error, Result};
use crate::metrics::Stats;
use crate::park::block_on;
use crate::{
    Batch, BatchDelivery, ClientBuilder, ConsumerBuilder, ConsumerControl, Delivery, Event,
    NewTopic, OffsetSpec, ProducerBuilder, Record, Start, TopicPartition,
};

fn wait<F: Future>(future: F) -> F::Output {
    block_on(future, None).expect("waits without a deadline end with a result")
}

/// See [`crate::Client`].
#[derive(Clone)]
pub struct Client(crate::Client);

impl Client {
    /// See [`crate::Client::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(bootstrap: impl AsRef<str>) -> Result<Self> {
        Self::connect_with(crate::Client::builder().bootstrap(bootstrap))
    }

    /// Connects with settings of one's own.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect`].
    pub fn connect_with(settings: ClientBuilder) -> Result<Self> {
        wait(settings.connect()).map(Self)
    }

    /// A producer; the closure changes its settings.
    ///
    /// # Errors
    /// See [`ProducerBuilder::build`].
    pub fn producer(
        &self,
        settings: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
    ) -> Result<Producer> {
        settings(self.0.producer()).build().map(Producer)
    }

    /// A consumer; the closure names what it reads.
    ///
    /// # Errors
    /// See [`ConsumerBuilder::build`].
    pub fn consumer(
        &self,
        settings: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
    ) -> Result<Consumer> {
        settings(self.0.consumer()).build().map(Consumer)
    }

    /// See [`crate::Admin::create_topic`].
    ///
    /// # Errors
    /// As there.
    pub fn create_topic(&self, topic: NewTopic) -> Result<()> {
        wait(self.0.admin().create_topic(topic))
    }

    /// See [`crate::Admin::partitions`].
    ///
    /// # Errors
    /// As there.
    pub fn partitions(&self, topic: &str) -> Result<usize> {
        wait(self.0.admin().partitions(topic))
    }

    /// The offset of one partition. See [`crate::Admin::list_offsets`].
    ///
    /// # Errors
    /// As there.
    pub fn offset(&self, topic: &str, partition: i32, spec: OffsetSpec) -> Result<i64> {
        let mut found = wait(self.0.admin().list_offsets([(topic, partition, spec)]))?;
        found.pop().map_or_else(
            || {
                Err(Error::broker(
                    UNKNOWN_SERVER_ERROR,
                    "ListOffsets: the response leaves the partition out",
                    None,
                ))
            },
            |f| f.1,
        )
    }

    /// See [`crate::Client::stats`].
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// The client without the blocking calls.
    pub fn inner(&self) -> &crate::Client {
        &self.0
    }
}

/// See [`crate::Producer`].
#[derive(Clone)]
pub struct Producer(crate::Producer);

impl Producer {
    /// See [`crate::Producer::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, record: Record<'_>) -> Result<Delivery> {
        wait(self.0.send(record))
    }

    /// See [`crate::Producer::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, record: Record<'_>) -> Result<Delivery> {
        self.0.try_send(record)
    }

    /// See [`crate::Producer::send_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn send_batch<V: AsRef<[u8]>>(
        &self,
        topic: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<BatchDelivery> {
        wait(self.0.send_batch(topic, values))
    }

    /// See [`crate::Producer::flush`]; `None` waits until the delivery timeout.
    ///
    /// # Errors
    /// As there; `Timeout` after `timeout`: what is left stays on its way.
    pub fn flush(&self, timeout: Option<Duration>) -> Result<()> {
        match block_on(self.0.flush(), timeout) {
            Some(result) => result,
            None => Err(self.0.explain(Error::timeout("flush", timeout.unwrap_or_default()))),
        }
    }

    /// See [`crate::Producer::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&self, timeout: Duration) -> Result<()> {
        wait(self.0.close(timeout))
    }

    /// The producer without the blocking calls.
    pub fn inner(&self) -> &crate::Producer {
        &self.0
    }
}

/// See [`crate::Consumer`]. Iterates over batches.
pub struct Consumer(crate::Consumer);

impl Consumer {
    /// The next batch, or `None` if none came within `timeout`: nothing else is `None`.
    ///
    /// # Errors
    /// See [`crate::Consumer::next`]; `Closed` if the consumer is closed.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Batch>> {
        match block_on(self.0.next(), Some(timeout)) {
            None => Ok(None),
            Some(Some(next)) => next.map(Some),
            Some(None) => Err(Error::closed("consumer")),
        }
    }

    /// See [`crate::Consumer::position`].
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.position(topic, partition)
    }

    /// See [`crate::Consumer::next_until`]: the next batch, or `None` once each of these partitions has reached its
    /// offset, or the consumer is closed.
    ///
    /// # Errors
    /// As there.
    pub fn next_until(&mut self, ends: &[(TopicPartition, i64)]) -> Option<Result<Batch>> {
        wait(self.0.next_until(ends))
    }

    /// See [`crate::Consumer::next_event`].
    ///
    /// # Errors
    /// As there.
    pub fn next_event(&mut self) -> Option<Result<Event>> {
        wait(self.0.next_event())
    }

    /// See [`crate::Consumer::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(&self) -> Result<()> {
        wait(self.0.commit())
    }

    /// See [`crate::Consumer::commit_to`].
    ///
    /// # Errors
    /// As there.
    pub fn commit_to<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a str, i32, i64)>,
    ) -> Result<()> {
        wait(self.0.commit_to(offsets))
    }

    /// See [`crate::Consumer::subscribe`].
    ///
    /// # Errors
    /// As there.
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        self.0.subscribe(topics)
    }

    /// See [`crate::Consumer::lag`].
    pub fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.lag(topic, partition)
    }

    /// See [`crate::Consumer::control`]: steers it from other threads.
    pub fn control(&self) -> ConsumerControl {
        self.0.control()
    }

    /// See [`crate::Consumer::pause`].
    ///
    /// # Errors
    /// As there.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.0.pause(partitions)
    }

    /// See [`crate::Consumer::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.0.resume(partitions)
    }

    /// See [`crate::Consumer::paused`].
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.0.paused()
    }

    /// See [`crate::Consumer::assign`].
    ///
    /// # Errors
    /// As there.
    pub fn assign<T: Into<String>>(
        &self,
        partitions: impl IntoIterator<Item = (T, i32, Start)>,
    ) -> Result<()> {
        self.0.assign(partitions)
    }

    /// See [`crate::Consumer::unassign`].
    ///
    /// # Errors
    /// As there.
    pub fn unassign<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.0.unassign(partitions)
    }

    /// See [`crate::Consumer::seek`].
    ///
    /// # Errors
    /// As there.
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.0.seek(topic, partition, to)
    }

    /// See [`crate::Consumer::assignment`].
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.0.assignment()
    }

    /// See [`crate::Consumer::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<()> {
        wait(self.0.close())
    }
}

impl Iterator for Consumer {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        wait(self.0.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_consumer_is_no_lack_of_records() {
        let client = crate::Client::builder().bootstrap("a:1").build().unwrap();
        let mut consumer = Consumer(client.consumer().topics(["t"]).build().unwrap());
        assert!(consumer.next_timeout(Duration::ZERO).unwrap().is_none());
        consumer.close().unwrap();
        let error = consumer.next_timeout(Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Closed);
        assert!(consumer.next().is_none());
    }
}
