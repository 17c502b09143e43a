//! Message sets as producers from before Kafka 0.11 wrote them, read as batches.

use proptest::prelude::*;

use super::*;
use crate::record::reader::split;

const LIMIT: usize = 1 << 20;

type Record = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// One message as it is on the wire.
fn wire(
    offset: i64,
    format: u8,
    attributes: u8,
    timestamp: i64,
    fields: [Option<&[u8]>; 2],
) -> Vec<u8> {
    let mut body = vec![format, attributes];
    if format == 1 {
        body.extend(timestamp.to_be_bytes());
    }
    for field in fields {
        body.extend(field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        body.extend(field.unwrap_or_default());
    }
    let mut out = offset.to_be_bytes().to_vec();
    out.extend((body.len() as i32 + 4).to_be_bytes());
    out.extend(crc_fast::crc32_iso_hdlc(&body).to_be_bytes());
    out.extend(body);
    out
}

fn plain(offset: i64, format: u8) -> Vec<u8> {
    let value = format!("v{offset}");
    wire(offset, format, 0, 1_000 + offset, [Some(b"k"), Some(value.as_bytes())])
}

fn read(bytes: &[u8]) -> Vec<Result<Vec<Record>, RecordError>> {
    let pool = ChunkPool::default();
    let batches = split(Bytes::copy_from_slice(bytes)).map(|raw| {
        let raw = raw?;
        raw.verify_crc()?;
        let batch = raw.open(&pool, LIMIT)?;
        assert_eq!(batch.last_offset(), raw.last_offset);
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Ok(batch
            .iter()
            .map(|r| (r.offset(), r.timestamp_ms(), owned(r.key()), owned(r.value())))
            .collect())
    });
    batches.collect()
}

fn offsets(bytes: &[u8]) -> Vec<Vec<i64>> {
    let offset = |records: Vec<Record>| records.iter().map(|record| record.0).collect();
    read(bytes).into_iter().map(|batch| offset(batch.unwrap())).collect()
}

#[test]
fn messages_that_are_not_compressed_make_batches() {
    // Compaction leaves holes.
    let set = [plain(5, 0), plain(6, 0), plain(9, 0), plain(10, 1), plain(11, 1)].concat();
    assert_eq!(offsets(&set), [vec![5, 6, 9], vec![10, 11]]);
    let all: Vec<Record> = read(&set).into_iter().flat_map(Result::unwrap).collect();
    let field = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(all[0], (5, -1, field("k"), field("v5")), "format 0 knows no time");
    assert_eq!(all[3], (10, 1_010, field("k"), field("v10")));
    // Null is not empty.
    let set = [wire(0, 1, 0, 7, [None, Some(b"")]), wire(1, 1, 0, 3, [Some(b""), None])].concat();
    let all = read(&set).remove(0).unwrap();
    assert_eq!(all, [(0, 7, None, Some(vec![])), (1, 3, Some(vec![]), None)]);
    // A response ends anywhere.
    let set = [plain(5, 1), plain(6, 1)].concat();
    for cut in 0..plain(5, 1).len() {
        assert!(offsets(&set[..cut]).is_empty(), "{cut}");
        assert_eq!(offsets(&set[..set.len() - 1 - cut]), [[5]], "{cut}");
    }
}

#[test]
fn a_batch_of_them_is_bounded() {
    let value = vec![7; 30 << 10];
    let set: Vec<u8> = (0..10).flat_map(|at| wire(at, 1, 0, 0, [None, Some(&value)])).collect();
    assert_eq!(offsets(&set), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8], vec![9]]);
}

#[cfg(feature = "gzip")]
mod compressed {
    use std::io::Write;

    use super::*;

    const GZIP: u8 = 1;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    fn outer(offset: i64, format: u8, attributes: u8, set: &[Vec<u8>]) -> Vec<u8> {
        wire(offset, format, GZIP | attributes, 77, [None, Some(&gzip(&set.concat()))])
    }

    #[test]
    fn offsets_inside_are_of_the_log_in_format_0_and_of_the_set_in_format_1() {
        let set = [outer(7, 0, 0, &[plain(5, 0), plain(7, 0)]), plain(8, 0)].concat();
        assert_eq!(offsets(&set), [vec![5, 7], vec![8]]);
        let set = outer(9, 1, 0, &[plain(0, 1), plain(2, 1)]);
        assert_eq!(offsets(&set), [[7, 9]]);
        let times = |set: &[u8]| {
            let records = read(set).remove(0).unwrap();
            records.iter().map(|record| record.1).collect::<Vec<_>>()
        };
        assert_eq!(times(&set), [1_000, 1_002]);
        assert_eq!(times(&outer(9, 1, APPEND_TIME, &[plain(0, 1), plain(2, 1)])), [77, 77]);
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        let refused = [
            outer(9, 1, 0, &[]),
            // A set within a set, another format, offsets that do not rise, before the log's first.
            outer(9, 1, 0, &[outer(0, 1, 0, &[plain(0, 1)])]),
            outer(9, 1, 0, &[plain(0, 0)]),
            outer(9, 1, 0, &[plain(1, 1), plain(1, 1)]),
            outer(1, 1, 0, &[plain(0, 1), plain(2, 1)]),
            outer(9, 1, 0, &[plain(0, 1)[1..].to_vec()]),
            // Behind what the outer one says.
            outer(9, 0, 0, &[plain(9, 0), plain(10, 0)]),
            outer(9, 0, 0, &[wire(i64::MAX, 0, 0, 1, [None, Some(b"v")])]),
            wire(9, 1, GZIP, 0, [None, None]),
            wire(9, 1, GZIP, 0, [None, Some(b"no gzip")]),
        ];
        for set in refused {
            let got = read(&set).remove(0);
            assert_eq!(got, Err(RecordError::Decompress { base_offset: 9.min(set[7].into()) }));
        }
        let bomb = outer(9, 1, 0, &[wire(0, 1, 0, 0, [None, Some(&vec![0; LIMIT])])]);
        assert_eq!(read(&bomb), [Err(RecordError::OverLimit { base_offset: 9, limit: LIMIT })]);
    }

