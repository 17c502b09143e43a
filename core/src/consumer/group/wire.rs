//! The bytes that members of a classic group hand one another through the coordinator: a subscription with each
//! JoinGroup, an assignment back from the leader's SyncGroup, and within subscriptions the user data of the sticky
//! assignors. The coordinator looks into none of them to decide who leads, so whatever another client writes arrives
//! here as it is.
//!
//! Code of our own instead of the generated messages: those believe every count they read (see
//! `protocol::bounds`), and a version above theirs is an error to them, where all clients read what they know and
//! ignore the rest (Java's ConsumerProtocol). What cannot be read of a subscription is [`Malformed`]; user data that
//! cannot be read is no history, as with all clients: a balanced group is worth more than a sticky one.
//!
//! What is written is version 3 and sorted. A coordinator that gets other bytes from a member than the last time
//! begins a rebalance (GroupMetadataManager.classicGroupJoinExistingMember), so the same state has one form.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

/// Partitions by topic; sorted by both, none twice.
pub(crate) type Partitions = Vec<(Arc<str>, Vec<i32>)>;

/// What a member says of no generation: it has not been in any.
pub(crate) const NO_GENERATION: i32 = -1;

/// The highest version of both structures. Later ones may only add fields at the end, so they are read as this.
const VERSION: i16 = 3;

/// What a member wants, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Sorted, none twice.
    pub(crate) topics: Vec<Arc<str>>,
    /// For the assignor. Empty is none.
    pub(crate) user_data: Option<Bytes>,
    /// What it reads, and goes on reading while it joins. Of an eager member nothing.
    pub(crate) owned: Partitions,
    /// In which generation it got that; [`NO_GENERATION`].
    pub(crate) generation: i32,
    /// Where it is (KIP-881). Never empty.
    pub(crate) rack: Option<Arc<str>>,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            user_data: None,
            owned: Vec::new(),
            generation: NO_GENERATION,
            rack: None,
        }
    }
}

impl Subscription {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_i16(VERSION);
        let mut topics: Vec<&str> = self.topics.iter().map(|topic| &**topic).collect();
        topics.sort_unstable();
        topics.dedup();
        put_count(&mut to, topics.len());
        for topic in topics {
            put_text(&mut to, topic);
        }
        put_bytes(&mut to, self.user_data.as_deref());
        put_partitions(&mut to, &self.owned);
        to.put_i32(self.generation);
        match &self.rack {
            Some(rack) => put_text(&mut to, rack),
            None => to.put_i16(-1),
        }
        to.freeze()
    }

    /// Reads versions 0 to 3, and any above as 3.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader { rest: bytes };
        let version = from.version()?;
        let count = from.count(2).ok_or(Malformed("topics"))?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(from.text().flatten().map(Arc::from).ok_or(Malformed("topics"))?);
        }
        topics.sort_unstable();
        topics.dedup();
        let user_data = from.bytes().ok_or(Malformed("user data"))?;
        let mut read = Self { topics, user_data, ..Self::default() };
        // Old clients said 1 and wrote 0 (sarama and franz-go bear with them, too).
        if version == 0 || version == 1 && from.rest.is_empty() {
            return Ok(read);
        }
        read.owned = from.partitions().ok_or(Malformed("owned partitions"))?;
        if version >= 2 {
            let generation = from.i32().ok_or(Malformed("generation"))?;
            read.generation = generation.max(NO_GENERATION);
        }
        if version >= 3 {
            let rack = from.text().ok_or(Malformed("rack"))?;
            read.rack = rack.filter(|rack| !rack.is_empty()).map(Arc::from);
        }
        Ok(read)
    }
}

/// What a member is to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) partitions: Partitions,
    /// Those of other clients' assignors. Ours send none: with any, a classic group cannot become a new one
    /// (ConsumerGroup.fromClassicGroup).
    pub(crate) user_data: Option<Bytes>,
}

impl Assignment {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_i16(VERSION);
        put_partitions(&mut to, &self.partitions);
        put_bytes(&mut to, self.user_data.as_deref());
        to.freeze()
    }

    /// No bytes at all are nothing to read: that is what the coordinator gives to one whom the leader did not name,
    /// and some leaders leave out who gets nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader { rest: bytes };
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        from.version()?;
        let partitions = from.partitions().ok_or(Malformed("partitions"))?;
        let user_data = from.bytes().ok_or(Malformed("user data"))?;
        Ok(Self { partitions, user_data })
    }
}

/// What an eager sticky member had, which it tells in its user data: its owned partitions are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) partitions: Partitions,
    pub(crate) generation: i32,
}

