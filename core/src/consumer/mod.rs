//! Reading: one task per consumer fetches ahead ([`fetcher`]), within a byte budget, into a buffer
//! ([`buffer`]). The application takes batches that borrow the fetched bytes. Checksums are compared, and
//! batches decompressed, on the thread that takes them.

mod batch;
mod buffer;
#[cfg_attr(not(test), expect(dead_code, reason = "the fetcher is about to use it"))]
mod decode;
#[cfg_attr(not(test), expect(dead_code, reason = "the fetcher is about to use it"))]
mod fetch;
mod fetcher;
mod position;
mod reading;
mod slot;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::caught::caught;
use crate::cluster::Handle;
use crate::config::foreign::Owner;
use crate::config::properties::{self, Properties, Value};
use crate::config::{ConsumerConfig, Start, check_topic};
use crate::coop;
use crate::error::{Error, Result};
use crate::fork::{self, Origin};

use buffer::Buffer;
use fetcher::Fetcher;

pub use batch::{Batch, Records};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its number, from 0.
    pub partition: i32,
}

/// Settings of a [`Consumer`]; get one from [`Client::consumer`](crate::Client::consumer).
#[derive(Clone)]
#[must_use]
pub struct ConsumerBuilder {
    pool: Handle,
    config: ConsumerConfig,
    topics: Vec<String>,
    assigned: Vec<(String, i32, Start)>,
    start: Start,
    /// The error of properties that were refused.
    refused: Option<Error>,
}

impl ConsumerBuilder {
    pub(crate) fn new(pool: Handle) -> Self {
        Self {
            pool,
            config: ConsumerConfig::default(),
            topics: Vec::new(),
            assigned: Vec::new(),
            start: Start::Earliest,
            refused: None,
        }
    }

    /// Reads every partition of these topics, those added later included. What is found after the
    /// consumer was made (partitions that were added, a topic that was not there) is read from its
    /// first record, whatever [`start`](Self::start) says: all of it is new.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Reads these partitions.
    pub fn assign<T: Into<String>>(
        mut self,
        partitions: impl IntoIterator<Item = (T, i32, Start)>,
    ) -> Self {
        self.assigned.extend(partitions.into_iter().map(|(t, p, s)| (t.into(), p, s)));
        self
    }

    /// Where partitions of [`topics`](Self::topics) start that are there when the consumer is made.
    /// Default: earliest. Also where a partition goes on whose records were deleted under the reader
    /// (`Earliest` for a timestamp).
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How long a broker may hold a fetch back while it has nothing. 0 to 300 s, below the request
    /// timeout; default 500 ms. Where brokers do not hold them back (0, or `min_bytes(0)`), empty responses
    /// are paced: after the n-th in a row the next fetch goes to that broker not before U(1/2, 1) *
    /// min(100 ms, 1 ms * 2^n) after the last. What flows is never paced.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// Bytes a broker gathers before it answers, `max_wait` permitting. Default 1.
    pub fn min_bytes(mut self, bytes: usize) -> Self {
        self.config.min_bytes = bytes;
        self
    }

    /// Bytes of one fetch. 1 KiB to 100 MiB, default 8 MiB. A first batch that is larger comes all
    /// the same.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// Bytes of one partition in one fetch. 1 KiB to 100 MiB, default 1 MiB.
    pub fn max_partition_bytes(mut self, bytes: usize) -> Self {
        self.config.max_partition_bytes = bytes;
        self
    }

    /// Bytes fetched ahead, as they came from the broker. Default 64 MiB.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// Whether checksums are compared. Default: yes.
    pub fn check_crc(mut self, check: bool) -> Self {
        self.config.check_crc = check;
        self
    }

