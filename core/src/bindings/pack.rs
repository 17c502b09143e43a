//! Many records in one piece of memory, as a host packs them to hand them over in one call.
//!
//! All numbers little-endian, nothing aligned, nothing between the records:
//!
//! ```text
//! record:  partition i32 (-1: spread) | header_count u32 | timestamp_ms i64 (-1: now)
//!          | key_len i32 (-1: null) | value_len i32 (-1: null) | key | value | headers
//! header:  name_len u32 | name (UTF-8) | value_len i32 (-1: null) | value
//! ```
//!
//! A submission is checked as a whole before its first record is taken: a host that packs wrongly
//! hears so with nothing sent.

use crate::error::{Error, Result};

/// Bytes of a record before its key.
pub const RECORD_HEADER_LEN: usize = 24;

/// One record of a submission; the topic is given once, with the submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `None`: the client spreads.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; `None`: now.
    pub timestamp_ms: Option<i64>,
    /// `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// `None` is a null value (a tombstone).
    pub value: Option<&'a [u8]>,
    /// In order; names may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Entry<'_> {
    /// Bytes of key, value and headers.
    pub(crate) fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + self.headers.iter().map(|(n, v)| n.len() + v.map_or(0, <[u8]>::len)).sum::<usize>()
    }
}

impl Entry<'_> {
    /// Bytes of buffer it may take, generously.
    pub(crate) fn footprint(&self) -> usize {
        self.size() + 64 + 16 * self.headers.len()
    }
}

/// Appends one record in the packed form.
pub fn pack(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.extend_from_slice(&entry.partition.unwrap_or(-1).to_le_bytes());
    out.extend_from_slice(&length(entry.headers.len()).to_le_bytes());
    out.extend_from_slice(&entry.timestamp_ms.unwrap_or(-1).to_le_bytes());
    out.extend_from_slice(&nullable(entry.key).to_le_bytes());
    out.extend_from_slice(&nullable(entry.value).to_le_bytes());
    out.extend_from_slice(entry.key.unwrap_or_default());
    out.extend_from_slice(entry.value.unwrap_or_default());
    for (name, value) in entry.headers {
        pack_header(out, name, *value);
    }
}