impl Default for History {
    fn default() -> Self {
        Self { partitions: Vec::new(), generation: NO_GENERATION }
    }
}

impl History {
    /// Version 1 of the user data of `sticky`, which bears no version: what comes behind the partitions tells.
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        put_partitions(&mut to, &self.partitions);
        to.put_i32(self.generation);
        to.freeze()
    }

    /// Version 1 or 0, or no history.
    pub(crate) fn decode(user_data: Option<&[u8]>) -> Self {
        let mut from = Reader { rest: user_data.unwrap_or_default() };
        let Some(partitions) = from.partitions() else { return Self::default() };
        let generation = from.i32().unwrap_or(NO_GENERATION).max(NO_GENERATION);
        Self { partitions, generation }
    }
}

/// The user data of `cooperative-sticky`, as Java writes it: who reads the field of the subscription needs it no more.
pub(crate) fn encode_generation(generation: i32) -> Bytes {
    Bytes::copy_from_slice(&generation.to_be_bytes())
}

/// The generation in the user data of `cooperative-sticky`: Java's four bytes, or all of `sticky` (librdkafka and
/// franz-go), which is never that short unless it tells nothing.
pub(crate) fn decode_generation(user_data: Option<&[u8]>) -> i32 {
    match user_data {
        Some(&[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]).max(NO_GENERATION),
        other => History::decode(other).generation,
    }
}

/// What another member wrote makes no sense: the field where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read: cut short, or an impossible length", self.0)
    }
}

impl Error for Malformed {}

/// Sorted by topic and number, none twice, none below zero, no topic without any.
fn sorted(mut partitions: Partitions) -> Partitions {
    partitions.sort_by(|(a, _), (b, _)| a.cmp(b));
    partitions.dedup_by(|(topic, more), (before, all)| {
        let same = topic == before;
        if same {
            all.append(more);
        }
        same
    });
    for (_, numbers) in &mut partitions {
        numbers.retain(|number| *number >= 0);
        numbers.sort_unstable();
        numbers.dedup();
    }
    partitions.retain(|(_, numbers)| !numbers.is_empty());
    partitions
}

fn put_count(to: &mut BytesMut, count: usize) {
    // What has more than this does not fit memory.
    to.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

fn put_text(to: &mut BytesMut, text: &str) {
    // Names of topics end at 249 characters.
    let len = i16::try_from(text.len()).unwrap_or(i16::MAX);
    to.put_i16(len);
    to.put_slice(&text.as_bytes()[..len as usize]);
}

fn put_bytes(to: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(to, bytes.len());
            to.put_slice(bytes);
        }
        None => to.put_i32(-1),
    }
}

fn put_partitions(to: &mut BytesMut, partitions: &Partitions) {
    let partitions = sorted(partitions.clone());
    put_count(to, partitions.len());
    for (topic, numbers) in &partitions {
        put_text(to, topic);
        put_count(to, numbers.len());
        for number in numbers {
            to.put_i32(*number);
        }
    }
}

/// What is left to read. `None`: cut short, or a length that cannot be.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn version(&mut self) -> Result<i16, Malformed> {
        let version = self.take().map(i16::from_be_bytes);
        version.filter(|version| *version >= 0).ok_or(Malformed("version"))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// How many elements follow, of `size` bytes each at least: no more than there is room for, so that memory
    /// can be had for them. Arrays are never null.
    fn count(&mut self, size: usize) -> Option<usize> {
        let count = usize::try_from(self.i32()?).ok()?;
        (count <= self.rest.len() / size).then_some(count)
    }

    /// `Some(None)` is null.
    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.take().map(i16::from_be_bytes)? {
            -1 => Some(None),
            len => str::from_utf8(self.skip(usize::try_from(len).ok()?)?).ok().map(Some),
        }
    }

    /// `Some(None)` is null, or empty: librdkafka writes that for null.
    fn bytes(&mut self) -> Option<Option<Bytes>> {
        match self.i32()? {
            -1 | 0 => Some(None),
            len => self.skip(usize::try_from(len).ok()?).map(Bytes::copy_from_slice).map(Some),
        }
    }

    fn partitions(&mut self) -> Option<Partitions> {
        let topics = self.count(6)?;
        let mut partitions = Vec::with_capacity(topics);
        for _ in 0..topics {
            let topic = Arc::from(self.text()??);
            let count = self.count(4)?;
            let mut numbers = Vec::with_capacity(count);
            for _ in 0..count {
                numbers.push(self.i32()?);
            }
            partitions.push((topic, numbers));
        }
        Some(sorted(partitions))
    }
}

#[cfg(test)]
mod tests;
