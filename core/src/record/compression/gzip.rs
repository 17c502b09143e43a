//! gzip, by zlib.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, FlushCompress, Status};

use super::{DecompressError, Output, grow_for_stream};
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

/// Decompresses all members of `input`.
pub(super) fn decompress(
    pool: &ChunkPool,
    input: &[u8],
    mut out: Chunk,
    limit: usize,
) -> Result<Chunk, DecompressError> {
    let mut members = MultiGzDecoder::new(input);
    loop {
        let room;
        (out, room) = grow_for_stream(pool, out, limit);
        let n = members.read(&mut out.room()[..room]).map_err(|_| DecompressError::Damaged)?;
        out.advance(n);
        if out.len() > limit {
            return Err(DecompressError::OverLimit);
        }
        if n == 0 {
            return Ok(out);
        }
    }
}
