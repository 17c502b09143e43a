use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::writer::{NO_PRODUCER, put_record, wrap};

const MAX: usize = 1 << 20;

fn rules(max_message_bytes: usize) -> Rules {
    Rules { max_message_bytes, compacted: false, latest_timestamp: i64::MAX }
}

fn judge(batch: &[u8]) -> Result<BatchHeader, Refusal> {
    check(batch, rules(MAX), Depth::Records, &mut Vec::new())
}

fn refused(batch: &[u8]) -> i16 {
    match judge(batch) {
        Ok(header) => panic!("accepted {header:?}"),
        Err(refusal) => refusal.code,
    }
}

/// Three records: key and value, no key, tombstone.
fn payload() -> BytesMut {
    let mut payload = BytesMut::new();
    put_record(&mut payload, 0, Some(b"key"), Some(b"value"));
    put_record(&mut payload, 1, None, Some(&[b'v'; 300]));
    put_record(&mut payload, 2, Some(b""), None);
    payload
}

fn plain() -> BytesMut {
    BytesMut::from(wrap(&payload(), 3, 0, (77, 2, i32::MAX - 1)))
}

/// Gives an edited batch a length and a CRC that fit again.
fn reseal(batch: &mut BytesMut) {
    let len = (batch.len() - LENGTH_PREFIX) as i32;
    batch[8..12].copy_from_slice(&len.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn edited(edit: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut batch = plain();
    edit(&mut batch);
    reseal(&mut batch);
    batch
}

#[test]
fn records_come_out_as_they_went_in() {
    let header = judge(&plain()).expect("a good batch");
    assert_eq!((header.producer_id, header.producer_epoch, header.record_count), (77, 2, 3));
    let records = decode(&plain().freeze(), 1000, 5).expect("a good batch");
    let parts: Vec<_> = records
        .iter()
        .map(|one| (one.offset, one.sequence, one.key.as_deref(), one.value.as_deref()))
        .collect();
    // Sequences start over behind the largest number.
    assert_eq!(
        parts,
        [
            (1000, i32::MAX - 1, Some(&b"key"[..]), Some(&b"value"[..])),
            (1001, i32::MAX, None, Some(&[b'v'; 300][..])),
            (1002, 0, Some(&b""[..]), None),
        ]
    );
    assert!(records.iter().all(|one| one.leader_epoch == 5 && one.producer_epoch == 2));
    let anonymous = decode(&wrap(&payload(), 3, 0, NO_PRODUCER), 0, 0).expect("a good batch");
    assert!(anonymous.iter().all(|one| one.sequence == -1));
}

#[test]
fn headers_keep_their_order_and_repeated_names() {
    let mut body = BytesMut::new();
    body.put_slice(&[0, 14, 0, 1, 1]); // attributes, 7 ms later, delta 0, no key, no value
    body.put_slice(&[6]); // three headers
    body.put_slice(&[2, b'h', 2, b'1', 2, b'h', 1, 0, 0]); // h=1, h=null, ""=""
    let mut payload = BytesMut::new();
    payload.put_u8(body.len() as u8 * 2);
    payload.put_slice(&body);
    let batch = wrap(&payload, 1, 0, NO_PRODUCER);
    judge(&batch).expect("a good batch");
    let record = &decode(&batch, 0, 0).expect("a good batch")[0];
    assert_eq!(record.timestamp, 7);
    let h = Bytes::from_static(b"h");
    assert_eq!(
        record.headers,
        [
            (h.clone(), Some(Bytes::from_static(b"1"))),
            (h, None),
            (Bytes::new(), Some(Bytes::new())),
        ]
    );
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory takes it")
}

fn snappy(data: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(data).expect("short enough")
}

/// snappy-java's framing: magic, two version numbers, blocks behind their lengths.
fn xerial(data: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in data.chunks(100).map(snappy) {
        framed.extend((block.len() as u32).to_be_bytes());
        framed.extend(block);
    }
    framed
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(data).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn every_codec_unpacks_to_the_same_records() {
    let expected = decode(&wrap(&payload(), 3, 0, NO_PRODUCER), 0, 0).expect("a good batch");
    for (name, id, packed) in [
        ("gzip", 1, gzip(&payload())),
        ("snappy", 2, snappy(&payload())),
        ("snappy, framed", 2, xerial(&payload())),
        ("lz4", 3, lz4(&payload())),
        ("zstd", 4, zstd(&payload())),
    ] {
        let batch = wrap(&packed, 3, id, NO_PRODUCER);
        judge(&batch).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(decode(&batch, 0, 0).as_ref(), Ok(&expected), "{name}");
        // The right codec under the wrong number, and a payload that ends early.
        let wrong = wrap(&packed, 3, id % 4 + 1, NO_PRODUCER);
        assert_eq!(refused(&wrong), code::CORRUPT_MESSAGE, "{name} under another number");
        let cut = wrap(&packed[..packed.len() / 2], 3, id, NO_PRODUCER);
        assert!(judge(&cut).is_err(), "{name}, cut");
    }
}

#[test]
fn a_batch_that_unpacks_to_gigabytes_is_refused() {
    // 300 MiB of zeros are 300 KiB of gzip.
    let zeros = vec![0; 300 << 20];
    let bomb = wrap(&gzip(&zeros), 1, 1, NO_PRODUCER);
    drop(zeros);
    let refusal =
        check(&bomb, rules(16 << 20), Depth::Records, &mut Vec::new()).expect_err("a bomb");
    assert_eq!(refusal.code, code::CORRUPT_MESSAGE);
    assert!(refusal.message.contains("unpacks to more than"), "{}", refusal.message);
    // A snappy block states its length in front; a false one must not be believed.
    let liar = wrap(&[0xff, 0xff, 0xff, 0x7f, 0], 1, 2, NO_PRODUCER);
    let refusal = judge(&liar).expect_err("a liar");
    assert!(refusal.message.contains("claim to unpack"), "{}", refusal.message);
}

#[test]
fn what_kafka_refuses_is_refused_with_its_code() {
    let corrupt = code::CORRUPT_MESSAGE;
    let invalid = code::INVALID_RECORD;
    let good = plain();
    assert_eq!(refused(&[]), corrupt, "nothing");
    assert_eq!(refused(&good[..HEADER_LEN - 1]), corrupt, "less than a header");
    assert_eq!(refused(&good[..good.len() - 1]), corrupt, "truncated");
    assert_eq!(refused(&[&good[..], &good[..]].concat()), invalid, "two batches");
    assert_eq!(refused(&edited(|b| b[16] = 1)), invalid, "magic 1");
    let mut short = good.clone();
    short[8..12].copy_from_slice(&(-5_i32).to_be_bytes());
    assert_eq!(refused(&short), corrupt, "negative length");
    let mut flipped = good.clone();
    flipped[HEADER_LEN + 3] ^= 1;
    assert_eq!(refused(&flipped), corrupt, "CRC");
    assert_eq!(refused(&edited(|b| b[7] = 1)), invalid, "base offset 1");
    assert_eq!(refused(&edited(|b| b[22] |= 0x20)), invalid, "control batch");
    assert_eq!(
        refused(&edited(|b| b[22] |= 5)),
        code::UNSUPPORTED_COMPRESSION_TYPE,
        "unknown codec"
    );
    assert_eq!(refused(&edited(|b| b[26] = 9)), invalid, "last offset delta");
    assert_eq!(refused(&wrap(&payload(), 2, 0, NO_PRODUCER)), invalid, "one record too many");
    assert_eq!(refused(&wrap(&payload(), 4, 0, NO_PRODUCER)), invalid, "one record too few");
    assert_eq!(refused(&wrap(&[], 0, 0, NO_PRODUCER)), invalid, "no record");
    assert_eq!(
        refused(&wrap(&[], i32::MAX, 0, NO_PRODUCER)),
        invalid,
        "records that are not there"
    );
    assert_eq!(refused(&wrap(&payload(), 3, 0, (7, 0, -1))), invalid, "id without a sequence");
    assert_eq!(refused(&wrap(&payload(), 3, 0, (7, -1, 0))), invalid, "id without an epoch");
    let small = check(&good, rules(good.len() - 1), Depth::Records, &mut Vec::new());
    assert_eq!(small.expect_err("too large").code, code::MESSAGE_TOO_LARGE);
    check(&good, rules(good.len()), Depth::Records, &mut Vec::new()).expect("large enough");
}

#[test]
fn malformed_records_are_refused() {
    let one = |body: &[u8]| {
        let mut payload = vec![body.len() as u8 * 2];
        payload.extend(body);
        judge(&wrap(&payload, 1, 0, NO_PRODUCER))
    };
    one(&[0, 0, 0, 1, 1, 0]).expect("the smallest record");
    for (what, body) in [
        ("offset delta 1", &[0, 0, 2, 1, 1, 0][..]),
        ("key beyond the record", &[0, 0, 0, 40, 1, 0]),
        ("key of length -2", &[0, 0, 0, 3, 1, 0]),
        ("value beyond the record", &[0, 0, 0, 1, 40, 0]),
        ("-1 headers", &[0, 0, 0, 1, 1, 1]),
        ("a header that is not there", &[0, 0, 0, 1, 1, 2]),
        ("a header without a key", &[0, 0, 0, 1, 1, 2, 1, 1]),
        ("a byte too many", &[0, 0, 0, 1, 1, 0, 0]),
        ("no fields", &[0]),
        ("no end of a number", &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a number beyond 32 bits", &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1, 0]),
    ] {
        let refusal = one(body).expect_err(what);
        assert_eq!(refusal.code, code::INVALID_RECORD, "{what}: {}", refusal.message);
    }
    // A record of a negative length, and one longer than the batch.
    for payload in [[1, 0, 0, 0, 1, 1, 0], [100, 0, 0, 0, 1, 1, 0]] {
        assert_eq!(refused(&wrap(&payload, 1, 0, NO_PRODUCER)), code::INVALID_RECORD);
    }
}

/// One record that claims a byte of the next, which alone would be good.
#[test]
fn a_record_ends_where_it_says() {
    let smallest = [0, 0, 0, 1, 1, 0];
    let next = [0, 0, 2, 1, 1, 0];
    let two = |claims: u8| {
        let payload = [&[claims * 2][..], &smallest, &[12], &next].concat();
        judge(&wrap(&payload, 2, 0, NO_PRODUCER)).map_err(|refusal| refusal.code)
    };
    two(6).expect("two good records");
    assert_eq!([two(5).err(), two(7).err()], [Some(code::INVALID_RECORD); 2]);
}

#[test]
fn records_that_a_topic_does_not_take_are_named_one_by_one() {
    let judge = |compacted, latest_timestamp, payload: &BytesMut, records| {
        let rules = Rules { compacted, latest_timestamp, ..rules(MAX) };
        let batch = wrap(payload, records, 0, NO_PRODUCER);
        check(&batch, rules, Depth::Records, &mut Vec::new())
    };
    // With a key, without one, with an empty one.
    judge(false, i64::MAX, &payload(), 3).expect("nothing is asked of it");
    let refusal = judge(true, i64::MAX, &payload(), 3).expect_err("one has no key");
    assert_eq!(refusal.code, code::INVALID_RECORD);
    assert_eq!(refusal.records.iter().map(|one| one.0).collect::<Vec<_>>(), [1]);
    // The first at 0 ms, without a key; the second at 7 ms, with one.
    let mut late = BytesMut::new();
    late.put_slice(&[12, 0, 0, 0, 1, 1, 0]);
    late.put_slice(&[14, 0, 14, 2, 2, b'k', 1, 0]);
    judge(false, 7, &late, 2).expect("none is later");
    let refusal = judge(false, 6, &late, 2).expect_err("the second is later");
    assert_eq!(refusal.code, code::INVALID_TIMESTAMP);
    assert_eq!(refusal.records.iter().map(|one| one.0).collect::<Vec<_>>(), [1]);
    let refusal = judge(true, 6, &late, 2).expect_err("both are wrong");
    assert_eq!(refusal.code, code::INVALID_TIMESTAMP, "whatever else is wrong");
    assert_eq!(refusal.records.iter().map(|one| one.0).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn without_record_checks_only_header_and_crc_count() {
    let wrong = wrap(&[1, 2, 3], 5, 0, NO_PRODUCER);
    assert_eq!(refused(&wrong), code::INVALID_RECORD);
    check(&wrong, rules(MAX), Depth::Header, &mut Vec::new()).expect("its header is good");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever passes with a fitting CRC can be read, to the last record.
    #[test]
    fn what_is_accepted_can_be_read(
        codec in 0..5_i16,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let packed = match codec {
            0 => payload().to_vec(),
            1 => gzip(&payload()),
            2 => xerial(&payload()),
            3 => lz4(&payload()),
            _ => zstd(&payload()),
        };
        let mut batch = BytesMut::from(wrap(&packed, 3, codec, (1, 1, 1)));
        for (at, byte) in edits {
            let at = at.index(batch.len());
            batch[at] = byte;
        }
        reseal(&mut batch);
        if let Ok(header) = judge(&batch) {
            let records = decode(&batch.freeze(), 0, 0);
            prop_assert_eq!(records.map(|list| list.len()), Ok(header.record_count as usize));
        }
    }

    /// One flipped bit behind the CRC is always found.
    #[test]
    fn a_flipped_bit_is_found(at in CRC_FROM..CRC_FROM + 340, bit in 0..8) {
        let mut batch = plain();
        let at = at.min(batch.len() - 1);
        batch[at] ^= 1_u8 << bit;
        prop_assert_eq!(judge(&batch).map_err(|refusal| refusal.code), Err(code::CORRUPT_MESSAGE));
    }
}
