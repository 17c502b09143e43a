//! What the instruction counts of `tests/bench` measure: sending without the sender's task, and the
//! record rooms, both without a network. Not
//! a part of the public interface; there with the feature `bench-internals` only, and free to change.

use bytes::Bytes;

pub use crate::producer::bench::Sends;
use crate::record::Compression;
use crate::record::builder::{BatchBuilder, HeaderList, SealedBatch};
use crate::record::pool::ChunkPool;
use crate::record::reader;

/// Buffers that stay warm between batches.
#[derive(Clone, Debug, Default)]
pub struct Pool(ChunkPool);

/// A batch whose records do not change any more.
#[derive(Debug)]
pub struct Sealed(SealedBatch);

/// Appends each value as a record, as a send does once its batch is found.
pub fn append(pool: &Pool, values: &[impl AsRef<[u8]>]) -> Open {
    let mut builder = BatchBuilder::new(pool.0.clone());
    for value in values {
        builder
            .append(None, Some(value.as_ref()), HeaderList::NONE, 1_700_000_000_000)
            .expect("the values of a measurement fit a batch");
    }
    Open(builder)
}

/// An open batch.
#[derive(Debug)]
pub struct Open(BatchBuilder);

impl Open {
    /// Compresses, and computes the checksum.
    ///
    /// # Panics
    /// Without a record.
    pub fn seal(self, compression: Compression) -> Sealed {
        Sealed(self.0.seal(compression).expect("the batch has records"))
    }
}

impl Sealed {
    /// The header for one attempt.
    pub fn header(&self, sequence: i32) -> [u8; 61] {
        self.0.header(1000, 3, sequence)
    }

    /// The whole batch as a broker would give it back.
    pub fn wire(&self) -> Bytes {
        let mut bytes = self.header(0).to_vec();
        for segment in self.0.segments() {
            bytes.extend_from_slice(segment);
        }
        bytes.into()
    }
}

/// Reads the records field of a fetch response as a consumer does: cuts it into batches, compares
/// checksums, decompresses, and gives every value to `seen`.
///
/// # Panics
/// If the bytes are damaged.
pub fn read(pool: &Pool, records: Bytes, mut seen: impl FnMut(&[u8])) {
    for raw in reader::split(records) {
        let raw = raw.expect("the header is sound");
        raw.verify_crc().expect("the checksum is right");
        let batch = raw.open(&pool.0, 256 << 20).expect("the records are sound");
        for record in &batch {
            seen(record.value().unwrap_or_default());
        }
    }
}
