//! The reader of record batches.

use bytes::Bytes;

use super::Verdict;
use crate::record::Compression;
use crate::record::RecordBatch;
use crate::record::compression;
use crate::record::pool::ChunkPool;
use crate::record::reader::{RawBatch, RecordError, split};
use crate::record::{CRC_START, HEADER_LEN, crc::crc32c};

/// What batches may decompress to, by a bit of the input.
const LIMITS: [usize; 2] = [64 << 10, 1 << 20];

/// Base offset of a batch that is made around an input.
const BASE: i64 = 1000;

/// Reads records: a byte of flags, a byte each for codec, record count and what the last offset
/// is above that; then either the records field of a Fetch response, or what a batch with a
/// sound header holds.
///
/// Flags: 1, the field is as fetched, without a header made for it; 2, the higher limit; 4, the
/// records are compressed here and must be read like the same uncompressed.
///
/// # Panics
/// If a batch that was opened does not hold what its header says, or gives it differently when it is
/// read again.
pub fn records(input: &[u8]) -> Verdict {
    let Some((&[flags, codec, count, gap], bytes)) = input.split_first_chunk() else {
        return Verdict::Unfit;
    };
    let limit = LIMITS[usize::from(flags >> 1 & 1)];
    let pool = ChunkPool::default();
    if flags & 1 != 0 {
        let mut all = true;
        for raw in split(Bytes::copy_from_slice(bytes)) {
            all &= match raw {
                Ok(raw) => {
                    // A fuzzer cannot make up a checksum: whether it matches decides nothing here.
                    let _ = raw.verify_crc();
                    open(&raw, &pool, limit).is_ok()
                }
                Err(_) => false,
            };
        }
        return if all { Verdict::Taken } else { Verdict::Refused };
    }
    let plain = batch(codec & 7, count, gap, bytes);
    let opened = open(&plain, &pool, limit);
    if flags & 4 != 0 && codec & 7 == 0 {
        // The same batch, or refused for the same reason.
        let what = |opened: &Result<RecordBatch, RecordError>| match opened {
            Ok(batch) => Ok(format!("{:?}", batch.iter().collect::<Vec<_>>())),
            Err(e) => Err(e.clone()),
        };
        for codec in compression::all() {
            let Some(compressed) = compressed(codec, bytes) else { continue };
            let again = open(&batch(codec.bits() as u8, count, gap, &compressed), &pool, limit);
            assert_eq!(what(&opened), what(&again), "read differently when compressed by {codec}");
        }
    }
    if opened.is_ok() { Verdict::Taken } else { Verdict::Refused }
}

/// A batch with a sound header and checksum around these records.
fn batch(codec: u8, count: u8, gap: u8, records: &[u8]) -> RawBatch {
    let last_delta = i32::from(count).max(1) - 1 + i32::from(gap);
    let mut bytes = Vec::with_capacity(HEADER_LEN + records.len());
    bytes.extend(BASE.to_be_bytes());
    bytes.extend(((HEADER_LEN - 12 + records.len()) as u32).to_be_bytes());
    bytes.extend(3u32.to_be_bytes());
    bytes.push(2);
    bytes.extend([0; 4]);
    bytes.extend(u16::from(codec).to_be_bytes());
    bytes.extend(last_delta.to_be_bytes());
    bytes.extend([0; 8 + 8]);
    bytes.extend([0xff; 8 + 2 + 4]);
    bytes.extend(u32::from(count).to_be_bytes());
    bytes.extend(records);
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    let mut batches = split(bytes.into());
    let batch = batches.next().expect("a batch that is whole").expect("with a sound header");
    assert!(batches.next().is_none(), "one batch was written");
    batch.verify_crc().expect("its checksum is right");
    batch
}

/// As this client would send it; `None` if it sends it as it is.
fn compressed(codec: Compression, records: &[u8]) -> Option<Vec<u8>> {
    let pool = ChunkPool::default();
    let mut chunk = pool.get(records.len());
    chunk.push(records);
    let chunks = compression::compress(codec, &pool, &[chunk])?;
    Some(chunks.iter().flat_map(|chunk| chunk.as_ref()).copied().collect())
}

fn open(raw: &RawBatch, pool: &ChunkPool, limit: usize) -> Result<RecordBatch, RecordError> {
    let batch = raw.open(pool, limit)?;
    let size = batch.payload_len();
    assert!(raw.codec == 0 || size <= limit, "{size} bytes decompressed");
    let mut records = batch.iter();
    let mut bytes = 0;
    for left in (0..batch.len()).rev() {
        let again = batch.iter_from(records.position());
        let record = records.next().expect("as many records as the batch says");
        assert_eq!((records.len(), again.len()), (left, left + 1));
        assert!(
            (raw.base_offset..=raw.last_offset).contains(&record.offset()),
            "offset {} of a batch of {} to {}",
            record.offset(),
            raw.base_offset,
            raw.last_offset
        );
        let mut headers = record.headers();
        bytes += 7 + record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
        for _ in 0..headers.len() {
            let (name, value) = headers.next().expect("as many headers as the record says");
            bytes += 2 + name.len() + value.map_or(0, <[u8]>::len);
        }
        let same = again.clone().next().expect("the record at a position");
        assert_eq!((same.offset(), same.value()), (record.offset(), record.value()));
    }
    assert!(records.next().is_none(), "more records than the batch says");
    assert!(bytes <= size, "{bytes} bytes of records in {size}");
    Ok(batch)
}