    /// Takes the settings of a consumer from properties as Java's client and librdkafka have them:
    /// `auto.offset.reset`, `fetch.max.wait.ms`, `fetch.min.bytes`, `fetch.max.bytes`,
    /// `max.partition.fetch.bytes`, `check.crcs` and their aliases. Those of clients are passed over
    /// ([`ClientBuilder::from_properties`](crate::ClientBuilder::from_properties)).
    ///
    /// Settings that are not named keep Ottla's defaults: reading starts at the oldest record, unless
    /// [`start`](Self::start) is told otherwise.
    ///
    /// A producer's property, a name that no client has, and one that asks for what is not done here,
    /// is refused by [`build`](Self::build) (`Config`), with what there is instead.
    pub fn from_properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.read_properties(&properties.into_iter().collect())
    }

    pub(crate) fn read_properties(mut self, properties: &Properties) -> Self {
        let settings = properties::read(Owner::Consumer, properties);
        let taken = settings.and_then(|settings| {
            let config = &mut self.config;
            for (name, value) in settings {
                match (name, value) {
                    ("buffer_memory", Value::Size(bytes)) => config.buffer_memory = bytes,
                    ("check_crc", Value::Flag(check)) => config.check_crc = check,
                    ("max_bytes", Value::Size(bytes)) => config.max_bytes = bytes,
                    ("max_partition_bytes", Value::Size(bytes)) => {
                        config.max_partition_bytes = bytes;
                    }
                    ("max_wait", Value::Time(time)) => config.max_wait = time,
                    ("min_bytes", Value::Size(bytes)) => config.min_bytes = bytes,
                    ("start", Value::Start(start)) => self.start = start,
                    (name, _) => return Err(properties::not_taken(name)),
                }
            }
            Ok(())
        });
        self.refused = self.refused.or(taken.err());
        self
    }

    /// The consumer; fetching starts at once.
    ///
    /// # Errors
    /// `Config` for a setting out of its range, or nothing to read; `InvalidArgument` for what is
    /// not a topic name, and for a start below zero.
    pub fn build(self) -> Result<Consumer> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        self.pool.env().check_process()?;
        self.config.check(self.pool.request_timeout())?;
        if self.topics.is_empty() && self.assigned.is_empty() {
            return Err(Error::config("nothing to read; name topics or assign partitions"));
        }
        for topic in self.topics.iter().chain(self.assigned.iter().map(|(t, _, _)| t)) {
            check_topic(topic)?;
        }
        if let Some((topic, p, _)) = self.assigned.iter().find(|(_, p, _)| *p < 0) {
            return Err(Error::argument(format!("partition {p} of topic '{topic}' is negative")));
        }
        self.start.check()?;
        self.assigned.iter().try_for_each(|(_, _, start)| start.check())?;
        let buffer = Arc::new(Buffer::new(self.config.clone()));
        let fetcher = Fetcher::new(
            &self.pool,
            &buffer,
            self.topics.iter().map(|t| Arc::from(t.as_str())).collect(),
            self.assigned.iter().map(|(t, p, s)| (Arc::from(t.as_str()), *p, *s)).collect(),
            self.start,
        );
        let told = Arc::clone(&buffer);
        self.pool.env().spawn(async move {
            // The fetcher's positions are lost with it, so the consumer cannot go on.
            if let Err(e) = caught(fetcher.run()).await {
                told.end(e);
            }
        });
        Ok(Consumer { pool: self.pool, buffer })
    }
}

/// Reads records of partitions it is told to read. `Send`; a `Stream` of batches.
///
/// ```
/// # use ottla::{Client, Record, testing::Cluster};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = Cluster::builder().topic("events", 3, 1).start()?;
/// # let bootstrap = broker.bootstrap();
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let client = Client::connect(&bootstrap).await?;
/// # client.producer().build()?.send(Record::to("events").value("hello")).await?.await?;
/// let mut consumer = client.consumer().topics(["events"]).build()?;
/// while let Some(batch) = consumer.next().await.transpose()? {
///     for record in &batch {
///         println!("{}: {:?}", record.offset(), record.value());
///     }
///     # break;
/// }
/// # Ok(()) })
/// # }
/// ```
pub struct Consumer {
    pool: Handle,
    buffer: Arc<Buffer>,
}

