//! gzip, by zlib.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, FlushCompress, Status};

use super::output::Filling;
use super::{DecompressError, Output, SCRATCH};
use crate::record::pool::{Chunk, ChunkPool};

/// The largest window, 32 KiB: what every reader has.
const WINDOW_BITS: u8 = 15;

/// A compressor and the level it was made for.
pub(super) struct Deflate {
    level: i32,
    inner: Compress,
}

impl Deflate {
    pub(super) fn new(level: i32) -> Self {
        // Levels are checked with the settings.
        let zlib = flate2::Compression::new(level.unsigned_abs());
        Self { level, inner: Compress::new_gzip(zlib, WINDOW_BITS) }
    }
}

/// Compresses `input` as one member. `None` if it would not get smaller.
pub(super) fn compress(pool: &ChunkPool, input: &[Chunk], level: i32) -> Option<Vec<Chunk>> {
    pool.contexts().deflate.lend(
        || Deflate::new(level),
        |deflate| {
            if deflate.level == level {
                deflate.inner.reset();
            } else {
                *deflate = Deflate::new(level);
            }
            let deflate = &mut deflate.inner;
            let mut out = Output::new(pool, input);
            for chunk in input {
                let mut rest = chunk.as_ref();
                while !rest.is_empty() {
                    let (taken, _) = step(deflate, rest, &mut out, FlushCompress::None)?;
                    rest = &rest[taken..];
                }
            }
            loop {
                if let (_, Status::StreamEnd) = step(deflate, &[], &mut out, FlushCompress::Finish)?
                {
                    return out.finish();
                }
            }
        },
    )
}

/// One call: bytes taken from `input`, and how the stream stands. `None` once it is of no use.
fn step(
    deflate: &mut Compress,
    input: &[u8],
    out: &mut Output<'_>,
    flush: FlushCompress,
) -> Option<(usize, Status)> {
    if out.is_useless() {
        return None;
    }
    let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
    let status = deflate.compress(input, out.room().room(), flush).ok()?;
    out.advance((deflate.total_out() - before_out) as usize);
    Some(((deflate.total_in() - before_in) as usize, status))
}

/// The most that a byte of deflate stands for: a match of 258 bytes in two bits.
const DENSEST: usize = 1032;

/// The last four bytes are the size of the last member, and there is hardly ever another. They are the sender's
/// claim and decide nothing but what is tried first.
pub(super) fn estimate(input: &[u8], guess: usize) -> usize {
    let said = input.last_chunk::<4>().map_or(0, |said| u32::from_le_bytes(*said) as usize);
    let likely = input.len() / 2..=input.len().saturating_mul(DENSEST);
    if likely.contains(&said) { said } else { guess }
}

/// Decompresses all members of `input`.
pub(super) fn decompress(input: &[u8], out: &mut Filling<'_>) -> Result<(), DecompressError> {
    let mut members = MultiGzDecoder::new(input);
    let mut read = |room: &mut [u8]| members.read(room).map_err(|_| DecompressError::Damaged);
    while out.fill(&mut read)? > 0 {}
    Ok(())
}

/// Counts what all members of `input` decompress to.
pub(super) fn measure(
    pool: &ChunkPool,
    input: &[u8],
    limit: usize,
) -> Result<usize, DecompressError> {
    let mut members = MultiGzDecoder::new(input);
    let mut scratch = pool.get(SCRATCH);
    let mut size = 0;
    while size <= limit {
        match members.read(scratch.room()).map_err(|_| DecompressError::Damaged)? {
            0 => return Ok(size),
            n => size += n,
        }
    }
    Err(DecompressError::OverLimit)
}
