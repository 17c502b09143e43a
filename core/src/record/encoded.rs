//! A record as it is encoded: seven numbers in the shortest form they fit, key, value, headers.
//!
//! [`Walk`] takes one after the other. Neighbours are alike: their numbers have the same lengths, and the first
//! eight bytes say so in one comparison. A [`Layout`] keeps where the fields of such a record are, so that they
//! are read by fixed shifts, all checks included. What is different is read number by number, and is the
//! layout from then on.

use super::varint;

/// The least a record takes: length, attributes, two deltas, null key, null value, no headers.
pub(super) const MIN_RECORD: usize = 7;
/// The least a header takes: an empty name and a null value.
const MIN_HEADER: usize = 2;

/// Layouts that are looked at for a batch. Where every record is another, looking is of no use.
const LAYOUTS: u8 = 16;

/// A record's fields as encoded.
pub(super) struct Encoded<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) header_count: usize,
    pub(super) headers: &'a [u8],
}

impl Encoded<'_> {
    #[inline]
    fn headers_are_sound(&self) -> bool {
        if self.header_count == 0 {
            return self.headers.is_empty();
        }
        let mut rest = self.headers;
        for _ in 0..self.header_count {
            if take_header(&mut rest).is_none() {
                return false;
            }
        }
        rest.is_empty()
    }
}

/// Records behind each other, to the last or to the first bytes that are no record.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    rest: &'a [u8],
    layout: Layout,
    layouts_left: u8,
}

impl<'a> Walk<'a> {
    /// Starts at the front of `bytes`, with a layout that a walk over the same batch had.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], layout: Layout) -> Self {
        Self { rest: bytes, layout, layouts_left: LAYOUTS }
    }

    /// What is still to be walked.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next record; `None` if what is next is none.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<Encoded<'a>> {
        match self.layout.take(self.rest) {
            Some((record, rest)) => {
                self.rest = rest;
                Some(record)
            }
            None => self.take_other(),
        }
    }

    #[inline(never)]
    fn take_other(&mut self) -> Option<Encoded<'a>> {
        let bytes = self.rest;
        let record = take_record(&mut self.rest)?;
        if self.layouts_left > 0 {
            self.layouts_left -= 1;
            self.layout = Layout::of(bytes).unwrap_or(self.layout);
        }
        Some(record)
    }
}

/// What a walk over all records of a batch has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    /// The layout of late.
    pub(super) layout: Layout,
    /// How many headers there are, and how many bytes they take.
    pub(super) headers: usize,
    pub(super) header_bytes: usize,
}

/// Walks `count` records, which are to be all that `bytes` holds, at offsets of at most `last_delta`. Fails with
/// the index of the first that is damaged, which is `count` if there are bytes behind the last.
pub(super) fn walk_checked(bytes: &[u8], count: i32, last_delta: i64) -> Result<Walked, i32> {
    let mut walk = Walk::new(bytes, Layout::NONE);
    let (mut headers, mut header_bytes) = (0, 0);
    for index in 0..count {
        let ok = walk.take().is_some_and(|record| {
            headers += record.header_count;
            header_bytes += record.headers.len();
            (0..=last_delta).contains(&record.offset_delta) && record.headers_are_sound()
        });
        if !ok {
            return Err(index);
        }
    }
    if walk.rest().is_empty() {
        Ok(Walked { layout: walk.layout, headers, header_bytes })
    } else {
        Err(count)
    }
}

/// Where the fields of a record are that has no headers, a value that is not null, and numbers of one or two
/// bytes. Another record is alike if the bits that say so are the same, and nothing but its value is longer or
/// shorter; an alike record of a walk is as sound as the one that the layout is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Of the first eight bytes: the bits by which numbers go on, the sign of the length, all of the key's length.
    mask: u64,
    same: u64,
    /// Of the four bytes at the value's length.
    value_mask: u32,
    value_same: u32,
    /// The length of a record less that of its value, both in zigzag form.
    beside: u64,
    /// The bits of a number's second byte, if it has one.
    len_high: u64,
    timestamp_high: u64,
    offset_high: u64,
    value_high: u64,
    timestamp_bit: u32,
    offset_bit: u32,
    key_at: u32,
    value_len_at: u32,
    value_at: u32,
    has_key: bool,
}

impl Layout {
    /// Nothing is alike.
    pub(super) const NONE: Self = Self {
        mask: 0,
        same: 1,
        value_mask: 0,
        value_same: 1,
        beside: 0,
        len_high: 0,
        timestamp_high: 0,
        offset_high: 0,
        value_high: 0,
        timestamp_bit: 0,
        offset_bit: 0,
        key_at: 0,
        value_len_at: 0,
        value_at: 0,
        has_key: false,
    };

