//! Codecs of a batch's records section, as Kafka frames them.
//!
//! | codec | written | read |
//! |---|---|---|
//! | lz4 | frames of independent 64 KiB blocks | any frame, several in a row |
//! | snappy | snappy-java's blocks of 32 KiB | the same, and one raw block |
//! | gzip | one member | several in a row |
//! | zstd | one frame that says its size | several in a row |
//!
//! Every codec goes from the chunks of the open batch straight into pooled chunks, and reuses the
//! tables it needs ([`Contexts`]). Reading is bounded twice: what comes out is never more than the
//! caller's limit, and before a buffer of more than a few megabytes is taken, the output is
//! counted ([`measure`]): a bomb costs no memory, and a large batch is allocated once, in its own size.

#![cfg_attr(
    not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")),
    allow(
        dead_code,
        unused_variables,
        unreachable_code,
        reason = "every part of it is some codec's"
    )
)]

mod contexts;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
mod output;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub(crate) use contexts::Contexts;
use output::Filling;

use super::pool::{Chunk, ChunkPool};
use crate::error::{Error, Result};

/// How the records of a batch are compressed before they are sent. What does not get smaller is
/// sent as it is, whatever is chosen.
///
/// Written as "none", "lz4", "snappy", "gzip", "gzip:9", "zstd", "zstd:-5":
/// ```
/// # use ottla::Compression;
/// assert_eq!("lz4".parse::<Compression>()?, Compression::Lz4);
/// assert_eq!("zstd".parse::<Compression>()?, Compression::ZSTD);
/// assert_eq!(Compression::Gzip { level: 9 }.to_string(), "gzip:9");
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4: little CPU, a good half of the bytes saved on JSON-like data. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Snappy: about as quick as LZ4 and as small. Needs the feature `snappy`.
    #[cfg(feature = "snappy")]
    Snappy,
    /// gzip: small and slow; for consumers that read nothing better. Needs the feature `gzip`.
    #[cfg(feature = "gzip")]
    Gzip {
        /// 1 (quick) to 9 (small).
        level: i32,
    },
    /// Zstandard: smaller than gzip at a fraction of its CPU. Needs the feature `zstd`.
    #[cfg(feature = "zstd")]
    Zstd {
        /// -7 (quick) to 22 (small). From 20 on, readers need 128 MiB for a batch.
        level: i32,
    },
}

/// Levels of gzip.
pub(crate) const GZIP_LEVELS: RangeInclusive<i32> = 1..=9;
/// Levels of zstd. It takes negative ones down to -131,072, which are copies rather than
/// compression.
pub(crate) const ZSTD_LEVELS: RangeInclusive<i32> = -7..=22;

impl Compression {
    /// gzip at its usual level, 6.
    #[cfg(feature = "gzip")]
    pub const GZIP: Self = Self::Gzip { level: 6 };

    /// Zstandard at its usual level, 3.
    #[cfg(feature = "zstd")]
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// Whether compressing this many bytes keeps a processor busy for more than about two milliseconds. Only
    /// the order of magnitude counts: bytes a millisecond, of text, on a machine of 2020.
    pub(crate) fn takes_long(self, bytes: usize) -> bool {
        let per_ms = match self {
            // Nothing to do: no number of bytes takes long.
            Self::None => usize::MAX / 2,
            #[cfg(feature = "snappy")]
            Self::Snappy => 400_000,
            #[cfg(feature = "lz4")]
            Self::Lz4 => 500_000,
            #[cfg(feature = "gzip")]
            Self::Gzip { level } => {
                if level < 4 {
                    100_000
                } else {
                    25_000
                }
            }
            #[cfg(feature = "zstd")]
            Self::Zstd { level } => match level {
                ..=4 => 200_000,
                5..=9 => 60_000,
                _ => 5_000,
            },
        };
        bytes > 2 * per_ms
    }

