//! Snappy, in the framing of snappy-java that Kafka's own client writes: a header, then blocks
//! behind their lengths. librdkafka and others write one raw block, which is read too.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::output::Filling;
use super::{DecompressError, Output};
use crate::record::pool::{Chunk, ChunkPool};

/// Bytes of a block before compression: snappy-java's own.
const BLOCK: usize = 32 << 10;
const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The magic, then the version and the lowest compatible one, both 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Where a block's matches are looked up, and where it is written before it is known how long it
/// gets.
pub(super) struct Tables {
    encoder: Encoder,
    block: Box<[u8]>,
}

impl Tables {
    fn new() -> Self {
        let block = vec![0; max_compress_len(BLOCK)].into_boxed_slice();
        Self { encoder: Encoder::new(), block }
    }
}

/// Compresses `input` as blocks. `None` if it would not get smaller.
pub(super) fn compress(pool: &ChunkPool, input: &[Chunk]) -> Option<Vec<Chunk>> {
    pool.contexts().snappy.lend(Tables::new, |tables| {
        let mut out = Output::new(pool, input);
        out.push(&HEADER);
        for block in input.iter().flat_map(|chunk| chunk.as_ref().chunks(BLOCK)) {
            if out.is_useless() {
                return None;
            }
            let len = tables.encoder.compress(block, &mut tables.block).ok()?;
            out.push(&(len as u32).to_be_bytes());
            out.push(&tables.block[..len]);
        }
        out.finish()
    })
}

/// Decompresses blocks, or one raw block. `out` has room for what they say.
pub(super) fn decompress(input: &[u8], out: &mut Filling<'_>) -> Result<(), DecompressError> {
    each_block(input, |block, len| {
        let (_, room) = out.split();
        let room = room.get_mut(..len).ok_or(DecompressError::Damaged)?;
        let written =
            Decoder::new().decompress(block, room).map_err(|_| DecompressError::Damaged)?;
        out.advance(written);
        Ok(())
    })
}

/// What `input` decompresses to, by the lengths that its blocks begin with.
pub(super) fn measure(input: &[u8]) -> Result<usize, DecompressError> {
    let mut size = 0usize;
    each_block(input, |_, len| {
        size = size.saturating_add(len);
        Ok(())
    })?;
    Ok(size)
}

/// Gives every block, and what it says that it decompresses to.
fn each_block(
    input: &[u8],
    mut give: impl FnMut(&[u8], usize) -> Result<(), DecompressError>,
) -> Result<(), DecompressError> {
    let mut give = |block: &[u8]| {
        let len = decompress_len(block).map_err(|_| DecompressError::Damaged)?;
        // The length is the sender's claim; the densest element makes 64 bytes of three.
        if len / 22 > block.len() {
            return Err(DecompressError::Damaged);
        }
        give(block, len)
    };
    if !input.starts_with(MAGIC) {
        return give(input);
    }
    let mut rest = input.get(HEADER.len()..).ok_or(DecompressError::Damaged)?;
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<4>().ok_or(DecompressError::Damaged)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, after) = after.split_at_checked(len).ok_or(DecompressError::Damaged)?;
        rest = after;
        give(block)?;
    }
    Ok(())
}
