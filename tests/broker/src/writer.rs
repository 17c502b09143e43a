//! Building batches: for sources, and for tests that need data without a client.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{
    self, ATTRIBUTE_CODEC, ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, BatchHeader, HEADER_LEN,
    LENGTH_PREFIX,
};
use crate::transactions::TransactionEnd;

/// One prebuilt batch: for [`crate::Storage::Source`], and for requests that a test sends itself.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    pub(crate) bytes: Bytes,
    pub(crate) records: i64,
}

impl SourceBatch {
    /// A batch of these values, without keys and headers, with timestamp 0.
    ///
    /// # Panics
    /// If there is no value: a batch holds at least one record.
    pub fn new<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        let mut payload = BytesMut::new();
        let mut records = 0;
        for value in values {
            put_record(&mut payload, records, None, Some(value.as_ref()));
            records += 1;
        }
        assert!(records > 0, "a batch holds at least one record");
        Self { bytes: wrap(&payload, records, 0, NO_PRODUCER), records: i64::from(records) }
    }

    /// The same batch compressed with lz4. One that is compressed stays as it is.
    #[must_use]
    pub fn lz4(&self) -> Self {
        let header = self.header();
        if header.attributes & ATTRIBUTE_CODEC != 0 {
            return self.clone();
        }
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        let packed = std::io::Write::write_all(&mut encoder, &self.bytes[HEADER_LEN..])
            .map_err(lz4_flex::frame::Error::from)
            .and_then(|()| encoder.finish());
        // Writing into memory does not fail; if it should, the plain batch is as right.
        match packed {
            Ok(packed) => self.rewrapped(&packed, header.attributes | LZ4, producer_of(&header)),
            Err(_) => self.clone(),
        }
    }

    /// The same batch as an idempotent producer with this id and epoch would send it, its first
    /// record under this sequence number.
    #[must_use]
    pub fn with_producer(&self, id: i64, epoch: i16, sequence: i32) -> Self {
        let producer = (id, epoch, sequence);
        self.rewrapped(&self.bytes[HEADER_LEN..], self.header().attributes, producer)
    }

    /// The same batch as part of its producer's transaction (KIP-98), which it begins if it is the
    /// first of it in its partition.
    ///
    /// # Panics
    /// If it has no producer: see [`SourceBatch::with_producer`].
    #[must_use]
    pub fn transactional(&self) -> Self {
        let header = self.header();
        assert!(header.producer_id >= 0, "a transaction has a producer");
        let attributes = header.attributes | ATTRIBUTE_TRANSACTIONAL;
        self.rewrapped(&self.bytes[HEADER_LEN..], attributes, producer_of(&header))
    }

    fn rewrapped(&self, payload: &[u8], attributes: i16, producer: (i64, i16, i32)) -> Self {
        let bytes = wrap(payload, self.records as i32, attributes, producer);
        Self { bytes, records: self.records }
    }

    fn header(&self) -> BatchHeader {
        // Built here, and so right.
        batch::read_header(&self.bytes).expect("a batch has a header")
    }

    /// The batch as a produce request carries it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Size in bytes, as sent to consumers.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// False: a batch holds at least one record.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Records in the batch.
    pub fn records(&self) -> usize {
        self.records as usize
    }
}

/// The codec lz4 among a batch's attributes.
const LZ4: i16 = 3;

fn producer_of(header: &BatchHeader) -> (i64, i16, i32) {
    (header.producer_id, header.producer_epoch, header.base_sequence)
}

/// The control batch that ends a transaction: one record, whose key says how.
pub(crate) fn marker(producer_id: i64, epoch: i16, end: TransactionEnd) -> Bytes {
    let kind = match end {
        TransactionEnd::Abort => 0,
        TransactionEnd::Commit => 1,
    };
    let mut key = BytesMut::new();
    key.put_i16(0); // version
    key.put_i16(kind);
    let mut value = BytesMut::new();
    value.put_i16(0); // version
    value.put_i32(0); // epoch of the coordinator
    let mut payload = BytesMut::new();
    put_record(&mut payload, 0, Some(&key), Some(&value));
    wrap(&payload, 1, ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL, (producer_id, epoch, -1))
}

/// Producer id, epoch and base sequence of a batch without idempotence.
pub(crate) const NO_PRODUCER: (i64, i16, i32) = (-1, -1, -1);

/// Appends one record without headers to a payload.
pub(crate) fn put_record(
    payload: &mut BytesMut,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let mut body = BytesMut::new();
    body.put_u8(0); // attributes
    put_varint(&mut body, 0); // timestamp delta
    put_varint(&mut body, offset_delta);
    for field in [key, value] {
        match field {
            None => put_varint(&mut body, -1),
            Some(bytes) => {
                put_varint(&mut body, bytes.len() as i32);
                body.put_slice(bytes);
            }
        }
    }
    put_varint(&mut body, 0); // headers
    put_varint(payload, body.len() as i32);
    payload.put_slice(&body);
}

/// Puts a batch header in front of a payload of `records` records.
pub(crate) fn wrap(
    payload: &[u8],
    records: i32,
    attributes: i16,
    (producer_id, epoch, sequence): (i64, i16, i32),
) -> Bytes {
    let mut after_crc = BytesMut::with_capacity(HEADER_LEN + payload.len());
    after_crc.put_i16(attributes);
    after_crc.put_i32(records - 1);
    after_crc.put_i64(0); // base timestamp
    after_crc.put_i64(0); // max timestamp
    after_crc.put_i64(producer_id);
    after_crc.put_i16(epoch);
    after_crc.put_i32(sequence);
    after_crc.put_i32(records);
    after_crc.put_slice(payload);
    let mut batch = BytesMut::with_capacity(HEADER_LEN + payload.len());
    batch.put_i64(0);
    batch.put_i32((HEADER_LEN - LENGTH_PREFIX + payload.len()) as i32);
    batch.put_i32(-1); // leader epoch: the broker's to set
    batch.put_i8(2);
    batch.put_u32(crc_fast::crc32_iscsi(&after_crc));
    batch.put_slice(&after_crc);
    batch.freeze()
}

fn put_varint(buf: &mut BytesMut, value: i32) {
    let mut left = ((value << 1) ^ (value >> 31)) as u32;
    while left >= 0x80 {
        buf.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    buf.put_u8(left as u8);
}
