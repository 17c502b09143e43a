//! Bounds of a response, checked before it is decoded.
//!
//! The generated decoder believes every count it reads: it reserves memory for `i32::MAX` elements
//! because four bytes say so, and when that fails the process is gone, by an abort that nothing can
//! catch. Nine bytes from a wrong port or a damaged link would be enough. So no byte from the
//! network reaches it before a walk over the message has found, for each array, string and bytes
//! field, that what its length promises is there.
//!
//! Why not a decoder of our own: it would be the same tables and the messages besides, for every
//! request still to come, where here one table is all that a request needs, and a version without one
//! does not compile ([`bounded`]). Why not wait for a decoder that bounds: none is released.
//!
//! The walk follows a table (see [`schema`]) instead of decoding: no allocation, one pass, records
//! skipped as bytes. It is stricter than the decoder in one more place: a tagged field must fill
//! its own size exactly, because the decoder ignores that size and reads on into what follows.
//!
//! Elements can still be larger in memory than on the wire: a topic of 3 bytes becomes a struct of
//! 80, a tagged field of 2 bytes a tree node of 400. [`MAX_STRUCTS`] and [`MAX_UNKNOWN_TAGS`]
//! bound that to some hundred MiB, far above what any cluster answers.
//!
//! That tables and decoder agree is tested with messages written by the tables, by the decoder's own
//! encoder, and by fuzzing (`core/fuzz`).

#[cfg(any(test, feature = "fuzz-internals"))]
pub(crate) mod author;
pub(crate) mod schema;

use kafka_protocol::protocol::Request;
use schema::{Field, Kind, Struct};

/// Most structs in the arrays of a response. The largest honest answers list each partition of a
/// cluster, and clusters end at some 2 million.
const MAX_STRUCTS: u32 = 1 << 21;

/// Most tagged fields this client does not know: one for each partition of a large answer, should a
/// future broker add one.
const MAX_UNKNOWN_TAGS: u32 = 1 << 18;

/// Why a response is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no table for this request and version, so nothing vouches for the bytes.
    NoSchema,
    /// A length or count promises more than there is, or more than anybody would send.
    Malformed {
        /// The field, by its name in the protocol's documents; `tagged fields` for their section.
        field: &'static str,
    },
}

/// First and last version of a request to send: does not compile unless the responses to all of them
/// have a table.
pub(crate) const fn bounded<R: Request>(first: i16, last: i16) -> (i16, i16) {
    let mut i = 0;
    while i < schema::SCHEMAS.len() {
        let schema = &schema::SCHEMAS[i];
        if schema.api_key == R::KEY && schema.versions.0 <= first && last <= schema.versions.1 {
            return (first, last);
        }
        i += 1;
    }
    panic!("no table in protocol/bounds/schema.rs for the answers to this request and version")
}

/// Walks the body of a response (behind its header) and compares each count and length with the
/// bytes that are left. Bytes behind the message are not looked at.
pub(crate) fn check(api_key: i16, version: i16, body: &[u8]) -> Result<(), Refused> {
    let schema = schema::find(api_key, version).ok_or(Refused::NoSchema)?;
    let flexible = version >= schema.flexible;
    let mut walk = Walk { rest: body, version, flexible, structs: 0, unknown_tags: 0 };
    walk.fields(schema.root).map_err(|field| Refused::Malformed { field })
}

/// What is left of the body. Errors name the field at which the walk ended.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    structs: u32,
    unknown_tags: u32,
}

impl Walk<'_> {
    /// Recursion is as deep as the tables nest: four levels.
    fn fields(&mut self, of: &'static Struct) -> Result<(), &'static str> {
        for field in of.fields {
            if field.exists_in(self.version) {
                self.value(field)?;
            }
        }
        if self.flexible { self.tagged(of) } else { Ok(()) }
    }

    fn value(&mut self, field: &'static Field) -> Result<(), &'static str> {
        let name = field.name;
        match field.kind {
            Kind::Fixed(bytes) => self.skip(bytes).ok_or(name),
            Kind::Text => {
                let bytes = if self.flexible { self.compact() } else { self.short() };
                bytes.and_then(|bytes| self.skip(bytes)).ok_or(name)
            }
            Kind::Bytes => self.count().and_then(|bytes| self.skip(bytes)).ok_or(name),
            Kind::Numbers(size) => {
                let count = self.count().ok_or(name)?;
                // No overflow into a small product: a count is below 2^32, a size at most 16.
                let bytes = (count as u64).saturating_mul(size as u64);
                usize::try_from(bytes).ok().and_then(|bytes| self.skip(bytes)).ok_or(name)
            }
            Kind::Structs(of) => {
                let count = self.count().ok_or(name)?;
                // Each takes a byte at least, so this ends an impossible count at once, and the
                // walk itself any other.
                if count > self.rest.len() || count > (MAX_STRUCTS - self.structs) as usize {
                    return Err(name);
                }
                self.structs += count as u32;
                for _ in 0..count {
                    self.fields(of)?;
                }
                Ok(())
            }
            Kind::Struct(of) => self.fields(of),
            Kind::Nullable(of) => match self.take() {
                // The decoder takes all but 1 for null.
                Some([1]) => self.fields(of),
                Some([0xff]) => Ok(()),
                _ => Err(name),
            },
        }
    }

    fn tagged(&mut self, of: &'static Struct) -> Result<(), &'static str> {
        const SECTION: &str = "tagged fields";
        let count = self.varint().ok_or(SECTION)?;
        for _ in 0..count {
            let tag = self.varint().ok_or(SECTION)?;
            let size = self.varint().ok_or(SECTION)?;
            let (value, after) = self.rest.split_at_checked(size as usize).ok_or(SECTION)?;
            let known = of.tagged.iter().find(|(known, _)| *known == tag).map(|(_, field)| field);
            match known.filter(|field| field.exists_in(self.version)) {
                Some(field) => {
                    self.rest = value;
                    self.value(field)?;
                    if !self.rest.is_empty() {
                        return Err(field.name);
                    }
                }
                None => {
                    self.unknown_tags += 1;
                    if self.unknown_tags > MAX_UNKNOWN_TAGS {
                        return Err(SECTION);
                    }
                }
            }
            self.rest = after;
        }
        Ok(())
    }

    /// Length of an array or of bytes; null counts as empty.
    fn count(&mut self) -> Option<usize> {
        if self.flexible {
            return self.compact();
        }
        match i32::from_be_bytes(self.take()?) {
            -1 => Some(0),
            count => usize::try_from(count).ok(),
        }
    }

    /// Length of a string before flexible versions.
    fn short(&mut self) -> Option<usize> {
        match i16::from_be_bytes(self.take()?) {
            -1 => Some(0),
            length => usize::try_from(length).ok(),
        }
    }

    fn compact(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?.saturating_sub(1)).ok()
    }

    /// Refuses what does not fit 32 bits, where the decoder would drop the upper ones.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            if shift == 28 && byte > 0x0f {
                return None;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests;