/// This many records of a batch count as one unit of a task's budget (see `coop`), and a batch counts as
/// [`MOST_UNITS`] at most: the time to open it, and to work on it, grows with its size.
const RECORDS_A_UNIT: usize = 64;
const MOST_UNITS: u32 = 16;

impl Consumer {
    /// The next batch: records of one partition in order. `None` after [`close`](Self::close).
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Reading is tried again as long as the consumer exists. An error is told once for
    /// each spell of trouble, and reading goes on by itself: `UnknownTopic` and `Authorization` at once;
    /// any other code of a broker when it has lasted for 10 s; a broker that was never reached within the
    /// time a connection may take; one that can be reached and does not answer (`Timeout`,
    /// `Disconnected`) 10 s after [`max_wait`](ConsumerBuilder::max_wait), or as its connections have
    /// ended on it for 10 s. If it answered before, that is an outage at first, which is only logged, and
    /// told when a second fetch has gone the same way. `Corrupt` and `UnsupportedCodec`: the batch is passed over, or, where
    /// not even its header can be read, the partition stops until a [`seek`](Self::seek). `Internal` if
    /// the engine has panicked, after which the consumer may be at its end.
    ///
    /// `Truncated` tells that what was read is not what is in the log now. After an unclean election
    /// reading goes on where both part; a topic that was deleted and made anew is read from its first
    /// record (partitions of [`assign`](ConsumerBuilder::assign) from the same time, if that is how they
    /// began). Only partitions that were begun at an offset of the application's stop until a seek;
    /// `OffsetOutOfRange` is for these, too.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// A batch that is there already.
    pub fn try_next(&mut self) -> Option<Result<Batch>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Some(Err(forked));
        }
        self.buffer.take(&self.pool)
    }

    /// As [`next`](Self::next), for those who poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Poll::Ready(Some(Err(forked)));
        }
        ready!(coop::poll_turn(cx));
        let next = ready!(self.poll_alone(cx));
        let records = next.as_ref().map_or(0, |next| next.as_ref().map_or(0, Batch::len));
        coop::spend(
            u32::try_from(1 + records / RECORDS_A_UNIT).map_or(MOST_UNITS, |n| n.min(MOST_UNITS)),
        );
        Poll::Ready(next)
    }

    /// The same, for a thread that waits for nothing else. For bindings.
    pub(crate) fn poll_alone(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        self.buffer.poll_take(&self.pool, cx)
    }

    /// A handle to ask and steer it from elsewhere while somebody waits for records.
    pub fn control(&self) -> ConsumerControl {
        ConsumerControl { buffer: Arc::clone(&self.buffer), origin: Origin::here() }
    }

    /// The offset after the last record handed out; `None` before the first, or for a partition not
    /// read.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.pool.env().check_process().ok()?;
        self.buffer.position(topic, partition)
    }

    /// Goes on elsewhere in a partition: what is buffered of it is dropped.
    ///
    /// # Errors
    /// `UnknownPartition` for one that is not read, `InvalidArgument` for a start below zero, `Closed`
    /// after [`close`](Self::close).
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.pool.env().check_process()?;
        self.buffer.seek(topic, partition, to)
    }

    /// The partitions being read: of whole topics, those known so far.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        if !self.pool.env().alive_here() {
            return Vec::new();
        }
        self.buffer.assignment()
    }

    /// Ends fetching; `next` gives `None` from now on. Closing again does nothing.
    ///
    /// # Errors
    /// `Forked` in a child of the process that made it.
    pub async fn close(&mut self) -> Result<()> {
        self.pool.env().check_process()?;
        self.buffer.close();
        Ok(())
    }
}

