//! Walks a request by its schema before the generated decoder may see it.
//!
//! The decoder of `kafka-protocol` reserves memory for as many elements as an array claims to have:
//! nine bytes can ask for hundreds of gigabytes, and an allocation that fails aborts the process.
//! Here every element has to be there, and their number is bounded, before anything is reserved.
//! The walk allocates nothing.

mod groups;

use crate::api::ApiKey;

/// Array elements and tagged fields of one request together. An element takes some hundred bytes
/// once decoded and as few as one on the wire; a produce request to every partition of a cluster of
/// a hundred thousand stays well below.
const MAX_ELEMENTS: usize = 1 << 20;

/// A request's schema.
pub(crate) struct Shape {
    /// First version with compact lengths and tagged fields.
    flexible: i16,
    body: Struct,
}

/// Fields in their order, each with the versions that have it, and the tagged fields that the
/// decoder knows: it reads those without regard to the size they claim, so that a size that differs
/// from their content would lead it astray.
struct Struct {
    fields: &'static [(i16, i16, Field)],
    tags: &'static [(u32, i16, Field)],
}

enum Field {
    /// So many bytes.
    Fixed(usize),
    String,
    Bytes,
    /// Elements of one field each.
    Values(&'static Field),
    /// Elements of many fields.
    Array(&'static Struct),
    Nested(&'static Struct),
}

use Field::{Array, Bytes, Fixed, Nested, String, Values};

const INT8: Field = Fixed(1);
const INT16: Field = Fixed(2);
const INT32: Field = Fixed(4);
const INT64: Field = Fixed(8);
const UUID: Field = Fixed(16);
/// Last version of fields that no later version took away.
const ON: i16 = i16::MAX;

const fn plain(fields: &'static [(i16, i16, Field)]) -> Struct {
    Struct { fields, tags: &[] }
}

static PRODUCE: Shape = Shape {
    flexible: 9,
    body: plain(&[
        (3, ON, String), // transactional id
        (3, ON, INT16),  // acks
        (3, ON, INT32),  // timeout
        (
            3,
            ON,
            Array(&plain(&[
                (3, 12, String), // name
                (13, ON, UUID),  // topic id
                (3, ON, Array(&plain(&[(3, ON, INT32), (3, ON, Bytes)]))),
            ])),
        ),
    ]),
};

static FETCH: Shape = Shape {
    flexible: 12,
    body: Struct {
        fields: &[
            (4, 14, INT32), // replica id
            (4, ON, INT32), // max wait
            (4, ON, INT32), // min bytes
            (4, ON, INT32), // max bytes
            (4, ON, INT8),  // isolation level
            (7, ON, INT32), // session id
            (7, ON, INT32), // session epoch
            (
                4,
                ON,
                Array(&plain(&[
                    (4, 12, String), // name
                    (13, ON, UUID),  // topic id
                    (4, ON, Array(&FETCH_PARTITION)),
                ])),
            ),
            (
                7,
                ON,
                Array(&plain(&[
                    (7, 12, String), // name
                    (13, ON, UUID),  // topic id
                    (7, ON, Values(&INT32)),
                ])),
            ),
            (11, ON, String), // rack
        ],
        tags: &[
            (0, 12, String), // cluster id
            (1, 15, Nested(&plain(&[(15, ON, INT32), (15, ON, INT64)]))),
        ],
    },
};

static FETCH_PARTITION: Struct = Struct {
    fields: &[
        (4, ON, INT32),  // partition
        (9, ON, INT32),  // current leader epoch
        (4, ON, INT64),  // fetch offset
        (12, ON, INT32), // last fetched epoch
        (5, ON, INT64),  // log start offset
        (4, ON, INT32),  // max bytes
    ],
    tags: &[
        (0, 17, UUID),  // replica directory
        (1, 18, INT64), // high watermark
    ],
};

static LIST_OFFSETS: Shape = Shape {
    flexible: 6,
    body: plain(&[
        (1, ON, INT32), // replica id
        (2, ON, INT8),  // isolation level
        (
            1,
            ON,
            Array(&plain(&[
                (1, ON, String), // name
                // partition, current leader epoch, timestamp
                (1, ON, Array(&plain(&[(1, ON, INT32), (4, ON, INT32), (1, ON, INT64)]))),
            ])),
        ),
        (10, ON, INT32), // timeout
    ]),
};

static METADATA: Shape = Shape {
    flexible: 9,
    body: plain(&[
        (0, ON, Array(&plain(&[(10, ON, UUID), (0, ON, String)]))),
        (4, ON, INT8), // allow auto topic creation
        (8, 10, INT8), // include cluster authorized operations
        (8, ON, INT8), // include topic authorized operations
    ]),
};

static FIND_COORDINATOR: Shape = Shape {
    flexible: 3,
    body: plain(&[
        (0, 3, String), // key
        (1, ON, INT8),  // key type
        (4, ON, Values(&String)),
    ]),
};

static API_VERSIONS: Shape = Shape {
    flexible: 3,
    body: plain(&[(3, ON, String), (3, ON, String)]), // software name and version
};

static SASL_HANDSHAKE: Shape = Shape { flexible: ON, body: plain(&[(0, ON, String)]) }; // mechanism

static SASL_AUTHENTICATE: Shape = Shape { flexible: 2, body: plain(&[(0, ON, Bytes)]) };

static CREATE_TOPICS: Shape = Shape {
    flexible: 5,
    body: plain(&[
        (
            2,
            ON,
            Array(&plain(&[
                (2, ON, String), // name
                (2, ON, INT32),  // partitions
                (2, ON, INT16),  // replication factor
                // partition and its brokers
                (2, ON, Array(&plain(&[(2, ON, INT32), (2, ON, Values(&INT32))]))),
                // name and value of a setting
                (2, ON, Array(&plain(&[(2, ON, String), (2, ON, String)]))),
            ])),
        ),
        (2, ON, INT32), // timeout
        (2, ON, INT8),  // validate only
    ]),
};

static DELETE_TOPICS: Shape = Shape {
    flexible: 4,
    body: plain(&[
        (6, ON, Array(&plain(&[(6, ON, String), (6, ON, UUID)]))),
        (1, 5, Values(&String)), // names
        (1, ON, INT32),          // timeout
    ]),
};

static INIT_PRODUCER_ID: Shape = Shape {
    flexible: 2,
    body: plain(&[
        (0, ON, String), // transactional id
        (0, ON, INT32),  // transaction timeout
        (3, ON, INT64),  // producer id
        (3, ON, INT16),  // producer epoch
    ]),
};

static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible: 4,
    body: plain(&[
        (3, ON, INT32), // replica id
        (
            2,
            ON,
            Array(&plain(&[
                (2, ON, String), // name
                // partition, current leader epoch, leader epoch
                (2, ON, Array(&plain(&[(2, ON, INT32), (2, ON, INT32), (2, ON, INT32)]))),
            ])),
        ),
    ]),
};

static CREATE_PARTITIONS: Shape = Shape {
    flexible: 2,
    body: plain(&[
        (
            0,
            ON,
            Array(&plain(&[
                (0, ON, String),                                    // name
                (0, ON, INT32),                                     // count
                (0, ON, Array(&plain(&[(0, ON, Values(&INT32))]))), // assignments
            ])),
        ),
        (0, ON, INT32), // timeout
        (0, ON, INT8),  // validate only
    ]),
};

static DESCRIBE_PRODUCERS: Shape = Shape {
    flexible: 0,
    body: plain(&[(0, ON, Array(&plain(&[(0, ON, String), (0, ON, Values(&INT32))])))]),
};

/// The schema of a request that this broker reads.
fn shape(api: ApiKey) -> Option<&'static Shape> {
    Some(match api {
        ApiKey::PRODUCE => &PRODUCE,
        ApiKey::FETCH => &FETCH,
        ApiKey::LIST_OFFSETS => &LIST_OFFSETS,
        ApiKey::METADATA => &METADATA,
        ApiKey::OFFSET_COMMIT => &groups::OFFSET_COMMIT,
        ApiKey::OFFSET_FETCH => &groups::OFFSET_FETCH,
        ApiKey::FIND_COORDINATOR => &FIND_COORDINATOR,
        ApiKey::JOIN_GROUP => &groups::JOIN_GROUP,
        ApiKey::HEARTBEAT => &groups::HEARTBEAT,
        ApiKey::LEAVE_GROUP => &groups::LEAVE_GROUP,
        ApiKey::SYNC_GROUP => &groups::SYNC_GROUP,
        ApiKey::DESCRIBE_GROUPS => &groups::DESCRIBE_GROUPS,
        ApiKey::LIST_GROUPS => &groups::LIST_GROUPS,
        ApiKey::API_VERSIONS => &API_VERSIONS,
        ApiKey::SASL_HANDSHAKE => &SASL_HANDSHAKE,
        ApiKey::SASL_AUTHENTICATE => &SASL_AUTHENTICATE,
        ApiKey::CREATE_TOPICS => &CREATE_TOPICS,
        ApiKey::DELETE_TOPICS => &DELETE_TOPICS,
        ApiKey::INIT_PRODUCER_ID => &INIT_PRODUCER_ID,
        ApiKey::OFFSET_FOR_LEADER_EPOCH => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::CREATE_PARTITIONS => &CREATE_PARTITIONS,
        ApiKey::DELETE_GROUPS => &groups::DELETE_GROUPS,
        ApiKey::OFFSET_DELETE => &groups::OFFSET_DELETE,
        ApiKey::DESCRIBE_PRODUCERS => &DESCRIBE_PRODUCERS,
        ApiKey::CONSUMER_GROUP_HEARTBEAT => &groups::CONSUMER_GROUP_HEARTBEAT,
        ApiKey::CONSUMER_GROUP_DESCRIBE => &groups::CONSUMER_GROUP_DESCRIBE,
        _ => return None,
    })
}

/// Checks that every length and count in a request's body is covered by bytes that are there.
/// Returns how many bytes the body takes; what follows them is nobody's.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, std::string::String> {
    let Some(shape) = shape(api) else {
        return Err(format!("no schema is known for api {}", api.0));
    };
    let mut walk = Walk {
        body,
        at: 0,
        version,
        flexible: version >= shape.flexible,
        elements_left: MAX_ELEMENTS,
    };
    walk.one(&shape.body)
        .map_err(|wrong| format!("request of api {} at byte {}: {wrong}", api.0, walk.at))?;
    Ok(walk.at)
}

