//! How much memory decompression takes: no more than comes out, and nearly none for what is refused.

use std::io::Write;

use allocation_counter::measure as count_allocations;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::tests::{codecs, compressed, lines, noise};
use super::*;

/// What a consumer might allow.
const LIMIT: usize = 32 << 20;

/// A stream of zeros as some other program would write it, by name and codec bits.
fn bombs(len: usize) -> Vec<(&'static str, i16, Vec<u8>)> {
    const PIECE: usize = 1 << 20;
    fn write(mut to: impl Write, len: usize) {
        let zeros = vec![0; PIECE];
        for at in (0..len).step_by(PIECE) {
            to.write_all(&zeros[..PIECE.min(len - at)]).unwrap();
        }
        to.flush().unwrap();
    }
    let gzip = |len| {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        write(&mut to, len);
        to.finish().unwrap()
    };
    let lz4 = |mode, size| {
        let info = FrameInfo::new().block_mode(mode).block_size(size);
        let mut to = FrameEncoder::with_frame_info(info, Vec::new());
        write(&mut to, len);
        to.finish().unwrap()
    };
    let zstd = |said: Option<u64>, window_log| {
        let mut to = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        to.set_pledged_src_size(said).unwrap();
        to.window_log(window_log).unwrap();
        write(&mut to, len);
        to.finish().unwrap()
    };
    let snappy = || {
        let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for at in (0..len).step_by(PIECE) {
            let zeros = vec![0; PIECE.min(len - at)];
            let block = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
        }
        out
    };
    vec![
        ("gzip", 1, gzip(len)),
        ("gzip whose last member is small", 1, [gzip(len), gzip(10)].concat()),
        ("snappy", 2, snappy()),
        ("lz4", 3, lz4(BlockMode::Independent, BlockSize::Max64KB)),
        ("lz4 in large blocks", 3, lz4(BlockMode::Independent, BlockSize::Max4MB)),
        ("lz4 in linked blocks", 3, lz4(BlockMode::Linked, BlockSize::Max1MB)),
        ("zstd", 4, zstd(Some(len as u64), 21)),
        ("zstd that does not say its size", 4, zstd(None, 21)),
        ("zstd of the largest window", 4, zstd(None, 27)),
    ]
}

#[test]
fn a_bomb_of_300_mb_is_refused_in_a_megabyte() {
    for (name, bits, packed) in bombs(300_000_000) {
        let pool = ChunkPool::default();
        let memory = count_allocations(|| {
            assert_eq!(measure(bits, &pool, &packed, LIMIT), Err(DecompressError::OverLimit));
            let result = decompress(bits, &pool, &packed, LIMIT).map(|out| out.len());
            assert_eq!(result, Err(DecompressError::OverLimit), "{name}");
        });
        // The memory of zstd is its library's: no allocator of this program counts it.
        assert!(memory.bytes_max < 3 << 19, "{name}: {} bytes", memory.bytes_max);
        let kept = pool.contexts().unzstd.any(|context| context.sizeof()).unwrap_or(0);
        assert!(kept < 1 << 20, "{name}: {kept} bytes");
    }
}

#[test]
fn what_is_exactly_the_limit_is_taken() {
    let len = 9 << 20;
    for (name, bits, packed) in bombs(len) {
        let pool = ChunkPool::default();
        let len = if name.ends_with("is small") { len + 10 } else { len };
        assert_eq!(measure(bits, &pool, &packed, len), Ok(len), "{name}");
        assert_eq!(decompress(bits, &pool, &packed, len).map(|out| out.len()), Ok(len), "{name}");
        let over = Err(DecompressError::OverLimit);
        assert_eq!(measure(bits, &pool, &packed, len - 1), over, "{name}");
        let result = decompress(bits, &pool, &packed, len - 1).map(|out| out.len());
        assert_eq!(result, Err(DecompressError::OverLimit), "{name}");
    }
}

