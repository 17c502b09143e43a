//! Writer and reader against each other, against known bytes, and against damage.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::CRC_START;
use super::builder::{BatchBuilder, HeaderList, SealedBatch};
use super::compression::{self, Compression};
use super::crc::crc32c;
use super::pool::ChunkPool;
use super::reader::{RawBatch, RecordError, split};

type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>, i64);

const LIMIT: usize = 16 << 20;

fn build(records: &[Owned], compression: Compression) -> SealedBatch {
    let mut builder = BatchBuilder::new(ChunkPool::default());
    for (key, value, headers, timestamp) in records {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
        let headers = HeaderList::Raw(&headers);
        builder.append(key.as_deref(), value.as_deref(), headers, *timestamp).unwrap();
        assert!(builder.capacity_reserved() >= builder.len_bytes());
    }
    builder.seal(compression).unwrap()
}

fn wire(batch: &SealedBatch) -> Bytes {
    let mut out = BytesMut::from(&batch.header(7, 3, 11)[..]);
    for segment in batch.segments() {
        out.extend_from_slice(segment);
    }
    assert_eq!(out.len(), batch.wire_len());
    out.freeze()
}

fn single(bytes: Bytes) -> RawBatch {
    let mut batches = split(bytes);
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    batch
}

fn read(raw: &RawBatch) -> Vec<Owned> {
    let batch = raw.open(&ChunkPool::default(), LIMIT).unwrap();
    let records: Vec<_> = batch
        .iter()
        .enumerate()
        .map(|(i, r)| {
            assert_eq!(r.offset(), i as i64);
            let headers = r
                .headers()
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect();
            (r.key().map(<[u8]>::to_vec), r.value().map(<[u8]>::to_vec), headers, r.timestamp_ms())
        })
        .collect();
    assert_eq!(records.len(), batch.len());
    let mut walk = batch.iter();
    for expected in batch.iter() {
        let found = batch.iter_from(walk.position()).next().unwrap();
        assert_eq!((found.offset(), found.value()), (expected.offset(), expected.value()));
        let (alone, at) = batch.detach_one(walk.position());
        let mut detached = alone.iter_from(at);
        let found = detached.next().unwrap();
        assert_eq!(
            (found.offset(), found.key(), found.value()),
            (expected.offset(), expected.key(), expected.value())
        );
        assert_eq!(found.timestamp_ms(), expected.timestamp_ms());
        assert!(found.headers().eq(expected.headers()) && detached.next().is_none());
        walk.next();
    }
    assert!(batch.iter_from(walk.position()).next().is_none());
    let (nothing, at) = batch.detach_one(walk.position());
    assert!(nothing.iter_from(at).next().is_none());
    records
}

fn record() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    // Text mostly, but nothing on the way makes others write UTF-8.
    let name = proptest::collection::vec(prop_oneof![4 => b'a'..b'd', 1 => any::<u8>()], 0..4);
    let headers = proptest::collection::vec((name, bytes()), 0..4);
    (bytes(), bytes(), headers, any::<i64>())
}