type Walked<T = ()> = Result<T, &'static str>;

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl Walk<'_> {
    fn one(&mut self, shape: &Struct) -> Walked {
        for (since, until, field) in shape.fields {
            if (*since..=*until).contains(&self.version) {
                self.field(field)?;
            }
        }
        if self.flexible {
            self.tags(shape.tags)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Walked {
        match field {
            Fixed(len) => self.skip(*len),
            String if self.flexible => self.compact_bytes(),
            String => {
                let len = i16::from_be_bytes(self.take()?);
                self.nullable(i64::from(len))
            }
            Bytes if self.flexible => self.compact_bytes(),
            Bytes => {
                let len = i32::from_be_bytes(self.take()?);
                self.nullable(i64::from(len))
            }
            Values(element) => {
                for _ in 0..self.count()? {
                    self.element()?;
                    self.field(element)?;
                }
                Ok(())
            }
            Array(element) => {
                for _ in 0..self.count()? {
                    self.element()?;
                    self.one(element)?;
                }
                Ok(())
            }
            Nested(shape) => self.one(shape),
        }
    }

    /// An array's length; a null one has none. No element is shorter than a byte.
    fn count(&mut self) -> Walked<usize> {
        let count = if self.flexible {
            i64::from(self.unsigned()?) - 1
        } else {
            i64::from(i32::from_be_bytes(self.take()?))
        };
        let count = if count < 0 { 0 } else { count as usize };
        if count > self.body.len() - self.at {
            return Err("an array claims more elements than bytes are left");
        }
        Ok(count)
    }

    fn element(&mut self) -> Walked {
        self.elements_left =
            self.elements_left.checked_sub(1).ok_or("more elements than a request may have")?;
        Ok(())
    }

    fn tags(&mut self, known: &[(u32, i16, Field)]) -> Walked {
        for _ in 0..self.unsigned()? {
            self.element()?;
            let tag = self.unsigned()?;
            let len = self.unsigned()? as usize;
            let end = self.at.saturating_add(len);
            match known.iter().find(|(id, since, _)| *id == tag && self.version >= *since) {
                Some((_, _, field)) => {
                    self.field(field)?;
                    if self.at != end {
                        return Err("a tagged field's size does not agree with its content");
                    }
                }
                None => self.skip(len)?,
            }
        }
        Ok(())
    }

    fn compact_bytes(&mut self) -> Walked {
        let len = self.unsigned()?;
        self.nullable(i64::from(len) - 1)
    }

    fn nullable(&mut self, len: i64) -> Walked {
        self.skip(usize::try_from(len).unwrap_or(0))
    }

    fn unsigned(&mut self) -> Walked<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| "a number exceeds 32 bits");
            }
        }
        Err("a variable-length number is longer than five bytes")
    }

    fn take<const N: usize>(&mut self) -> Walked<[u8; N]> {
        let bytes = self.body[self.at..].first_chunk::<N>().ok_or("it ends too early")?;
        self.at += N;
        Ok(*bytes)
    }

    fn skip(&mut self, len: usize) -> Walked {
        if len > self.body.len() - self.at {
            return Err("it ends too early");
        }
        self.at += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