#[test]
fn a_large_batch_is_allocated_once() {
    let text = lines(3 << 20);
    let bytes = [&text[..], &noise(1 << 20), &text, &text].concat();
    for codec in all().split_off(1) {
        let pool = ChunkPool::default();
        let packed = compressed(&ChunkPool::default(), codec, &bytes).unwrap();
        let memory = count_allocations(|| {
            let out = decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
            assert!(out.as_ref() == bytes, "{codec}");
            assert_eq!(out.capacity(), bytes.len(), "{codec}");
        });
        let beside = memory.bytes_max as usize - bytes.len();
        assert!(beside < 1 << 20, "{codec}: {beside} bytes beside the batch");
    }
}

/// Frames of any client, several in a row: what is counted is what comes.
#[test]
fn linked_blocks_are_measured() {
    let pool = ChunkPool::default();
    let bytes = [lines(700_000), noise(100_000), lines(300_000)].concat();
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            for checksums in [false, true] {
                let mut packed = Vec::new();
                for frame in [&bytes[..], &bytes[..200_000], b"", &bytes[5..6]] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(checksums)
                        .content_checksum(checksums);
                    let mut to = FrameEncoder::with_frame_info(info, &mut packed);
                    to.write_all(frame).unwrap();
                    to.finish().unwrap();
                }
                let len = bytes.len() + 200_001;
                assert_eq!(measure(3, &pool, &packed, len), Ok(len), "{mode:?} {size:?}");
                let out = decompress(3, &pool, &packed, len).unwrap();
                let whole = [&bytes[..], &bytes[..200_000], &bytes[5..6]].concat();
                assert!(out.as_ref() == whole, "{mode:?} {size:?}");
            }
        }
    }
}

/// Whatever the batches before were like, and whatever block size a frame declares.
#[test]
fn whoever_keeps_a_batch_keeps_little_more_than_it_holds() {
    let pool = ChunkPool::default();
    let mut inputs = Vec::new();
    // Text behind zeros: the guess is far too much then.
    for len in [100, 70_000, 90_000, 264 << 10, 3 << 20] {
        for bytes in [lines(len), vec![0; len]] {
            inputs.extend(all().split_off(1).into_iter().filter_map(|codec| {
                Some((codec.bits(), bytes.clone(), compressed(&pool, codec, &bytes)?))
            }));
            let info = FrameInfo::new().block_size(BlockSize::Max4MB);
            let mut to = FrameEncoder::with_frame_info(info, Vec::new());
            to.write_all(&bytes).unwrap();
            inputs.push((3, bytes, to.finish().unwrap()));
        }
    }
    for (bits, bytes, packed) in &inputs {
        let out = decompress(*bits, &pool, packed, LIMIT).unwrap();
        assert!(out.as_ref() == bytes, "{bits}: {} bytes", bytes.len());
        let most = (bytes.len() * 2).max(64 << 10);
        assert!(out.capacity() <= most, "{bits}: {} for {}", out.capacity(), bytes.len());
    }
}

/// The largest window would be 128 MiB for as long as the process reads.
#[test]
fn a_large_window_is_not_kept() {
    let pool = ChunkPool::default();
    let bytes = noise(1 << 20);
    for (window_log, kept) in [(21, true), (27, false)] {
        pool.contexts().clear();
        let mut to = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        to.window_log(window_log).unwrap();
        to.write_all(&bytes).unwrap();
        let packed = to.finish().unwrap();
        assert!(decompress(4, &pool, &packed, LIMIT).unwrap().as_ref() == bytes);
        assert_eq!(pool.contexts().unzstd.kept() > 0, kept, "{window_log}");
    }
}