fn json(n: usize) -> Vec<Owned> {
    (0..n)
        .map(|i| {
            let value =
                format!(r#"{{"id":{i},"name":"somebody","amount":{},"ok":true}}"#, i * 7919);
            (None, Some(value.into_bytes()), vec![], 1_700_000_000_000 + i as i64)
        })
        .collect()
}

#[test]
fn bytes_as_the_protocol_defines_them() {
    let records = [
        (None, Some(b"hi".to_vec()), vec![], 1000),
        (Some(b"k".to_vec()), None, vec![(b"h".to_vec(), Some(b"v".to_vec()))], 1002),
    ];
    let batch = build(&records, Compression::None);
    let bytes = wire(&batch);
    assert_eq!(
        bytes[61..],
        [
            16, 0, 0, 0, 1, 4, b'h', b'i', 0, // length 8, ts +0, offset +0, null key, 2 bytes
            22, 0, 4, 2, 2, b'k', 1, 2, 2, b'h', 2, b'v', // length 11, ts +2, offset +1
        ]
    );
    assert_eq!(bytes[..8], [0; 8]);
    assert_eq!(bytes[8..12], (49 + 21i32).to_be_bytes());
    assert_eq!(bytes[12..17], [0xff, 0xff, 0xff, 0xff, 2]);
    assert_eq!(bytes[21..23], [0, 0]);
    assert_eq!(bytes[23..27], [0, 0, 0, 1]);
    assert_eq!(bytes[27..35], 1000i64.to_be_bytes());
    assert_eq!(bytes[35..43], 1002i64.to_be_bytes());
    assert_eq!(bytes[43..51], 7i64.to_be_bytes());
    assert_eq!(bytes[51..61], [0, 3, 0, 0, 0, 11, 0, 0, 0, 2]);
}

#[test]
fn an_empty_batch_does_not_exist() {
    assert!(BatchBuilder::new(ChunkPool::default()).seal(Compression::None).is_none());
}

#[test]
fn a_record_larger_than_every_chunk() {
    let records = vec![
        (None, Some(vec![1; 10]), vec![], 0),
        (None, Some(vec![2; 9 << 20]), vec![], 0),
        (None, Some(vec![3; 10]), vec![], 0),
    ];
    let batch = build(&records, Compression::None);
    assert_eq!(batch.segments().len(), 3);
    assert_eq!(read(&single(wire(&batch))), records);
}

/// Records that are written by registers and those that are not, next to each other: on both sides
/// of every length, index and size that decides which it is.
#[test]
fn every_way_of_writing_a_record_reads_the_same() {
    let now = 1_700_000_000_000;
    let some = |len: usize| Some((0..len).map(|i| i as u8).collect::<Vec<_>>());
    let mut records: Vec<Owned> = Vec::new();
    for len in
        [0, 1, 50, 52, 53, 54, 55, 56, 63, 64, 65, 127, 128, 7_900, 7_999, 8_000, 8_001, 9_000]
    {
        for key in [None, some(0), some(3), some(63), some(64), some(200)] {
            records.push((key.clone(), some(len), vec![], now));
            records.push((key, None, vec![], now));
            records.push((some(len), some(1), vec![], now));
        }
        records.push((None, some(len), vec![(b"h".to_vec(), some(2))], now));
        records.push((None, some(len), vec![], now - 1));
        records.push((None, some(len), vec![], now + 70));
    }
    // Past the indices of two bytes.
    records.extend((0..9_000).map(|_| (None, some(1), vec![], now)));
    let batch = build(&records, Compression::None);
    let raw = single(wire(&batch));
    assert_eq!((raw.base_timestamp, raw.max_timestamp), (now, now + 70));
    assert!(read(&raw) == records);
}

/// Registers are written whole, and more than a record has may not fit behind it.
#[test]
fn a_small_record_goes_wherever_the_chunk_ends() {
    let some = |len: usize| Some(vec![7; len]);
    for first in 900..1_020 {
        for small in [(None, some(1)), (some(3), None), (some(0), some(0)), (some(2), some(70))] {
            let (key, value) = small;
            let records = vec![(None, some(first), vec![], 5), (key, value, vec![], 5)];
            assert_eq!(read(&single(wire(&build(&records, Compression::None)))), records);
        }
    }
}

#[test]
fn header_can_be_rewritten_for_another_epoch() {
    let batch = build(&json(3), Compression::None);
    for (id, epoch, sequence) in [(-1, -1, -1), (7, 0, 0), (i64::MAX, i16::MAX, i32::MAX)] {
        let mut bytes = BytesMut::from(&batch.header(id, epoch, sequence)[..]);
        batch.segments().iter().for_each(|segment| bytes.extend_from_slice(segment));
        let expected = [&id.to_be_bytes()[..], &epoch.to_be_bytes(), &sequence.to_be_bytes()];
        assert_eq!(bytes[43..57], expected.concat());
        single(bytes.freeze()).verify_crc().unwrap();
    }
}

#[test]
fn damage_is_noticed_by_the_checksum() {
    let mut bytes = wire(&build(&json(3), Compression::None)).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let result = single(bytes.into()).verify_crc();
    assert!(matches!(result, Err(RecordError::Checksum { base_offset: 0, .. })), "{result:?}");
}

#[test]
fn a_batch_cut_anywhere_ends_the_iteration() {
    let one = wire(&build(&json(2), Compression::None));
    for cut in 0..one.len() {
        let mut both = BytesMut::from(&one[..]);
        both.extend_from_slice(&one[..cut]);
        let batches: Vec<_> = split(both.freeze()).collect();
        assert_eq!(batches.len(), 1, "cut at {cut}");
        assert!(batches[0].is_ok());
    }
}

#[test]
fn a_payload_cut_anywhere_is_an_error() {
    let raw = single(wire(&build(&json(2), Compression::None)));
    for cut in 0..raw.payload().len() {
        let short = raw.with_payload(raw.codec, &raw.payload()[..cut]);
        assert!(short.open(&ChunkPool::default(), LIMIT).is_err(), "cut at {cut}");
    }
}

#[test]
fn hostile_headers_are_typed_errors() {
    let good = wire(&build(&json(2), Compression::None));
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = good.to_vec();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        split(damaged.into()).next()
    };
    for magic in [3, 255] {
        let got = with(16, &[magic]);
        assert!(matches!(got, Some(Err(RecordError::Magic { .. }))), "{got:?}");
    }
    for magic in [0u8, 1] {
        let got = with(16, &[magic]);
        assert!(matches!(got, Some(Err(RecordError::Header { .. }))), "{got:?}");
    }
    for length in [-1, i32::MIN, 0, 48] {
        let got = with(8, &i32::to_be_bytes(length));
        assert!(matches!(got, Some(Err(RecordError::Header { .. }))), "{length}: {got:?}");
    }
    assert!(with(8, &i32::MAX.to_be_bytes()).is_none(), "cut short by the response's limit");
    assert!(matches!(with(57, &(-1i32).to_be_bytes()), Some(Err(RecordError::Header { .. }))));
    let many = with(57, &i32::MAX.to_be_bytes()).unwrap().unwrap();
    let result = many.open(&ChunkPool::default(), LIMIT);
    assert!(matches!(result, Err(RecordError::Header { .. })), "{result:?}");
    let none = with(22, &[7]).unwrap().unwrap();
    let error = none.open(&ChunkPool::default(), LIMIT).unwrap_err();
    assert!(error.to_string().contains("unsupported compression unknown"), "{error}");
}