/// Appends one header in the packed form.
pub(crate) fn pack_header(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    out.extend_from_slice(&length(name.len()).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&nullable(value).to_le_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

fn length(n: usize) -> i32 {
    // Records are bounded by max_record_size (100 MiB at most) before they get here.
    i32::try_from(n).expect("no part of a record is larger than 2 GiB")
}

fn nullable(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |b| length(b.len()))
}

/// A checked submission. Headers of all its records sit in one vector, which stays empty (and
/// costs nothing) when no record has headers.
pub struct Packed<'a> {
    bytes: &'a [u8],
    count: usize,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Packed<'a> {
    /// Checks `bytes`, which must hold exactly `count` records.
    pub fn parse(bytes: &'a [u8], count: usize) -> Result<Self> {
        let mut headers = Vec::new();
        let mut cursor = Cursor { bytes, at: 0 };
        for record in 0..count {
            cursor.record(&mut headers).map_err(|e| e.context(format!("record {record}")))?;
        }
        if cursor.at != bytes.len() {
            return Err(Error::argument(format!(
                "packed records: {} bytes are left after {count} records",
                bytes.len() - cursor.at
            )));
        }
        Ok(Self { bytes, count, headers })
    }

    /// The records, in order.
    pub fn entries(&self) -> PackedEntries<'_> {
        PackedEntries {
            cursor: Cursor { bytes: self.bytes, at: 0 },
            left: self.count,
            headers: &self.headers,
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Iterator over [`Packed`].
#[derive(Clone)]
pub struct PackedEntries<'a> {
    cursor: Cursor<'a>,
    left: usize,
    headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> Iterator for PackedEntries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let raw = self.cursor.fixed().ok()?;
        if raw.header_count == 0 {
            return Some(raw.entry(&[]));
        }
        for _ in 0..raw.header_count {
            self.cursor.header().ok()?;
        }
        let (mine, rest) = self.headers.split_at_checked(raw.header_count)?;
        self.headers = rest;
        Some(raw.entry(mine))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for PackedEntries<'_> {}

/// Reads the packed form; every length is checked against what is there.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

pub(crate) struct Fixed<'a> {
    partition: i32,
    header_count: usize,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Fixed<'a> {
    pub(crate) fn entry(self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Entry<'a> {
        Entry {
            partition: (self.partition >= 0).then_some(self.partition),
            timestamp_ms: (self.timestamp_ms >= 0).then_some(self.timestamp_ms),
            key: self.key,
            value: self.value,
            headers,
        }
    }

    pub(crate) fn header_count(&self) -> usize {
        self.header_count
    }
}

/// The bytes of a number at a place of a record's head.
#[inline(always)]
fn at_place<const N: usize>(head: &[u8; RECORD_HEADER_LEN], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("numbers lie within the head")
}

/// A key or a value at the front of `bytes`, and what is behind it; `None` if there is no such thing.
#[inline(always)]
fn nullable_at(bytes: &[u8], len: i32) -> Option<(Option<&[u8]>, &[u8])> {
    if len == -1 {
        return Some((None, bytes));
    }
    let (part, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    Some((Some(part), rest))
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        match left.get(..n) {
            Some(part) => {
                self.at += n;
                Ok(part)
            }
            None => Err(Error::argument(format!(
                "packed records: {what} at byte {} wants {n} bytes, {} are left",
                self.at,
                left.len()
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn nullable(&mut self, len: i32, what: &str) -> Result<Option<&'a [u8]>> {
        match len {
            -1 => Ok(None),
            0.. => Ok(Some(self.take(len as usize, what)?)),
            _ => Err(Error::argument(format!("packed records: length of {what} is {len}"))),
        }
    }

    /// A record without its headers. Every record of a submission is read twice, so this has one way for nearly all of them, and
    /// says what is wrong with others apart.
    #[inline(always)]
    pub(crate) fn fixed(&mut self) -> Result<Fixed<'a>> {
        let left = &self.bytes[self.at..];
        let Some((head, rest)) = left.split_first_chunk::<RECORD_HEADER_LEN>() else {
            return Err(self.odd());
        };
        let i32_at = |at: usize| i32::from_le_bytes(at_place(head, at));
        let partition = i32_at(0);
        let header_count = i32_at(4) as u32 as usize;
        let timestamp_ms = i64::from_le_bytes(at_place(head, 8));
        let (key_len, value_len) = (i32_at(16), i32_at(20));
        let Some((key, rest)) = nullable_at(rest, key_len) else { return Err(self.odd()) };
        let Some((value, rest)) = nullable_at(rest, value_len) else { return Err(self.odd()) };
        // A header takes 8 bytes at least: refuses a count that the bytes cannot hold before anything is reserved for it.
        if partition < -1 || timestamp_ms < -1 || header_count > rest.len() / 8 {
            return Err(self.odd());
        }
        self.at = self.bytes.len() - rest.len();
        Ok(Fixed { partition, header_count, timestamp_ms, key, value })
    }

    /// What is wrong with the record that begins here.
    #[cold]
    fn odd(&self) -> Error {
        let mut at = self.clone();
        at.misfit().err().unwrap_or_else(|| Error::argument("packed records: not in that form"))
    }

    fn misfit(&mut self) -> Result<()> {
        let head: [u8; RECORD_HEADER_LEN] = self.array("the head of a record")?;
        let i32_at = |at: usize| i32::from_le_bytes(at_place(&head, at));
        let partition = i32_at(0);
        let header_count = i32_at(4) as u32 as usize;
        let timestamp_ms = i64::from_le_bytes(at_place(&head, 8));
        if partition < -1 {
            return Err(Error::argument(format!("packed records: partition is {partition}")));
        }
        if timestamp_ms < -1 {
            return Err(Error::argument(format!("packed records: timestamp is {timestamp_ms}")));
        }
        self.nullable(i32_at(16), "a key")?;
        self.nullable(i32_at(20), "a value")?;
        Err(Error::argument(format!(
            "packed records: {header_count} headers cannot fit in the {} bytes left",
            self.bytes.len() - self.at
        )))
    }

    pub(crate) fn header(&mut self) -> Result<(&'a str, Option<&'a [u8]>)> {
        let len = u32::from_le_bytes(self.array("a header")?) as usize;
        let name = std::str::from_utf8(self.take(len, "a header's name")?)
            .map_err(|_| Error::argument("packed records: a header's name is not UTF-8"))?;
        let len = i32::from_le_bytes(self.array("a header's value length")?);
        Ok((name, self.nullable(len, "a header's value")?))
    }

    fn record(&mut self, headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) -> Result<()> {
        let record = self.fixed()?;
        for _ in 0..record.header_count {
            headers.push(self.header()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Owned {
        partition: Option<i32>,
        timestamp_ms: Option<i64>,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
    }

    fn owned() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        (
            proptest::option::of(0..i32::MAX),
            proptest::option::of(0..i64::MAX),
            bytes(),
            bytes(),
            proptest::collection::vec((".{0,8}", bytes()), 0..4),
        )
            .prop_map(|(partition, timestamp_ms, key, value, headers)| Owned {
                partition,
                timestamp_ms,
                key,
                value,
                headers,
            })
    }

    fn packed(records: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        for r in records {
            let headers: Vec<_> =
                r.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            pack(
                &mut out,
                &Entry {
                    partition: r.partition,
                    timestamp_ms: r.timestamp_ms,
                    key: r.key.as_deref(),
                    value: r.value.as_deref(),
                    headers: &headers,
                },
            );
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn comes_back_as_packed(records in proptest::collection::vec(owned(), 0..8)) {
            let bytes = packed(&records);
            let parsed = Packed::parse(&bytes, records.len()).unwrap();
            let back: Vec<Owned> = parsed
                .entries()
                .map(|e| Owned {
                    partition: e.partition,
                    timestamp_ms: e.timestamp_ms,
                    key: e.key.map(<[u8]>::to_vec),
                    value: e.value.map(<[u8]>::to_vec),
                    headers: e
                        .headers
                        .iter()
                        .map(|(n, v)| ((*n).to_owned(), v.map(<[u8]>::to_vec)))
                        .collect(),
                })
                .collect();
            prop_assert_eq!(format!("{:?}", back), format!("{records:?}"));
        }

        #[test]
        fn damage_is_an_error_or_other_records_but_never_a_panic(
            records in proptest::collection::vec(owned(), 1..5),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = packed(&records);
            let shorter = &bytes[..cut.index(bytes.len())];
            prop_assert!(Packed::parse(shorter, records.len()).is_err());
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(parsed) = Packed::parse(&bytes, records.len()) {
                prop_assert_eq!(parsed.entries().count(), records.len());
            }
        }

        #[test]
        fn noise(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0usize..10) {
            let _ = Packed::parse(&bytes, count);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let mut bytes = Vec::new();
        pack(&mut bytes, &Entry { value: Some(b"v"), ..Entry::default() });
        let message =
            |bytes: &[u8], n| Packed::parse(bytes, n).map(|_| ()).unwrap_err().to_string();
        assert!(message(&bytes, 0).contains("25 bytes are left after 0 records"));
        assert!(message(&bytes, 2).contains("record 1: packed records: the head of a record"));
        bytes[20..24].copy_from_slice(&(-7i32).to_le_bytes());
        assert!(message(&bytes, 1).contains("length of a value is -7"));
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes[20..24].copy_from_slice(&1i32.to_le_bytes());
        assert!(message(&bytes, 1).contains("cannot fit"), "{}", message(&bytes, 1));
    }
}