/// Something between two frames that no reader looks at, and a claim that its blocks cannot make true.
#[test]
fn what_frames_of_zstd_say_is_believed_as_far_as_it_can_be() {
    let pool = ChunkPool::default();
    let frame = compressed(&pool, Compression::ZSTD, &lines(60_000)).unwrap();
    let skipped = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let three = [&frame[..], &skipped, &frame].concat();
    assert_eq!(measure(4, &pool, &three, LIMIT), Ok(120_000));
    assert_eq!(decompress(4, &pool, &three, LIMIT).unwrap().len(), 120_000);
    // One segment of 16 MiB, and a block of 100 bytes that repeat.
    let claim = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 1, 0x23, 3, 0, b'a'];
    assert_eq!(measure(4, &pool, &claim, LIMIT), Err(DecompressError::Damaged));
    assert!(decompress(4, &pool, &claim, LIMIT).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_counted_is_what_comes(
        pieces in proptest::collection::vec((0usize..200_000, 0usize..4), 1..4),
        which in any::<prop::sample::Index>(),
        last_guess in any::<prop::sample::Index>(),
    ) {
        let pool = ChunkPool::default();
        let bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|&(len, kind)| match kind {
                0 => vec![0; len * 5],
                1 => noise(len),
                _ => lines(len),
            })
            .collect();
        let codec = *which.get(&all()[1..]);
        // Nothing, or batches that are unlike this one.
        let before = [lines(1), vec![0; 100_000], noise(100_000)];
        let before: &Vec<u8> = last_guess.get(&before);
        if let Some(packed) = compressed(&pool, codec, before) {
            decompress(codec.bits(), &pool, &packed, LIMIT).unwrap();
        }
        if let Some(packed) = compressed(&pool, codec, &bytes) {
            prop_assert_eq!(measure(codec.bits(), &pool, &packed, bytes.len()), Ok(bytes.len()));
            let back = decompress(codec.bits(), &pool, &packed, bytes.len()).unwrap();
            prop_assert!(back.as_ref() == bytes);
            let over = decompress(codec.bits(), &pool, &packed, bytes.len() - 1).map(|out| out.len());
            prop_assert_eq!(over, Err(DecompressError::OverLimit));
        }
    }

    #[test]
    fn what_frames_of_zstd_say_holds(
        pieces in proptest::collection::vec((0usize..300_000, 0usize..3, any::<bool>(), -5i32..5), 1..4),
    ) {
        let pool = ChunkPool::default();
        let mut packed = Vec::new();
        let mut len = 0;
        for (piece, kind, said, level) in pieces {
            let bytes = match kind { 0 => vec![0; piece], 1 => noise(piece), _ => lines(piece) };
            let mut to = ::zstd::stream::Encoder::new(&mut packed, level).unwrap();
            to.set_pledged_src_size(said.then_some(piece as u64)).unwrap();
            to.write_all(&bytes[..piece / 3]).unwrap();
            to.flush().unwrap();
            to.write_all(&bytes[piece / 3..]).unwrap();
            to.finish().unwrap();
            len += piece;
        }
        prop_assert_eq!(measure(4, &pool, &packed, len), Ok(len));
        if len > 0 {
            prop_assert_eq!(measure(4, &pool, &packed, len - 1), Err(DecompressError::OverLimit));
        }
        prop_assert_eq!(decompress(4, &pool, &packed, len).unwrap().len(), len);
    }

    /// Bytes that are no stream, or a damaged one: both refuse it, or it was no damage.
    #[test]
    fn damage_is_not_counted_as_more_than_the_limit(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to: u8,
    ) {
        let pool = ChunkPool::default();
        let codec = *which.get(&codecs());
        let mut packed = compressed(&pool, codec, &lines(20_000)).unwrap();
        let at = at.index(packed.len());
        packed[at] = to;
        let counted = measure(codec.bits(), &pool, &packed, 1 << 20);
        if let Ok(out) = decompress(codec.bits(), &pool, &packed, 1 << 20) {
            prop_assert_eq!(counted, Ok(out.len()));
        }
    }
}

#[test]
fn a_guess_is_what_batches_came_to_of_late() {
    let ratios = contexts::Ratios::default();
    assert_eq!(ratios.guess(3, 16), 72, "four times, and an eighth");
    ratios.learn(3, 100, 1000);
    assert_eq!((ratios.guess(3, 16), ratios.guess(4, 16)), (180, 72));
    for _ in 0..100 {
        ratios.learn(3, 100, 200);
    }
    assert_eq!(ratios.guess(3, 16), 36);
    ratios.learn(3, 1, 1 << 30);
    assert_eq!(ratios.guess(3, 16), 288, "one bomb does not make room for the next");
    ratios.learn(4, 0, 0);
    ratios.guess(4, usize::MAX);
}