#[cfg(feature = "lz4")]
mod lz4 {
    //! What is special about its frames; what every codec must do is in `compression/tests.rs`.

    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    #[test]
    fn other_decoders_read_our_frames() {
        use std::io::Read;
        let raw = single(wire(&build(&json(5000), Compression::Lz4)));
        let mut theirs = Vec::new();
        lz4_flex::frame::FrameDecoder::new(raw.payload()).read_to_end(&mut theirs).unwrap();
        let plain = single(wire(&build(&json(5000), Compression::None)));
        assert!(theirs == plain.payload());
    }

    fn frames(plain: &[u8], info: FrameInfo, pieces: usize) -> Bytes {
        let mut out = Vec::new();
        for piece in plain.chunks(plain.len().div_ceil(pieces)) {
            let mut encoder = FrameEncoder::with_frame_info(info.clone(), &mut out);
            encoder.write_all(piece).unwrap();
            encoder.finish().unwrap();
        }
        out.into()
    }

    #[test]
    fn frames_of_any_client() {
        let records = json(20_000);
        let plain = single(wire(&build(&records, Compression::None)));
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
                for (blocks, content) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    for pieces in [1, 3] {
                        let info = FrameInfo::new()
                            .block_mode(mode)
                            .block_size(size)
                            .block_checksums(blocks)
                            .content_checksum(content);
                        let payload = frames(plain.payload(), info, pieces);
                        let raw = plain.with_payload(3, payload);
                        assert!(read(&raw) == records, "{mode:?} {size:?} {blocks} {content}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_a_typed_error_at_the_exact_limit() {
        let plain = single(wire(&build(&json(1), Compression::None)));
        let zeros = vec![0; 8 << 20];
        for checksum in [false, true] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                let info = FrameInfo::new().block_mode(mode).content_checksum(checksum);
                let payload = frames(&zeros, info, 1);
                let raw = plain.with_payload(3, payload);
                for limit in [0, 1, 1000, 65_536, zeros.len() - 1] {
                    let result = raw.open(&ChunkPool::default(), limit);
                    assert!(
                        matches!(result, Err(RecordError::OverLimit { .. })),
                        "{limit}: {result:?}"
                    );
                }
                let result = raw.open(&ChunkPool::default(), zeros.len());
                assert!(!matches!(result, Err(RecordError::OverLimit { .. })), "{result:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn damaged_frames_never_panic_nor_exceed(
            at in any::<prop::sample::Index>(), to: u8, head in any::<[u8; 3]>(), use_head: bool,
        ) {
            let raw = single(wire(&build(&json(200), Compression::Lz4)));
            let mut payload = raw.payload().to_vec();
            let at = at.index(payload.len());
            payload[at] = to;
            if use_head {
                payload[4..7].copy_from_slice(&head);
            }
            let raw = raw.with_payload(raw.codec, payload);
            if let Ok(batch) = raw.open(&ChunkPool::default(), 1 << 20) {
                prop_assert!(batch.payload_len() <= 1 << 20);
                prop_assert_eq!(batch.iter().count(), batch.len());
            }
        }
    }
}

proptest! {
    #[test]
    fn round_trip(records in proptest::collection::vec(record(), 1..60)) {
        for compression in compression::all() {
            let batch = build(&records, compression);
            prop_assert_eq!(batch.records(), records.len());
            let bytes = wire(&batch);
            // The combined checksum is that of the whole.
            let whole = crc32c(&bytes[CRC_START..]);
            prop_assert_eq!(&bytes[17..21], &whole.to_be_bytes()[..]);
            let raw = single(bytes);
            raw.verify_crc().unwrap();
            prop_assert_eq!(raw.max_timestamp, records.iter().map(|r| r.3).max().unwrap());
            prop_assert_eq!(raw.base_timestamp, records[0].3);
            prop_assert_eq!(&read(&raw), &records);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), fix: bool) {
        if fix && bytes.len() > 61 {
            let length = (bytes.len() - 12) as i32;
            bytes[0] &= 0x7f;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            bytes[23] &= 0x7f;
            bytes[57..60].copy_from_slice(&[0; 3]);
        }
        for raw in split(bytes.into()).flatten() {
            if let Ok(batch) = raw.open(&ChunkPool::default(), 1 << 20) {
                prop_assert_eq!(batch.iter().count(), batch.len());
            }
        }
    }

    #[test]
    fn damaged_records_never_panic(at in any::<prop::sample::Index>(), to: u8) {
        let raw = single(wire(&build(&json(20), Compression::None)));
        let mut payload = raw.payload().to_vec();
        let at = at.index(payload.len());
        payload[at] = to;
        let raw = raw.with_payload(raw.codec, payload);
        if let Ok(batch) = raw.open(&ChunkPool::default(), LIMIT) {
            prop_assert_eq!(batch.iter().count(), batch.len());
            prop_assert!(batch.iter().all(|r| r.headers().count() == r.headers().len()));
        }
    }
}

/// One batch whose header has other bytes at a place.
fn with_header(good: &Bytes, at: usize, bytes: &[u8]) -> Result<RawBatch, RecordError> {
    let mut damaged = good.to_vec();
    damaged[at..at + bytes.len()].copy_from_slice(bytes);
    split(damaged.into()).next().expect("it is whole")
}

#[test]
fn each_field_of_a_header_is_read_or_refused() {
    let good = wire(&build(&json(3), Compression::None));
    let header = |at, bytes: &[u8]| with_header(&good, at, bytes);
    let refused =
        |result: Result<RawBatch, RecordError>| matches!(result, Err(RecordError::Header { .. }));
    assert!(refused(header(0, &(-1i64).to_be_bytes())), "an offset below zero");
    assert!(refused(header(23, &(-1i32).to_be_bytes())), "it ends before it begins");
    assert!(refused(header(57, &(-1i32).to_be_bytes())), "less than no records");
    // Three records: the last offset has to have one behind it.
    assert!(refused(header(0, &(i64::MAX - 2).to_be_bytes())));
    assert_eq!(header(0, &(i64::MAX - 3).to_be_bytes()).unwrap().last_offset, i64::MAX - 1);
    // Bit 4 says that it is part of a transaction, bit 5 that it is the transaction's marker.
    for bits in [0, 16, 32, 48] {
        let raw = header(22, &[bits]).unwrap();
        assert_eq!((raw.transactional, raw.control), (bits & 16 != 0, bits & 32 != 0), "{bits}");
    }
    assert_eq!(header(43, &9i64.to_be_bytes()).unwrap().producer_id, 9);
    assert_eq!(header(12, &7i32.to_be_bytes()).unwrap().leader_epoch, 7);

    let open = |raw: RawBatch| raw.open(&ChunkPool::default(), LIMIT);
    let damaged = |raw| matches!(open(raw), Err(RecordError::Record { .. }));
    // The header ends before the last record does, or knows of fewer.
    assert!(damaged(header(23, &1i32.to_be_bytes()).unwrap()));
    let fewer = open(header(57, &2i32.to_be_bytes()).unwrap());
    assert!(matches!(fewer, Err(RecordError::Header { .. })), "{fewer:?}");
    assert!(damaged(header(57, &4i32.to_be_bytes()).unwrap()));
    // Compaction leaves a header that ends later than its records.
    let batch = open(header(23, &9i32.to_be_bytes()).unwrap()).unwrap();
    assert_eq!((batch.len(), batch.last_offset()), (3, 9));
    // Bit 3: the broker has set the time of all, which the largest timestamp is then.
    let mut appended = header(22, &[8]).unwrap();
    appended.max_timestamp = 77;
    assert!(open(appended).unwrap().iter().all(|record| record.timestamp_ms() == 77));
}

#[test]
fn each_field_of_a_record_is_bounded() {
    let raw = single(wire(&build(&[(None, None, vec![], 0)], Compression::None)));
    let reads = |payload: &[u8]| {
        let raw = raw.with_payload(0, payload);
        raw.open(&ChunkPool::default(), LIMIT).is_ok()
    };
    // Length, attributes, time, offset, key, value, headers; a length of -1 is null.
    assert!(reads(&[12, 0, 0, 0, 1, 1, 0]));
    assert!(reads(&[12, 0, 0, 0, 0, 0, 0]));
    assert!(reads(&[16, 0, 0, 0, 1, 1, 2, 0, 1]), "a header with an empty name, without a value");
    for (payload, what) in [
        (&[12, 0, 0, 0, 3, 1, 0][..], "a key of -2 bytes"),
        (&[12, 0, 0, 0, 1, 3, 0], "a value of -2 bytes"),
        (&[12, 0, 0, 0, 1, 5, 0], "a value of -3 bytes"),
        (&[12, 0, 0, 0, 1, 1, 1], "-1 headers"),
        (&[16, 0, 0, 0, 1, 1, 4, 0, 1], "one header, and not two"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], "a header without a name"),
        (&[16, 0, 0, 0, 1, 1, 2, 0, 3], "a header's value of -2 bytes"),
        (&[16, 0, 0, 0, 1, 1, 2, 3, 1], "a header's name of -2 bytes"),
        (&[14, 0, 0, 0, 1, 1, 0, 9], "something behind no headers"),
        (&[18, 0, 0, 0, 1, 1, 2, 0, 1, 9], "something behind the headers"),
        (&[10, 0, 0, 0, 1, 1, 0], "shorter than it is"),
        (&[14, 0, 0, 0, 1, 1, 0], "longer than it is"),
        (&[12, 0, 0, 2, 1, 1, 0], "an offset behind the last"),
        (&[12, 0, 0, 1, 1, 1, 0], "an offset before the first"),
        (&[1, 0, 0, 0, 1, 1, 0], "a length of -1"),
    ] {
        assert!(!reads(payload), "{what}");
    }
    // The longest number that there is, one that has a bit too many, and one that has a byte too many.
    let time = |last: &[u8]| {
        [&[12 + 2 * (8 + last.len() as u8), 0][..], &[0xff; 9], last, &[0, 1, 1, 0]].concat()
    };
    assert!(reads(&time(&[1])));
    assert!(!reads(&time(&[2])));
    assert!(!reads(&time(&[0x81, 0])));
}