    /// The codec that is called so ("none", "lz4", "snappy", "gzip", "zstd"), at a level or at its
    /// usual one.
    ///
    /// # Errors
    /// `Config` for a name that this build does not have, and for a level that the codec does not
    /// have: gzip has 1 to 9, zstd -7 to 22, the others none.
    pub fn named(name: &str, level: Option<i32>) -> Result<Self> {
        let all = all();
        let Some(usual) = all.iter().find(|codec| codec_name(codec.bits()) == name) else {
            let built: Vec<String> = all.iter().map(ToString::to_string).collect();
            let built = built.join(", ");
            return Err(Error::config(format!("compression is '{name}'; this build has {built}")));
        };
        let codec = match (*usual, level) {
            (usual, None) => usual,
            #[cfg(feature = "gzip")]
            (Self::Gzip { .. }, Some(level)) => Self::Gzip { level },
            #[cfg(feature = "zstd")]
            (Self::Zstd { .. }, Some(level)) => Self::Zstd { level },
            (_, Some(level)) => {
                return Err(Error::config(format!(
                    "compression level is {level}; {name} has no levels, gzip and zstd have"
                )));
            }
        };
        codec.check()?;
        Ok(codec)
    }

    /// The codec's bits in the attributes of a batch.
    pub(crate) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            #[cfg(feature = "gzip")]
            Self::Gzip { .. } => 1,
            #[cfg(feature = "snappy")]
            Self::Snappy => 2,
            #[cfg(feature = "lz4")]
            Self::Lz4 => 3,
            #[cfg(feature = "zstd")]
            Self::Zstd { .. } => 4,
        }
    }

    /// Refuses a level that its codec does not have.
    pub(crate) fn check(self) -> Result<()> {
        let level: Option<(i32, RangeInclusive<i32>)> = match self {
            #[cfg(feature = "gzip")]
            Self::Gzip { level } => Some((level, GZIP_LEVELS)),
            #[cfg(feature = "zstd")]
            Self::Zstd { level } => Some((level, ZSTD_LEVELS)),
            _ => None,
        };
        match level {
            Some((level, range)) if !range.contains(&level) => Err(Error::config(format!(
                "compression level is {level}; {} has {} to {}",
                codec_name(self.bits()),
                range.start(),
                range.end()
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(codec_name(self.bits()))?;
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip { level } if *self != Self::GZIP => write!(f, ":{level}"),
            #[cfg(feature = "zstd")]
            Self::Zstd { level } if *self != Self::ZSTD => write!(f, ":{level}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, level)) = text.split_once(':') else { return Self::named(text, None) };
        match level.parse() {
            Ok(level) => Self::named(name, Some(level)),
            Err(_) => Err(Error::config(format!("compression '{text}': no level '{level}'"))),
        }
    }
}

/// The codecs of this build, at their usual levels.
pub(crate) fn all() -> Vec<Compression> {
    vec![
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "snappy")]
        Compression::Snappy,
        #[cfg(feature = "gzip")]
        Compression::GZIP,
        #[cfg(feature = "zstd")]
        Compression::ZSTD,
    ]
}

/// What Kafka calls the codec with these attribute bits.
pub(crate) fn codec_name(bits: i16) -> &'static str {
    match bits {
        0 => "none",
        1 => "gzip",
        2 => "snappy",
        3 => "lz4",
        4 => "zstd",
        _ => "unknown",
    }
}

/// Compresses the records of a batch. `None` if they are to be sent as they are: because that is
/// what was chosen, or because they would not get smaller.
pub(crate) fn compress(
    codec: Compression,
    pool: &ChunkPool,
    input: &[Chunk],
) -> Option<Vec<Chunk>> {
    match codec {
        Compression::None => None,
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::compress(pool, input),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::compress(pool, input),
        #[cfg(feature = "gzip")]
        Compression::Gzip { level } => gzip::compress(pool, input, level),
        #[cfg(feature = "zstd")]
        Compression::Zstd { level } => zstd::compress(pool, input, level),
    }
}

/// Why a payload could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// More than the limit came out, or would.
    OverLimit,
    /// Not what the codec writes.
    Damaged,
    /// A codec that is not built in, or none.
    Unsupported,
}

/// Output that may be taken room for by an estimate. What promises more is counted before.
const UNMEASURED: usize = 8 << 20;

