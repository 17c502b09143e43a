//! What Kafka's system tests read from the programs that they drive: one JSON object a line, with the names and members
//! that `VerifiableConsumer` and `VerifiableProducer` of `org.apache.kafka.tools` print.

use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was printed, in milliseconds since 1970.
    pub timestamp: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Event {
    /// It is at work.
    StartupComplete,
    /// It has left, and nothing follows of a consumer.
    ShutdownComplete,
    /// The group has given these to this member.
    PartitionsAssigned {
        /// Those that came.
        partitions: Vec<Partition>,
    },
    /// The group takes these away, or has given them to somebody else.
    PartitionsRevoked {
        /// Those that go.
        partitions: Vec<Partition>,
    },
    /// Records were handed to the application.
    RecordsConsumed {
        /// How many of all partitions.
        count: u64,
        /// Which.
        partitions: Vec<Consumed>,
    },
    /// One of them, with `--verbose`.
    RecordData {
        /// Its key as text.
        key: Option<String>,
        /// Its value as text.
        value: Option<String>,
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where it stands.
        offset: i64,
    },
    /// The end of a commit.
    OffsetsCommitted {
        /// The offset to go on from, by partition.
        offsets: Vec<Committed>,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Whether the group has them.
        success: bool,
    },
    /// A record was acknowledged.
    ProducerSendSuccess {
        /// Its key.
        key: Option<String>,
        /// Its value.
        value: String,
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where it stands; -1 where nobody says.
        offset: i64,
    },
    /// A record failed.
    ProducerSendError {
        /// Its topic.
        topic: String,
        /// Its key.
        key: Option<String>,
        /// Its value.
        value: String,
        /// The kind of the error.
        exception: String,
        /// The error.
        message: String,
    },
    /// The last line of a producer.
    ToolData {
        /// Records that were sent.
        sent: u64,
        /// Those that were acknowledged.
        acked: u64,
        /// `--throughput`.
        target_throughput: i64,
        /// Acknowledged in a second.
        avg_throughput: f64,
    },
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
}

/// Records of one partition that were handed over together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumed {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// How many.
    pub count: u64,
    /// Offset of the first.
    pub min_offset: i64,
    /// Offset of the last.
    pub max_offset: i64,
}

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The offset of the next record.
    pub offset: i64,
}

/// Prints a line, whole and at once.
///
/// # Errors
/// Nobody reads any more.
pub fn print(event: Event) -> io::Result<()> {
    let line = Line { timestamp: now_ms(), event };
    let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

/// Bytes as these programs show them.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Java prints them, the order of members aside, which readers of JSON do not see.
    #[test]
    fn lines_are_those_of_kafka() {
        let lines = [
            r#"{"timestamp":1,"name":"startup_complete"}"#,
            r#"{"timestamp":2,"name":"partitions_assigned","partitions":[{"topic":"t","partition":0}]}"#,
            r#"{"timestamp":3,"name":"records_consumed","count":2,"partitions":[{"topic":"t","partition":0,"count":2,"minOffset":5,"maxOffset":6}]}"#,
            r#"{"timestamp":4,"name":"record_data","key":null,"value":"v","topic":"t","partition":0,"offset":5}"#,
            r#"{"timestamp":5,"name":"offsets_committed","offsets":[{"topic":"t","partition":0,"offset":7}],"success":true}"#,
            r#"{"timestamp":6,"name":"producer_send_success","key":null,"value":"0","topic":"t","partition":0,"offset":3}"#,
            r#"{"timestamp":7,"name":"tool_data","sent":3,"acked":2,"target_throughput":-1,"avg_throughput":1.5}"#,
            r#"{"timestamp":8,"name":"partitions_revoked","partitions":[]}"#,
            r#"{"timestamp":9,"name":"shutdown_complete"}"#,
        ];
        for line in lines {
            let read: Line = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), line);
        }
        assert!(serde_json::from_str::<Line>(r#"{"timestamp":1,"name":"else"}"#).is_err());
    }
}
