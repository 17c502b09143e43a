//! What a member of a group hears of it.

use tokio::time::Instant;

use super::TopicPartition;
use super::batch::Batch;

/// What [`Consumer::next_event`](super::Consumer::next_event) gives. To ask for the next says that one has done with the
/// last. So does [`Consumer::next`](super::Consumer::next), which gives no events: once any was taken they are kept for who asks for
/// events again, and nothing waits until they are told. Who is to have its say in time asks for events alone, from one
/// thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Records.
    Batch(Batch),
    /// The group has given these partitions to this member, besides those that it has. None: the group was decided
    /// anew, and nothing came.
    Assigned(Vec<TopicPartition>),
    /// The group takes these away. Nothing more of them is handed out. What is finished when the next event is asked
    /// for is committed, and then they are given up; at the deadline at the latest.
    GivingUp {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// They are given up then, whatever is finished.
        deadline: Instant,
    },
    /// These are somebody else's by now, perhaps: the membership was lost. What was not committed is read by others
    /// again.
    Lost(Vec<TopicPartition>),
}
