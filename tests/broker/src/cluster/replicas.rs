//! Followers that do not keep up, and who is in sync.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Cluster;
use crate::listener;
use crate::topic::Partition;

impl Cluster {
    /// A follower's log ends before the first batch that reaches `end`, or at the leader's end if that
    /// is less, and stays there: what it does not have is `OFFSET_OUT_OF_RANGE` to whoever reads it, or
    /// where logs part. `None`: it follows again. Whether it is in sync is not changed, and nobody
    /// waits for it. Returns where it ends.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown or the broker is no follower of it; `NotFound` for
    /// an unknown broker.
    pub fn set_follower_end(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        end: Option<i64>,
    ) -> io::Result<i64> {
        self.with_follower(topic, partition, broker, |partition, _, _| {
            let end = end.map(|end| partition.log.whole_batches_before(end));
            partition.followers.end_at(broker, end, None);
        })
    }

    /// A follower copies nothing from now on: it goes on serving what it has, to the high watermark
    /// that it knows. Ends with [`Cluster::set_follower_end`]. Returns where it ends.
    ///
    /// # Errors
    /// As [`Cluster::set_follower_end`].
    pub fn freeze_follower(&self, topic: &str, partition: i32, broker: i32) -> io::Result<i64> {
        self.with_follower(topic, partition, broker, |partition, now, delay| {
            if let Some(replica) = partition.replica(broker, now, delay) {
                let high_watermark = Some(replica.high_watermark);
                partition.followers.end_at(broker, Some(replica.end), high_watermark);
            }
        })
    }

    /// A follower has nothing before `start`, though the leader has: what it is asked for there is
    /// `OFFSET_OUT_OF_RANGE`. `None`: its log begins where the leader's does. Returns where it ends.
    ///
    /// # Errors
    /// As [`Cluster::set_follower_end`].
    pub fn set_follower_start(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        start: Option<i64>,
    ) -> io::Result<i64> {
        self.with_follower(topic, partition, broker, |partition, _, _| {
            partition.followers.start_at(broker, start);
        })
    }

    /// Takes a follower into a partition's in-sync set, or out of it.
    ///
    /// # Errors
    /// As [`Cluster::set_follower_end`].
    pub fn set_in_sync(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        in_sync: bool,
    ) -> io::Result<()> {
        self.with_follower(topic, partition, broker, |partition, _, _| {
            partition.isr.retain(|id| *id != broker);
            if in_sync {
                partition.isr.push(broker);
            }
        })
        .map(drop)
    }

    fn with_follower(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        act: impl FnOnce(&mut Partition, Instant, Duration),
    ) -> io::Result<i64> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        let now = self.shared.now();
        let end = self.with_partition(topic, partition, |partition, delay| {
            if partition.leader == Some(broker) || !partition.replicas.contains(&broker) {
                return None;
            }
            act(partition, now, delay);
            partition.wake();
            partition.replica(broker, now, delay).map(|replica| replica.end)
        })?;
        let message = format!("broker {broker} is no follower of {topic}[{partition}]");
        end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}