/// Asks and steers a [`Consumer`] from any thread or task, also while another one waits for its
/// records: nothing here waits for anybody. Cheap to clone. It does not keep the consumer open.
#[derive(Clone)]
pub struct ConsumerControl {
    buffer: Arc<Buffer>,
    origin: Origin,
}

impl ConsumerControl {
    /// As [`Consumer::position`].
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        if !self.origin.is_here() {
            return None;
        }
        self.buffer.position(topic, partition)
    }

    /// As [`Consumer::seek`].
    ///
    /// # Errors
    /// Those of [`Consumer::seek`].
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        if !self.origin.is_here() {
            return Err(fork::forked());
        }
        self.buffer.seek(topic, partition, to)
    }

    /// As [`Consumer::assignment`].
    pub fn assignment(&self) -> Vec<TopicPartition> {
        if !self.origin.is_here() {
            return Vec::new();
        }
        self.buffer.assignment()
    }

    /// Ends fetching: whoever waits for a batch gets `None`, now and later. Closing again does nothing.
    ///
    /// # Errors
    /// `Forked` in a child of the process that made the consumer.
    pub fn close(&self) -> Result<()> {
        if !self.origin.is_here() {
            return Err(fork::forked());
        }
        self.buffer.close();
        Ok(())
    }

    /// Whether the consumer was closed or dropped, or is a parent process's.
    pub fn is_closed(&self) -> bool {
        !self.origin.is_here() || self.buffer.is_closed()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.pool.env().alive_here() {
            self.buffer.close();
        } else {
            std::mem::forget(Arc::clone(&self.buffer));
        }
    }
}

impl futures_core::Stream for Consumer {
    type Item = Result<Batch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Consumer::poll_next(self.get_mut(), cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Client, ErrorKind};

    fn builder() -> ConsumerBuilder {
        Client::builder().bootstrap("a:1").build().unwrap().consumer()
    }

    fn settings(builder: &ConsumerBuilder) -> (Duration, [usize; 4], bool) {
        let config = &builder.config;
        let bytes = [config.min_bytes, config.max_bytes, config.max_partition_bytes];
        let [a, b, c] = bytes;
        (config.max_wait, [a, b, c, config.buffer_memory], config.check_crc)
    }

    /// By its method and by the names that others have for it.
    #[test]
    fn every_setting_arrives() {
        let wanted = (Duration::from_millis(7), [2, 3_000, 4_000, 5 << 20], false);
        let set = builder().max_wait(wanted.0).min_bytes(2).max_bytes(3_000);
        let set = set.max_partition_bytes(4_000).buffer_memory(5 << 20).check_crc(false);
        assert_eq!(settings(&set), wanted);
        let read = builder().from_properties([
            ("fetch.max.wait.ms", "7"),
            ("fetch.min.bytes", "2"),
            ("fetch.max.bytes", "3000"),
            ("max.partition.fetch.bytes", "4000"),
            ("queued.max.messages.kbytes", "5120"),
            ("check.crcs", "false"),
            ("auto.offset.reset", "latest"),
        ]);
        assert!(read.refused.is_none(), "{:?}", read.refused);
        assert_eq!((settings(&read), read.start), (wanted, Start::Latest));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let kind = |builder: ConsumerBuilder| builder.build().map(drop).unwrap_err().kind();
        assert_eq!(kind(builder()), ErrorKind::Config, "nothing to read");
        let argument = ErrorKind::InvalidArgument;
        assert_eq!(kind(builder().topics(["no topic"])), argument);
        assert_eq!(kind(builder().assign([("t", -1, Start::Earliest)])), argument);
        assert_eq!(kind(builder().assign([("t", 0, Start::Offset(-1))])), argument);
        assert_eq!(kind(builder().topics(["t"]).start(Start::Timestamp(-1))), argument);
        assert_eq!(kind(builder().topics(["t"]).max_bytes(1)), ErrorKind::Config);
    }
}
