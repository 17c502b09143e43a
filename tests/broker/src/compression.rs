//! Unpacking of compressed batches, bounded.

use std::io::{self, Read};

/// A compressed payload may not unpack to more than this: a broker in a test process must not be
/// brought down by a few kilobytes that unpack to gigabytes.
const MAX_UNPACKED: usize = 256 << 20;

/// The magic that snappy-java puts in front of its blocks, and its two version numbers.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As they are.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in any of its framings.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// What Kafka calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// By the number in a batch's attributes.
    pub(crate) fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Unpacks `payload` into `out`, whose old content goes and whose capacity is reused.
pub(crate) fn decompress(codec: Codec, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    match codec {
        Codec::None => out.extend_from_slice(payload),
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(payload), out)?,
        Codec::Snappy => snappy(payload, out)?,
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(payload), out)?,
        Codec::Zstd => read_bounded(
            ruzstd::decoding::StreamingDecoder::new(payload).map_err(io::Error::other)?,
            out,
        )?,
    }
    Ok(())
}

fn read_bounded(reader: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    reader.take(MAX_UNPACKED as u64 + 1).read_to_end(out)?;
    check_bound(out.len())
}

fn check_bound(len: usize) -> io::Result<()> {
    if len <= MAX_UNPACKED {
        return Ok(());
    }
    Err(invalid(format!("unpacks to more than {MAX_UNPACKED} bytes")))
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Snappy comes as one raw block (librdkafka, franz-go) or as snappy-java's sequence of blocks, each
/// behind its length (Java).
fn snappy(payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    if !payload.starts_with(XERIAL_MAGIC) {
        return snappy_block(payload, out);
    }
    let mut rest = payload.get(XERIAL_HEADER..).ok_or_else(|| invalid("truncated header"))?;
    while !rest.is_empty() {
        let (len, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| invalid("truncated block length"))?;
        let len = u32::from_be_bytes(*len) as usize;
        let block = after.get(..len).ok_or_else(|| invalid("truncated block"))?;
        snappy_block(block, out)?;
        rest = &after[len..];
    }
    Ok(())
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let len = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    let from = out.len();
    // The length is the sender's claim; the densest snappy has 64 bytes for each three.
    if len / 22 > block.len() + 16 {
        return Err(invalid(format!("{} bytes claim to unpack to {len}", block.len())));
    }
    check_bound(from.saturating_add(len))?;
    out.resize(from + len, 0);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut out[from..]).map_err(io::Error::other)?;
    out.truncate(from + written);
    Ok(())
}
