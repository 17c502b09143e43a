//! Building batches: for sources, and for tests that need data without a client.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{HEADER_LEN, LENGTH_PREFIX};

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

    /// The same batch compressed with lz4.
    #[must_use]
    pub fn lz4(&self) -> Self {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        let packed = std::io::Write::write_all(&mut encoder, &self.bytes[HEADER_LEN..])
            .map_err(lz4_flex::frame::Error::from)
            .and_then(|()| encoder.finish());
        // Writing into memory does not fail; if it should, the plain batch is as right.
        match packed {
            Ok(packed) => Self {
                bytes: wrap(&packed, self.records as i32, 3, NO_PRODUCER),
                records: self.records,
            },
            Err(_) => self.clone(),
        }
    }

    /// The same batch as an idempotent producer with this id and epoch would send it, its first
    /// record under this sequence number.
    #[must_use]
    pub fn with_producer(&self, id: i64, epoch: i16, sequence: i32) -> Self {
        let attributes = i16::from_be_bytes([self.bytes[21], self.bytes[22]]);
        let producer = (id, epoch, sequence);
        Self {
            bytes: wrap(&self.bytes[HEADER_LEN..], self.records as i32, attributes, producer),
            records: self.records,
        }
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
