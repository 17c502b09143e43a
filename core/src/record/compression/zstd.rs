//! Zstandard, by its own library.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

use super::{DecompressError, Output, grow_for_stream};
use crate::record::pool::{Chunk, ChunkPool};

/// Compresses `input` as one frame. `None` if it would not get smaller.
pub(super) fn compress(pool: &ChunkPool, input: &[Chunk], level: i32) -> Option<Vec<Chunk>> {
    pool.contexts().zstd.lend(CCtx::create, |context| {
        let mut out = Output::new(pool, input);
        // None of these fails with a level in range; what cannot be compressed is sent as it is.
        context.reset(ResetDirective::SessionOnly).ok()?;
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        // Readers that know the size need no window of their own.
        context.set_pledged_src_size(Some(out.useless as u64)).ok()?;
        for chunk in input {
            let mut rest = InBuffer::around(chunk.as_ref());
            while rest.pos < rest.src.len() {
                step(context, &mut rest, &mut out, ZSTD_EndDirective::ZSTD_e_continue)?;
            }
        }
        let mut nothing = InBuffer::around(&[]);
        while step(context, &mut nothing, &mut out, ZSTD_EndDirective::ZSTD_e_end)? > 0 {}
        out.finish()
    })
}

/// One call; gives how much there is still to write. `None` once it is of no use.
fn step(
    context: &mut CCtx<'_>,
    input: &mut InBuffer<'_>,
    out: &mut Output<'_>,
    end: ZSTD_EndDirective,
) -> Option<usize> {
    if out.is_useless() {
        return None;
    }
    let mut room = OutBuffer::around(out.room().room());
    let left = context.compress_stream2(&mut room, input, end).ok()?;
    let written = room.pos();
    out.advance(written);
    Some(left)
}

/// Decompresses all frames of `input`.
pub(super) fn decompress(
    pool: &ChunkPool,
    input: &[u8],
    mut out: Chunk,
    limit: usize,
) -> Result<Chunk, DecompressError> {
    pool.contexts().unzstd.lend(DCtx::create, |context| {
        context.reset(ResetDirective::SessionOnly).map_err(|_| DecompressError::Damaged)?;
        let mut rest = InBuffer::around(input);
        loop {
            let room;
            (out, room) = grow_for_stream(pool, out, limit);
            let before = rest.pos;
            let mut free = OutBuffer::around(&mut out.room()[..room]);
            let hint = context
                .decompress_stream(&mut free, &mut rest)
                .map_err(|_| DecompressError::Damaged)?;
            let made = free.pos();
            out.advance(made);
            if out.len() > limit {
                return Err(DecompressError::OverLimit);
            }
            let all = rest.pos == rest.src.len();
            // 0: a frame is complete; the next one, if any, is begun by the next call.
            if hint == 0 && all {
                return Ok(out);
            }
            if made == 0 && rest.pos == before {
                return Err(DecompressError::Damaged);
            }
        }
    })
}
