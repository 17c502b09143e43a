//! A record apart from its batch, for who keeps one of many: a batch keeps the whole response that it came in.

use super::records::{Headers, RecordRef};

/// A record that owns its bytes, and nothing else: one allocation.
///
/// ```
/// # use ottla::{Client, OwnedRecord, Record, testing::Cluster};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = Cluster::builder().topic("events", 1, 1).start()?;
/// # let bootstrap = broker.bootstrap();
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let client = Client::connect(&bootstrap).await?;
/// # client.producer().build()?.send(Record::to("events").key("k").value("hello")).await?.await?;
/// # let mut consumer = client.consumer().topics(["events"]).build()?;
/// let batch = consumer.next().await.transpose()?.expect("it is not closed");
/// let last: Option<OwnedRecord> = batch.iter().last().map(|record| record.detach());
/// // The response that it came in is not kept.
/// drop(batch);
/// assert_eq!(last.unwrap().value(), Some(&b"hello"[..]));
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OwnedRecord {
    offset: i64,
    timestamp_ms: i64,
    /// Key, value and headers, the latter as they are encoded.
    bytes: Box<[u8]>,
    key: Option<usize>,
    value: Option<usize>,
    header_count: usize,
}

impl RecordRef<'_> {
    /// The same record in memory of its own. A record that is borrowed keeps its batch, and a batch keeps the whole
    /// response that it came in.
    pub fn detach(&self) -> OwnedRecord {
        let [key, value] = [self.key, self.value].map(Option::unwrap_or_default);
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            bytes: [key, value, self.headers.rest].concat().into(),
            key: self.key.map(<[u8]>::len),
            value: self.value.map(<[u8]>::len),
            header_count: self.headers.left,
        }
    }
}

impl OwnedRecord {
    /// As [`RecordRef::offset`].
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// As [`RecordRef::timestamp_ms`].
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// As [`RecordRef::key`].
    pub fn key(&self) -> Option<&[u8]> {
        Some(&self.bytes[..self.key?])
    }

    /// As [`RecordRef::value`].
    pub fn value(&self) -> Option<&[u8]> {
        let start = self.key.unwrap_or(0);
        Some(&self.bytes[start..start + self.value?])
    }

    /// As [`RecordRef::headers`].
    pub fn headers(&self) -> Headers<'_> {
        let start = self.key.unwrap_or(0) + self.value.unwrap_or(0);
        Headers { rest: &self.bytes[start..], left: self.header_count }
    }
}