    /// However many messages there are: what they are decompressed into is counted, and what they are written into, and
    /// neither is more than the limit.
    #[test]
    fn what_they_take_on_the_way_is_counted() {
        let owned = |messages: usize| {
            let messages: Vec<_> =
                (0..messages as i64).map(|at| wire(at, 0, 0, 0, [None, None])).collect();
            let set = outer(messages.len() as i64 - 1, 0, 0, &messages);
            let raw = split(set.into()).next().unwrap().unwrap();
            let sizes = std::cell::RefCell::new(Vec::new());
            let own = |chunk: Chunk| {
                sizes.borrow_mut().push(chunk.capacity());
                chunk.freeze()
            };
            let opened = raw.open_as(&ChunkPool::default(), LIMIT, own);
            let counts = opened.map(|batch| (batch.len(), batch.iter().count()));
            (counts, sizes.into_inner())
        };
        let least = wire(0, 0, 0, 0, [None, None]).len();
        let most = LIMIT / least;
        let (counts, sizes) = owned(most);
        assert_eq!(counts, Ok((most, most)));
        let [decompressed, written] = sizes[..] else { panic!("{sizes:?}") };
        assert!(decompressed >= most * least && written <= decompressed, "{sizes:?}");
        let (counts, sizes) = owned(most + 1);
        let over = RecordError::OverLimit { base_offset: most as i64, limit: LIMIT };
        assert_eq!((counts, sizes), (Err(over), vec![]));
    }

    /// A batch of format 2 says how far a record is from the first in 31 bits.
    #[test]
    fn offsets_that_are_too_far_apart_are_refused() {
        let far = i64::from(i32::MAX);
        assert_eq!(
            offsets(&outer(9 + far, 0, 0, &[plain(9, 0), plain(9 + far, 0)])),
            [[9, 9 + far]]
        );
        let set = outer(10 + far, 0, 0, &[plain(9, 0), plain(10, 0), plain(10 + far, 0)]);
        assert_eq!(read(&set), [Err(RecordError::Record { base_offset: 10 + far, index: 2 })]);
    }
}

#[test]
fn damage_is_told_with_its_offset() {
    let mut set = [plain(5, 1), plain(6, 1), plain(7, 1)].concat();
    let at = plain(5, 1).len();
    set[2 * at - 1] ^= 1;
    let error = read(&set).remove(0).unwrap_err();
    assert!(matches!(error, RecordError::Checksum { base_offset: 6, .. }), "{error}");
    // A length that its fields do not fill.
    let mut set = plain(5, 1);
    set[11] += 1;
    set.push(0);
    assert!(matches!(read(&set)[..], [Err(RecordError::Header { base_offset: 5, .. })]));
    let mut set = plain(5, 0);
    set[11] = 13;
    assert!(matches!(read(&set)[..], [Err(RecordError::Header { base_offset: 5, .. })]));
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        format in 0u8..2,
        codec in 0u8..5,
    ) {
        if bytes.len() > 18 {
            bytes[..12].fill(0);
            bytes[11] = bytes.len() as u8 - 12;
            (bytes[16], bytes[17]) = (format, codec);
        }
        for raw in split(bytes.into()).flatten() {
            if let Ok(batch) = raw.open(&ChunkPool::default(), LIMIT) {
                prop_assert_eq!(batch.iter().count(), batch.len());
            }
        }
    }

    #[test]
    fn what_was_written_is_read(
        records in prop::collection::vec(
            (1i64..1_000, any::<i64>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))),
            1..50,
        ),
        format in 0u8..2,
    ) {
        let mut offset = 0;
        let (mut set, mut wanted) = (Vec::new(), Vec::new());
        for (gap, time, field) in records {
            offset += gap;
            set.extend(wire(offset, format, 0, time, [field.as_deref(), field.as_deref()]));
            let time = if format == 0 { -1 } else { time };
            wanted.push((offset, time, field.clone(), field));
        }
        let got: Vec<Record> = read(&set).into_iter().flat_map(Result::unwrap).collect();
        prop_assert_eq!(got, wanted);
    }
}
