//! Record batches of version 2, written and read without I/O; of older ones, read.
//!
//! ```text
//! send ──> BatchBuilder (pooled chunks, wire format) ──seal──> SealedBatch ──header()──> request
//! fetch response ──split──> RawBatch ──open──> RecordBatch ──iter──> RecordRef
//! ```
//!
//! The records of an uncompressed batch are copied once, by [`builder`], and not again until the socket.
//! Reading borrows from the response, or from one pooled buffer if the batch was compressed.

pub(crate) mod builder;
pub(crate) mod compression;
pub(crate) mod crc;
mod encoded;
mod old;
mod owned;
pub(crate) mod pool;
pub(crate) mod reader;
mod records;
pub(crate) mod varint;

pub use compression::Compression;
pub use owned::OwnedRecord;
pub use records::{Headers, RecordPosition, RecordRef};
pub(crate) use records::{RecordBatch, RecordIter, walk};

/// Bytes of a version 2 batch before its records: from base offset to record count.
pub(crate) const HEADER_LEN: usize = 61;

/// First byte the checksum covers: the attributes. What is before it (base offset, length, leader
/// epoch, magic, checksum) is rewritten by brokers without a new checksum.
pub(crate) const CRC_START: usize = 21;

#[cfg(test)]
mod tests;
