//! What every codec must do: come back the same at every size, never more than the limit, and say
//! so when it is damaged. What other programs write is in the tests of the embedded broker and of
//! interoperation.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

const LIMIT: usize = 32 << 20;

/// Every codec at its quickest, usual and smallest level.
pub(super) fn codecs() -> Vec<Compression> {
    let mut codecs = all();
    codecs.remove(0);
    #[cfg(feature = "gzip")]
    codecs.extend([1, 9].map(|level| Compression::Gzip { level }));
    #[cfg(feature = "zstd")]
    codecs.extend([-7, 1, 22].map(|level| Compression::Zstd { level }));
    codecs
}

/// As an open batch holds bytes: a small chunk, a middle one, then large ones.
fn chunks(pool: &ChunkPool, mut bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for size in [1 << 10, 16 << 10].into_iter().chain(std::iter::repeat(64 << 10)) {
        if bytes.is_empty() {
            break;
        }
        let (now, later) = bytes.split_at(bytes.len().min(size - 7));
        let mut chunk = pool.get(size);
        chunk.push(now);
        chunks.push(chunk);
        bytes = later;
    }
    chunks
}

fn joined(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().map(Chunk::as_ref).collect::<Vec<_>>().concat()
}

pub(super) fn lines(len: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(len + 80);
    for i in 0u32.. {
        if text.len() >= len {
            break;
        }
        text.extend_from_slice(
            format!(r#"{{"id":{i},"at":{},"ok":true}}"#, u64::from(i) * 7919).as_bytes(),
        );
    }
    text.truncate(len);
    text
}

pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

/// Compressed, or `None` if it is sent as it is.
pub(super) fn compressed(pool: &ChunkPool, codec: Compression, bytes: &[u8]) -> Option<Vec<u8>> {
    let chunks = compress(codec, pool, &chunks(pool, bytes))?;
    let out = joined(&chunks);
    assert!(out.len() < bytes.len(), "{codec}: {} of {}", out.len(), bytes.len());
    Some(out)
}

#[test]
fn every_size_comes_back() {
    let pool = ChunkPool::default();
    // Nothing, a byte, both sides of every chunk and block, and 15 MB.
    for len in [0, 1, 100, 1017, 1018, 17_400, 32_768, 65_535, 65_536, 65_537, 300_000, 15 << 20] {
        let bytes = lines(len);
        for codec in if len > 1 << 20 { all().split_off(1) } else { codecs() } {
            match compressed(&pool, codec, &bytes) {
                None => assert!(len <= 100, "{codec}: {len} bytes of text did not get smaller"),
                Some(packed) => {
                    let back = decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
                    assert!(back.as_ref() == bytes, "{codec}: {len} bytes came back changed");
                }
            }
        }
    }
}

#[test]
fn incompressible_is_sent_as_it_is() {
    let pool = ChunkPool::default();
    for codec in codecs() {
        for len in [1, 10, 1000, 100_000] {
            assert_eq!(compressed(&pool, codec, &noise(len)), None, "{codec}: {len}");
        }
    }
}

#[test]
fn noise_in_the_middle_of_text_comes_back() {
    let pool = ChunkPool::default();
    let bytes = [lines(200_000), noise(150_000), lines(200_000)].concat();
    for codec in codecs() {
        let packed = compressed(&pool, codec, &bytes).unwrap();
        let back = decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
        assert!(back.as_ref() == bytes, "{codec}");
    }
}

#[test]
fn a_bomb_ends_at_the_exact_limit() {
    let pool = ChunkPool::default();
    let zeros = vec![0; 8 << 20];
    for codec in codecs() {
        let packed = compressed(&pool, codec, &zeros).unwrap();
        for limit in [0, 1, 1000, 65_536, zeros.len() - 1] {
            let result = decompress(codec.bits(), &pool, &packed, limit).map(|out| out.len());
            assert_eq!(result, Err(DecompressError::OverLimit), "{codec}: {limit}");
        }
        let whole = decompress(codec.bits(), &pool, &packed, zeros.len()).unwrap();
        assert_eq!(whole.len(), zeros.len(), "{codec}");
    }
}

#[test]
fn cut_anywhere_is_damage() {
    let pool = ChunkPool::default();
    let bytes = lines(3_000);
    for codec in codecs() {
        let packed = compressed(&pool, codec, &bytes).unwrap();
        for cut in 0..packed.len() {
            // Snappy's framing does not say how many blocks there are, and a frame of lz4 that ends
            // in its header is none: what is missing shows in the batch's record count.
            if let Ok(out) = decompress(codec.bits(), &pool, &packed[..cut], LIMIT) {
                assert!(out.len() < bytes.len(), "{codec}: cut at {cut}");
            }
        }
    }
}

#[test]
fn several_streams_in_a_row_are_read() {
    let pool = ChunkPool::default();
    let (a, b) = (lines(100_000), lines(70_000));
    // Blocks of snappy-java have one header for all.
    for codec in codecs().into_iter().filter(|codec| codec.bits() != 2) {
        let both = [compressed(&pool, codec, &a).unwrap(), compressed(&pool, codec, &b).unwrap()];
        let back = decompress(codec.bits(), &pool, &both.concat(), LIMIT).unwrap();
        assert!(back.as_ref() == [&a[..], &b].concat(), "{codec}");
    }
}

#[cfg(feature = "snappy")]
#[test]
fn a_raw_snappy_block_is_read() {
    let pool = ChunkPool::default();
    let bytes = lines(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
    assert!(decompress(2, &pool, &raw, LIMIT).unwrap().as_ref() == bytes);
    let error = decompress(2, &pool, &raw, bytes.len() - 1).unwrap_err();
    assert_eq!(error, DecompressError::OverLimit);
    // A claim of 4 GiB in five bytes.
    let error = decompress(2, &pool, &[0xff, 0xff, 0xff, 0xff, 0x0f], LIMIT).unwrap_err();
    assert_eq!(error, DecompressError::Damaged);
}

#[test]
fn names_and_levels() {
    for codec in codecs() {
        assert_eq!(codec.to_string().parse::<Compression>().unwrap(), codec);
        codec.check().unwrap();
    }
    assert_eq!("none".parse::<Compression>().unwrap(), Compression::None);
    for wrong in ["", "lzma", "LZ4", "lz4:3", "gzip:", "gzip:x", "gzip:0", "gzip:10", "zstd:23"] {
        let error = wrong.parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "'{wrong}'");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics_nor_exceeds(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        to: u8,
        head in any::<[u8; 3]>(),
        use_head: bool,
    ) {
        let pool = ChunkPool::default();
        let codec = *which.get(&codecs());
        let mut packed = compressed(&pool, codec, &lines(20_000)).unwrap();
        let at = at.index(packed.len());
        packed[at] = to;
        if use_head {
            packed[4..7].copy_from_slice(&head);
        }
        if let Ok(out) = decompress(codec.bits(), &pool, &packed, 1 << 20) {
            prop_assert!(out.len() <= 1 << 20);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bits in 1i16..8, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let pool = ChunkPool::default();
        if let Ok(out) = decompress(bits, &pool, &bytes, 1 << 20) {
            prop_assert!(out.len() <= 1 << 20);
        }
    }

    #[test]
    fn any_mix_comes_back(bytes in proptest::collection::vec(0u8..4, 0..100_000)) {
        let pool = ChunkPool::default();
        for codec in all().into_iter().skip(1) {
            if let Some(packed) = compressed(&pool, codec, &bytes) {
                let back = decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
                prop_assert!(back.as_ref() == bytes, "{}", codec);
            }
        }
    }
}

/// What codecs keep between batches is of no batch's level.
#[test]
fn a_level_is_the_batchs_own() {
    let text = lines(60_000);
    let shared = ChunkPool::default();
    let mut sizes = std::collections::BTreeSet::new();
    let mut levels: Vec<Compression> = Vec::new();
    #[cfg(feature = "gzip")]
    levels.extend([1, 9].map(|level| Compression::Gzip { level }));
    #[cfg(feature = "zstd")]
    levels.extend([-7, 19].map(|level| Compression::Zstd { level }));
    for codec in levels.iter().chain(&levels) {
        let alone = compressed(&ChunkPool::default(), *codec, &text).unwrap();
        assert!(compressed(&shared, *codec, &text).unwrap() == alone, "{codec}");
        sizes.insert(alone.len());
    }
    assert_eq!(sizes.len(), levels.len(), "levels differ in what they make of it");
}

/// A reader that knows the size of a frame needs no window beside it.
#[cfg(feature = "zstd")]
#[test]
fn a_frame_of_zstd_says_its_size() {
    let text = lines(60_000);
    let frame = compressed(&ChunkPool::default(), Compression::ZSTD, &text).unwrap();
    let said = ::zstd::zstd_safe::get_frame_content_size(&frame);
    assert_eq!(said.ok().flatten(), Some(60_000));
}

/// As many contexts are kept as threads seal at a time, and none where nobody does.
#[cfg(feature = "gzip")]
#[test]
fn a_few_contexts_are_kept_for_a_while() {
    fn nested(contexts: &Contexts, depth: usize) {
        if depth > 0 {
            let make = || gzip::Deflate::new(1);
            contexts.deflate.lend(make, |_| nested(contexts, depth - 1));
        }
    }
    let pool = ChunkPool::default();
    nested(pool.contexts(), 3);
    assert_eq!(pool.contexts().deflate.kept(), 3);
    nested(pool.contexts(), 9);
    assert_eq!(pool.contexts().deflate.kept(), contexts::KEEP);
    drop(pool.get(1));
    pool.trim();
    assert_eq!(pool.contexts().deflate.kept(), contexts::KEEP, "its buffers were used just now");
    pool.trim();
    assert_eq!(pool.contexts().deflate.kept(), 0);
}

/// A frame as this crate writes none: it says how long its content is.
fn lz4_frame(blocks: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x68, 0x40];
    frame.extend((blocks.concat().len() as u64).to_le_bytes());
    frame.push(0);
    for block in blocks {
        frame.extend((block.len() as u32 | 1 << 31).to_le_bytes());
        frame.extend(*block);
    }
    frame.extend([0; 4]);
    frame
}

#[cfg(feature = "lz4")]
#[test]
fn lz4_frames_may_tell_their_size_and_hold_blocks_as_they_are() {
    let pool = ChunkPool::default();
    let bits = Compression::Lz4.bits();
    let frame = lz4_frame(&[b"stored as ", b"it is"]);
    let back = decompress(bits, &pool, &frame, LIMIT).unwrap();
    assert_eq!(back.as_ref(), b"stored as it is");
    for limit in [0, 9, 10, 14] {
        let result = decompress(bits, &pool, &frame, limit).map(|out| out.len());
        assert_eq!(result, Err(DecompressError::OverLimit), "{limit}");
    }
    assert!(decompress(bits, &pool, &frame, 15).is_ok());
}

#[cfg(feature = "lz4")]
#[test]
fn lz4_stores_a_block_that_does_not_shrink() {
    let pool = ChunkPool::default();
    let bytes = [lines(200_000), noise(200_000), lines(200_000)].concat();
    let packed = compressed(&pool, Compression::Lz4, &bytes).unwrap();
    let (mut at, mut stored) = (7, 0);
    while packed[at..at + 4] != [0; 4] {
        let size = u32::from_le_bytes(packed[at..at + 4].try_into().unwrap());
        let len = (size & !(1 << 31)) as usize;
        assert!(len <= 64 << 10, "{len}: a reader may refuse what is larger than a block");
        stored += usize::from(len as u32 != size);
        at += 4 + len;
    }
    assert!((2..=4).contains(&stored), "{stored}");
}

#[test]
fn frames_in_a_row_are_read_to_the_last() {
    let pool = ChunkPool::default();
    for codec in codecs() {
        if codec.bits() == 2 {
            continue; // Snappy has no frames of its own.
        }
        let (one, two) = (lines(3_000), lines(70_000));
        let mut packed = compressed(&pool, codec, &one).unwrap();
        packed.extend(compressed(&pool, codec, &two).unwrap());
        let back = decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
        assert!(back.as_ref() == [one, two].concat(), "{codec}");
    }
}

#[test]
fn what_stays_as_large_is_of_no_use() {
    let pool = ChunkPool::default();
    let input = chunks(&pool, &noise(100));
    for (written, is_used) in [(99, true), (100, false)] {
        let mut out = Output::new(&pool, &input);
        out.push(&noise(written));
        assert_eq!(out.finish().is_some(), is_used, "{written} bytes of 100");
    }
}
