//! The Produce request, versions 3 to 13, as segments for a vectored write.
//!
//! Written by hand because the generated encoder wants each partition's records in one piece, which
//! would copy every record once more. Here the records stay where the batch was built, and only
//! what is around them (some 80 bytes a partition) is written anew.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::record::HEADER_LEN;

const API_KEY: i16 = 0;

/// First version with compact lengths, tagged fields, and header version 2.
const FLEXIBLE: i16 = 9;

/// First version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;

/// One batch for one partition.
#[derive(Debug)]
pub(crate) struct PartitionData<'a> {
    pub index: i32,
    /// The batch's header, as written for this attempt.
    pub header: [u8; HEADER_LEN],
    /// The batch's records section.
    pub body: &'a [Bytes],
}

/// The batches for one topic. Brokers take one batch a partition.
#[derive(Debug)]
pub(crate) struct TopicData<'a> {
    /// Written up to version 12.
    pub name: &'a str,
    /// Written from version 13.
    pub id: Uuid,
    pub partitions: Vec<PartitionData<'a>>,
}

/// A request ready for the socket, with its size prefix: the segments in order, and their bytes.
///
/// Whoever calls has bounded its parts: strings by 32,767 bytes (`i16`), the request by 2 GiB.
pub(crate) fn encode_produce(
    version: i16,
    correlation: i32,
    client_id: &str,
    transactional_id: Option<&str>,
    acks: i16,
    timeout_ms: i32,
    topics: &[TopicData<'_>],
) -> (Vec<Bytes>, usize) {
    debug_assert!((3..=13).contains(&version), "Produce version {version} is not written here");
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let names: usize = topics.iter().map(|topic| topic.name.len() + 32).sum();
    let strings = client_id.len() + transactional_id.map_or(0, str::len) + names;
    let mut out = Writer {
        small: BytesMut::with_capacity(48 + strings + partitions * (HEADER_LEN + 16)),
        flexible: version >= FLEXIBLE,
    };
    // Where records go in between the small bytes.
    let mut cuts: Vec<(usize, &[Bytes])> = Vec::with_capacity(partitions);
    let mut record_bytes = 0;

    out.small.put_i32(0); // the size, filled in below
    out.small.put_i16(API_KEY);
    out.small.put_i16(version);
    out.small.put_i32(correlation);
    // The header's client id kept its two-byte length when everything else went compact.
    out.small.put_i16(client_id.len() as i16);
    out.small.put_slice(client_id.as_bytes());
    out.no_tagged_fields();

    out.nullable_string(transactional_id);
    out.small.put_i16(acks);
    out.small.put_i32(timeout_ms);
    out.count(topics.len());
    for topic in topics {
        if version >= TOPIC_IDS {
            out.small.put_slice(topic.id.as_bytes());
        } else {
            out.nullable_string(Some(topic.name));
        }
        out.count(topic.partitions.len());
        for partition in &topic.partitions {
            let body: usize = partition.body.iter().map(Bytes::len).sum();
            out.small.put_i32(partition.index);
            out.count(HEADER_LEN + body);
            out.small.put_slice(&partition.header);
            cuts.push((out.small.len(), partition.body));
            record_bytes += body;
            out.no_tagged_fields();
        }
        out.no_tagged_fields();
    }
    out.no_tagged_fields();

    let total = out.small.len() + record_bytes;
    out.small[..4].copy_from_slice(&((total - 4) as u32).to_be_bytes());
    (interleave(out.small.freeze(), &cuts), total)
}

/// Puts each body behind the small bytes up to its cut. No segment is empty: a vectored write of
/// nothing would look like a closed peer.
fn interleave(mut small: Bytes, cuts: &[(usize, &[Bytes])]) -> Vec<Bytes> {
    let bodies: usize = cuts.iter().map(|(_, body)| body.len()).sum();
    let mut segments = Vec::with_capacity(cuts.len() + bodies + 1);
    let mut taken = 0;
    for (end, body) in cuts {
        segments.push(small.split_to(end - taken));
        taken = *end;
        segments.extend(body.iter().filter(|part| !part.is_empty()).cloned());
    }
    if !small.is_empty() {
        segments.push(small);
    }
    segments
}

/// Lengths in the form of the request's version.
struct Writer {
    small: BytesMut,
    flexible: bool,
}

impl Writer {
    /// Length of an array or of bytes.
    fn count(&mut self, count: usize) {
        if self.flexible {
            self.varint(count as u32 + 1);
        } else {
            self.small.put_i32(count as i32);
        }
    }

    fn nullable_string(&mut self, string: Option<&str>) {
        match (string, self.flexible) {
            (None, true) => self.small.put_u8(0),
            (None, false) => self.small.put_i16(-1),
            (Some(string), true) => self.varint(string.len() as u32 + 1),
            (Some(string), false) => self.small.put_i16(string.len() as i16),
        }
        self.small.put_slice(string.unwrap_or_default().as_bytes());
    }

    fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.small.put_u8(0);
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.small.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.small.put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode_request;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
    use kafka_protocol::protocol::StrBytes;

    fn words(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    /// The same request by the generated encoder, records in one piece.
    fn generated(
        version: i16,
        transactional_id: Option<&str>,
        acks: i16,
        topics: &[TopicData<'_>],
    ) -> Bytes {
        let topics = topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let records = [partition.header.to_vec(), partition.body.concat()].concat();
                PartitionProduceData::default()
                    .with_index(partition.index)
                    .with_records(Some(records.into()))
            });
            let data = TopicProduceData::default().with_partition_data(partitions.collect());
            if version >= TOPIC_IDS {
                data.with_topic_id(topic.id)
            } else {
                data.with_name(TopicName(words(topic.name)))
            }
        });
        let request = ProduceRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(words(id))))
            .with_acks(acks)
            .with_timeout_ms(30_000)
            .with_topic_data(topics.collect());
        encode_request(version, 77, "a client", &request).expect("the generated encoder takes it")
    }

    #[test]
    fn same_bytes_as_the_generated_encoder() {
        let long = "t".repeat(249);
        // Lengths on both sides of one-, two- and three-byte varints.
        let bodies: [Vec<Bytes>; 4] = [
            vec![Bytes::from_static(b"x")],
            vec![Bytes::from(vec![1; 66])],
            vec![Bytes::from(vec![2; 1 << 10]), Bytes::from(vec![3; 15_298])],
            vec![Bytes::from(vec![4; 300]), Bytes::new(), Bytes::from(vec![5; 40_000])],
        ];
        let part = |index: i32, body| PartitionData { index, header: [index as u8; 61], body };
        let topic = |name, id, partitions| TopicData { name, id: Uuid::from_u128(id), partitions };
        let full = [
            topic("orders", 7, vec![part(0, &bodies[0]), part(200_000, &bodies[1])]),
            topic(&long, u128::MAX, vec![part(5, &bodies[2]), part(6, &bodies[3])]),
            topic("nothing", 9, vec![]),
        ];
        for version in 3..=13 {
            for transactional_id in [None, Some("t-1")] {
                for (topics, acks) in [(&full[..], -1), (&full[..1], 1), (&[][..], 0)] {
                    let (segments, bytes) = encode_produce(
                        version,
                        77,
                        "a client",
                        transactional_id,
                        acks,
                        30_000,
                        topics,
                    );
                    let ours = segments.concat();
                    assert_eq!(bytes, ours.len());
                    assert!(segments.iter().all(|segment| !segment.is_empty()));
                    let theirs = generated(version, transactional_id, acks, topics);
                    assert_eq!(ours, theirs, "version {version}, {} topics", topics.len());
                }
            }
        }
    }

    #[test]
    fn records_are_not_copied() {
        let body = [Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100])];
        let partitions = vec![PartitionData { index: 0, header: [0; 61], body: &body }];
        let topic = TopicData { name: "orders", id: Uuid::nil(), partitions };
        for (version, segments_expected) in [(8, 3), (13, 4)] {
            let (segments, _) =
                encode_produce(version, 1, "c", None, -1, 1, std::slice::from_ref(&topic));
            assert_eq!(segments.len(), segments_expected);
            assert_eq!(segments[1].as_ptr(), body[0].as_ptr());
            assert_eq!(segments[2].as_ptr(), body[1].as_ptr());
        }
    }
}