    /// The layout of a sound record; `None` if it has none.
    fn of(bytes: &[u8]) -> Option<Self> {
        let front = u64::from_le_bytes(*bytes.first_chunk()?);
        let number = |at: usize| varint::short(front.checked_shr(8 * at as u32)?);
        let (len, len_bytes) = number(0)?;
        let timestamp_at = len_bytes + 1;
        let (_, timestamp_bytes) = number(timestamp_at)?;
        let offset_at = timestamp_at + timestamp_bytes;
        let (_, offset_bytes) = number(offset_at)?;
        let key_len_at = offset_at + offset_bytes;
        let (key_len, key_len_bytes) = number(key_len_at)?;
        let key_at = key_len_at + key_len_bytes;
        if key_at > 8 {
            return None;
        }
        let has_key = key_len & 1 == 0;
        let value_len_at = key_at + if has_key { (key_len >> 1) as usize } else { 0 };
        let tail = u32::from_le_bytes(*bytes.get(value_len_at..)?.first_chunk()?);
        let (value_len, value_len_bytes) = varint::short(u64::from(tail))?;
        let value_at = value_len_at + value_len_bytes;
        let len_end = len_bytes + (len >> 1) as usize;
        let value_end = value_at + (value_len >> 1) as usize;
        let longest = len_bytes.max(timestamp_bytes).max(offset_bytes).max(value_len_bytes);
        if longest > 2
            || (len | value_len) & 1 != 0
            || value_end + 1 != len_end
            || *bytes.get(value_end)? != 0
        {
            return None;
        }
        // The sign, and the bits by which a number goes on.
        const SIGN: u64 = 1;
        let goes_on = |len: usize| 0x8080u64 & !(!0 << (8 * len));
        let key_mask = !0u64 >> (64 - 8 * key_len_bytes);
        let mask = SIGN
            | goes_on(len_bytes)
            | goes_on(timestamp_bytes) << (8 * timestamp_at)
            | goes_on(offset_bytes) << (8 * offset_at)
            | key_mask << (8 * key_len_at);
        let value_mask = (SIGN | goes_on(value_len_bytes)) as u32;
        let high = |len: usize| if len == 2 { 0x3f80 } else { 0 };
        Some(Self {
            mask,
            same: front & mask,
            value_mask,
            value_same: tail & value_mask,
            beside: len.wrapping_sub(value_len),
            len_high: high(len_bytes),
            timestamp_high: high(timestamp_bytes),
            offset_high: high(offset_bytes),
            value_high: high(value_len_bytes),
            timestamp_bit: 8 * timestamp_at as u32,
            offset_bit: 8 * offset_at as u32,
            key_at: key_at as u32,
            value_len_at: value_len_at as u32,
            value_at: value_at as u32,
            has_key,
        })
    }

    /// The record at the front of `bytes`, and what is behind it, if it is alike and sound.
    #[inline(always)]
    fn take<'a>(&self, bytes: &'a [u8]) -> Option<(Encoded<'a>, &'a [u8])> {
        let front = u64::from_le_bytes(*bytes.first_chunk()?);
        if front & self.mask != self.same {
            return None;
        }
        let (head, tail) = bytes.split_at_checked(self.value_len_at as usize)?;
        let tail = u32::from_le_bytes(*tail.first_chunk()?);
        if tail & self.value_mask != self.value_same {
            return None;
        }
        let number = |bits: u64, high: u64| bits & 0x7f | bits >> 1 & high;
        let value_len = number(tail.into(), self.value_high);
        if number(front, self.len_high).wrapping_sub(value_len) != self.beside {
            return None;
        }
        let value = bytes.get(self.value_at as usize..)?;
        let (value, behind) = value.split_at_checked((value_len >> 1) as usize)?;
        // No headers.
        let (0, rest) = behind.split_first()? else { return None };
        let key = if self.has_key { Some(head.get(self.key_at as usize..)?) } else { None };
        let timestamp = number(front >> self.timestamp_bit, self.timestamp_high);
        let offset = number(front >> self.offset_bit, self.offset_high);
        let record = Encoded {
            timestamp_delta: varint::unzigzag(timestamp),
            offset_delta: varint::unzigzag(offset),
            key,
            value: Some(value),
            header_count: 0,
            headers: &[],
        };
        Some((record, rest))
    }
}

/// Takes any record off the front of `rest`.
pub(super) fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Encoded<'a>> {
    let len = usize::try_from(varint::take(rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(len)?;
    *rest = after;
    let (_attributes, fields) = body.split_first()?;
    body = fields;
    let timestamp_delta = varint::take(&mut body)?;
    let offset_delta = varint::take(&mut body)?;
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let header_count = usize::try_from(varint::take(&mut body)?).ok()?;
    if header_count > body.len() / MIN_HEADER {
        return None;
    }
    Some(Encoded { timestamp_delta, offset_delta, key, value, header_count, headers: body })
}

/// A length-prefixed field; the inner `None` is null.
#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::take(rest)?;
    if len == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

#[inline]
pub(super) fn take_header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    // A name is never null.
    let name = take_bytes(rest)??;
    Some((name, take_bytes(rest)?))
}

#[cfg(test)]
mod tests;
