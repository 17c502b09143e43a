//! Zstandard, by its own library.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

use super::output::Filling;
use super::{DecompressError, Output, SCRATCH};
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

/// A decompressor that needed a larger window than this is not kept: it would keep the window.
const KEPT: usize = 8 << 20;

/// What to make room for at first: what frames say of themselves where they do, or a guess between the least
/// and the most that their blocks can hold.
pub(super) fn estimate(input: &[u8], guess: usize) -> Result<usize, DecompressError> {
    let size = Size::of(input).ok_or(DecompressError::Damaged)?;
    // Most writers make blocks of full size: then the bound is nearly the size.
    let most = if size.most / 2 <= guess { size.most } else { guess };
    Ok(most.clamp(size.least, size.most))
}

/// Decompresses all frames of `input`.
pub(super) fn decompress(
    pool: &ChunkPool,
    input: &[u8],
    out: &mut Filling<'_>,
) -> Result<(), DecompressError> {
    stream(pool, input, |step| out.fill(step))
}

/// Counts what all frames of `input` decompress to.
pub(super) fn measure(
    pool: &ChunkPool,
    input: &[u8],
    limit: usize,
) -> Result<usize, DecompressError> {
    let said = Size::of(input).ok_or(DecompressError::Damaged)?;
    if said.least > limit {
        return Err(DecompressError::OverLimit);
    }
    if said.least == said.most {
        return Ok(said.least);
    }
    let mut scratch = pool.get(SCRATCH);
    let mut size = 0;
    stream(pool, input, |step| {
        let made = step(scratch.room())?;
        size += made;
        if size > limit { Err(DecompressError::OverLimit) } else { Ok(made) }
    })?;
    Ok(size)
}

/// One call of the decompressor, into the bytes it is given.
type Step<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<usize, DecompressError>;

/// Decompresses everything, each step into where `write` has it.
fn stream(
    pool: &ChunkPool,
    input: &[u8],
    mut write: impl FnMut(Step<'_>) -> Result<usize, DecompressError>,
) -> Result<(), DecompressError> {
    let work = |context: &mut DCtx<'_>| {
        context.reset(ResetDirective::SessionOnly).map_err(|_| DecompressError::Damaged)?;
        let mut rest = InBuffer::around(input);
        loop {
            let before = rest.pos;
            let mut hint = 0;
            let made = write(&mut |room| {
                let mut free = OutBuffer::around(room);
                hint = context
                    .decompress_stream(&mut free, &mut rest)
                    .map_err(|_| DecompressError::Damaged)?;
                Ok(free.pos())
            })?;
            // 0: a frame is complete; the next one, if any, is begun by the next call.
            let all = rest.pos == rest.src.len();
            if hint == 0 && all {
                return Ok(());
            }
            if made == 0 && rest.pos == before {
                return Err(DecompressError::Damaged);
            }
        }
    };
    pool.contexts().unzstd.lend_if(DCtx::create, work, |context| context.sizeof() <= KEPT)
}

/// What the headers of frames and blocks tell of the output's size, without decompressing anything.
#[derive(Clone, Copy, Default)]
struct Size {
    least: usize,
    most: usize,
}

impl Size {
    /// `None` if there is no sound frame.
    fn of(input: &[u8]) -> Option<Self> {
        let mut rest = input;
        let mut size = Self::default();
        while !rest.is_empty() {
            let frame = Self::of_frame(&mut rest)?;
            size.least = size.least.saturating_add(frame.least);
            size.most = size.most.saturating_add(frame.most);
        }
        Some(size)
    }

    fn of_frame(rest: &mut &[u8]) -> Option<Self> {
        const MAGIC: u32 = 0xfd2f_b528;
        /// With any last four bits: something that readers pass over.
        const SKIPPABLE: u32 = 0x184d_2a50;
        let magic = take_le(rest, 4)? as u32;
        if magic & !15 == SKIPPABLE {
            let len = take_le(rest, 4)? as usize;
            *rest = rest.get(len..)?;
            return Some(Self::default());
        }
        if magic != MAGIC {
            return None;
        }
        let descriptor = take_le(rest, 1)?;
        let is_single = descriptor & 0x20 != 0;
        let window = if is_single { u64::MAX } else { window(take_le(rest, 1)?) };
        take_le(rest, [0, 1, 2, 4][(descriptor & 3) as usize])?;
        let said = match descriptor >> 6 {
            0 if is_single => Some(take_le(rest, 1)?),
            0 => None,
            1 => Some(take_le(rest, 2)? + 256),
            2 => Some(take_le(rest, 4)?),
            _ => Some(take_le(rest, 8)?),
        };
        let block_max = window.min(said.unwrap_or(u64::MAX)).min(128 << 10) as usize;
        let mut size = Self::default();
        loop {
            let header = take_le(rest, 3)? as usize;
            let len = header >> 3;
            let (stored, least, most) = match header >> 1 & 3 {
                0 => (len, len, len),
                // One byte, repeated.
                1 => (1, len, len),
                2 => (len, 0, block_max),
                _ => return None,
            };
            *rest = rest.get(stored..)?;
            size.least = size.least.saturating_add(least);
            size.most = size.most.saturating_add(most);
            if header & 1 != 0 {
                break;
            }
        }
        if descriptor & 4 != 0 {
            *rest = rest.get(4..)?; // the content's checksum
        }
        match said {
            // The claim of a sender: it must be possible, and the decompressor compares it with what comes.
            Some(said) => {
                let said = usize::try_from(said).ok()?;
                (size.least..=size.most).contains(&said).then_some(Self { least: said, most: said })
            }
            None => Some(size),
        }
    }
}

/// The window that its descriptor stands for.
fn window(descriptor: u64) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + base / 8 * (descriptor & 7)
}

/// A number of up to eight bytes, the lowest first.
fn take_le(rest: &mut &[u8], len: usize) -> Option<u64> {
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}