/// Output that is only counted is written here, piece by piece.
const SCRATCH: usize = 64 << 10;

/// Decompresses a payload with these codec bits, which are not 0, into one pooled chunk of at most
/// `limit` bytes.
pub(crate) fn decompress(
    bits: i16,
    pool: &ChunkPool,
    input: &[u8],
    limit: usize,
) -> Result<Chunk, DecompressError> {
    let guess = pool.contexts().ratios.guess(bits, input.len());
    let estimate = match bits {
        #[cfg(feature = "gzip")]
        1 => gzip::estimate(input, guess),
        #[cfg(feature = "snappy")]
        2 => measure(bits, pool, input, limit)?,
        #[cfg(feature = "lz4")]
        3 => lz4::estimate(input, guess),
        #[cfg(feature = "zstd")]
        4 => zstd::estimate(input, guess)?,
        _ => return Err(DecompressError::Unsupported),
    };
    let mut out = Filling::new(bits, pool, input, limit, estimate)?;
    match bits {
        #[cfg(feature = "gzip")]
        1 => gzip::decompress(input, &mut out)?,
        #[cfg(feature = "snappy")]
        2 => snappy::decompress(input, &mut out)?,
        #[cfg(feature = "lz4")]
        3 => lz4::decompress(input, &mut out)?,
        #[cfg(feature = "zstd")]
        4 => zstd::decompress(pool, input, &mut out)?,
        _ => return Err(DecompressError::Unsupported),
    }
    Ok(out.finish())
}

/// Counts what a payload decompresses to, in next to no memory; stops with `OverLimit` as soon as it is more
/// than `limit`. What is damaged may show only when it is decompressed.
pub(crate) fn measure(
    bits: i16,
    pool: &ChunkPool,
    input: &[u8],
    limit: usize,
) -> Result<usize, DecompressError> {
    let size = match bits {
        #[cfg(feature = "gzip")]
        1 => gzip::measure(pool, input, limit)?,
        #[cfg(feature = "snappy")]
        2 => snappy::measure(input)?,
        #[cfg(feature = "lz4")]
        3 => lz4::measure(input, limit)?,
        #[cfg(feature = "zstd")]
        4 => zstd::measure(pool, input, limit)?,
        _ => return Err(DecompressError::Unsupported),
    };
    if size > limit { Err(DecompressError::OverLimit) } else { Ok(size) }
}

/// Compressed bytes as they come out, in pooled chunks that hold little more than them: what is
/// compressed is a fraction of what it was, and so is the memory it is charged with.
struct Output<'a> {
    pool: &'a ChunkPool,
    chunks: Vec<Chunk>,
    written: usize,
    /// With this many bytes the output is no smaller than the input: the batch stays uncompressed.
    useless: usize,
}

impl<'a> Output<'a> {
    fn new(pool: &'a ChunkPool, input: &[Chunk]) -> Self {
        let useless = input.iter().map(Chunk::len).sum();
        Self { pool, chunks: Vec::new(), written: 0, useless }
    }

    fn is_useless(&self) -> bool {
        self.written >= self.useless
    }

    /// Somewhere to write; never empty.
    fn room(&mut self) -> &mut Chunk {
        const CHUNK: usize = 64 << 10;
        if self.chunks.last().is_none_or(|last| last.capacity() == last.len()) {
            let most = self.useless.saturating_sub(self.written).clamp(1, CHUNK);
            self.chunks.push(self.pool.get(most));
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    fn advance(&mut self, n: usize) {
        self.room().advance(n);
        self.written += n;
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.written += bytes.len();
        while !bytes.is_empty() {
            let chunk = self.room();
            let (now, later) = bytes.split_at(bytes.len().min(chunk.capacity() - chunk.len()));
            chunk.push(now);
            bytes = later;
        }
    }

    fn finish(self) -> Option<Vec<Chunk>> {
        (!self.is_useless()).then_some(self.chunks)
    }
}

#[cfg(all(test, feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
mod sizes;
#[cfg(test)]
mod tests;
