//! What an application sends, and what it gets back: a record, and where it was written.

use crate::record::builder::HeaderList;

/// A record to send; borrows everything, so that making one costs nothing.
///
/// ```
/// use ottla::Record;
/// let headers = [("trace", Some(&b"7f"[..]))];
/// let record = Record::to("events").key("user-1").value("hello").headers(&headers);
/// # let _ = record;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: HeaderList<'a>,
    pub(crate) timestamp_ms: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record for a topic; without a value it is a tombstone (null).
    pub fn to(topic: &'a str) -> Self {
        Self {
            topic,
            partition: None,
            key: None,
            value: None,
            headers: HeaderList::NONE,
            timestamp_ms: None,
        }
    }

    /// Names the partition. Without this the batch goes wherever a broker answers quickly.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key. It is payload: it chooses the partition only with
    /// [`Partitioner::KeyHash`](crate::Partitioner::KeyHash).
    pub fn key<K: AsRef<[u8]> + ?Sized>(self, key: &'a K) -> Self {
        self.key_opt(Some(key.as_ref()))
    }

    /// The key, or null.
    pub fn key_opt(mut self, key: Option<&'a [u8]>) -> Self {
        self.key = key;
        self
    }

    /// The value.
    pub fn value<V: AsRef<[u8]> + ?Sized>(self, value: &'a V) -> Self {
        self.value_opt(Some(value.as_ref()))
    }

    /// The value, or null (a tombstone).
    pub fn value_opt(mut self, value: Option<&'a [u8]>) -> Self {
        self.value = value;
        self
    }

    /// Headers in order; names may repeat.
    pub fn headers(mut self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        self.headers = HeaderList::Text(headers);
        self
    }

    /// The same for names that may not be UTF-8: those of a record that somebody else wrote, to be
    /// sent on ([`RecordRef::headers`](crate::RecordRef::headers) gives them so). Kafka's own clients
    /// take them for text.
    pub fn raw_headers(mut self, headers: &'a [(&'a [u8], Option<&'a [u8]>)]) -> Self {
        self.headers = HeaderList::Raw(headers);
        self
    }

    /// Milliseconds since 1970 (UTC), not negative. Default: when the record's batch was opened, at
    /// most the linger before the send.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// The topic it goes to.
    pub fn topic(&self) -> &'a str {
        self.topic
    }
}

/// Where an acknowledged record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The partition that was chosen.
    pub partition: i32,
    /// Its offset; -1 if the broker only remembers that it has the batch.
    pub offset: i64,
    /// Milliseconds since 1970: the broker's append time if the topic is set so, otherwise the record's.
    pub timestamp_ms: i64,
}

/// Every record of a [`send_batch`](crate::Producer::send_batch) is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchAcked {
    /// How many.
    pub records: usize,
}
