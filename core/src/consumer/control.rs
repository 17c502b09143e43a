//! Asking and steering a consumer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::buffer::{Buffer, Key};
use super::group::task::{Command, Contact};
use super::group::{Order, Places};
use super::{TopicPartition, WHO};
use crate::config::{Start, check_topic};
use crate::error::{Error, Result};
use crate::fork::{self, Origin};
use crate::protocol::NO_EPOCH;

/// A commit that is under way.
pub(crate) type Committing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What the application names as partitions to read, checked.
pub(super) fn checked<T: Into<String>>(
    partitions: impl IntoIterator<Item = (T, i32, Start)>,
) -> Result<Vec<(Key, Start)>> {
    let check = |(topic, partition, start): (T, i32, Start)| {
        let topic: String = topic.into();
        check_topic(&topic)?;
        if partition < 0 {
            return Err(Error::argument(format!(
                "partition {partition} of topic '{topic}' is negative"
            )));
        }
        start.check()?;
        Ok(((Arc::from(topic), partition), start))
    };
    partitions.into_iter().map(check).collect()
}

/// Asks and steers a [`Consumer`](super::Consumer) from any thread or task, also while another one waits for its
/// records: nothing here waits for anybody. Cheap to clone. It does not keep the consumer open.
#[derive(Clone)]
pub struct ConsumerControl {
    pub(super) buffer: Arc<Buffer>,
    /// Of a member of a group.
    pub(super) contact: Option<Contact>,
    pub(super) origin: Origin,
}

impl ConsumerControl {
    /// As [`Consumer::position`](super::Consumer::position).
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        if !self.origin.is_here() {
            return None;
        }
        self.buffer.position(topic, partition)
    }

    /// As [`Consumer::seek`](super::Consumer::seek).
    ///
    /// # Errors
    /// Those of [`Consumer::seek`](super::Consumer::seek).
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.check()?;
        self.buffer.seek(topic, partition, to)
    }

    /// As [`Consumer::lag`](super::Consumer::lag).
    pub fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        if !self.origin.is_here() {
            return None;
        }
        self.buffer.lag(topic, partition)
    }

    /// As [`Consumer::pause`](super::Consumer::pause).
    ///
    /// # Errors
    /// Those of [`Consumer::pause`](super::Consumer::pause).
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.check()?;
        self.buffer.pause(&partitions.into_iter().collect::<Vec<_>>(), true)
    }

    /// As [`Consumer::resume`](super::Consumer::resume).
    ///
    /// # Errors
    /// Those of [`Consumer::resume`](super::Consumer::resume).
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.check()?;
        self.buffer.pause(&partitions.into_iter().collect::<Vec<_>>(), false)
    }

    /// As [`Consumer::paused`](super::Consumer::paused).
    pub fn paused(&self) -> Vec<TopicPartition> {
        if !self.origin.is_here() {
            return Vec::new();
        }
        self.buffer.paused()
    }

    /// As [`Consumer::assign`](super::Consumer::assign).
    ///
    /// # Errors
    /// Those of [`Consumer::assign`](super::Consumer::assign).
    pub fn assign<T: Into<String>>(
        &self,
        partitions: impl IntoIterator<Item = (T, i32, Start)>,
    ) -> Result<()> {
        self.check()?;
        self.decides()?;
        self.buffer.assign(checked(partitions)?)
    }

    /// As [`Consumer::unassign`](super::Consumer::unassign).
    ///
    /// # Errors
    /// Those of [`Consumer::unassign`](super::Consumer::unassign).
    pub fn unassign<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.check()?;
        self.decides()?;
        self.buffer.unassign(&partitions.into_iter().collect::<Vec<_>>())
    }

    /// As [`Consumer::assignment`](super::Consumer::assignment).
    pub fn assignment(&self) -> Vec<TopicPartition> {
        if !self.origin.is_here() {
            return Vec::new();
        }
        self.buffer.assignment()
    }

    /// As [`Consumer::commit`](super::Consumer::commit).
    ///
    /// # Errors
    /// Those of [`Consumer::commit`](super::Consumer::commit).
    pub async fn commit(&self) -> Result<()> {
        self.begin_commit()?.await
    }

    /// The same: what is done when this is called is in it. The future is its end.
    pub(crate) fn begin_commit(&self) -> Result<Committing> {
        self.order(None)
    }

    /// As [`Consumer::commit_to`](super::Consumer::commit_to).
    ///
    /// # Errors
    /// Those of [`Consumer::commit_to`](super::Consumer::commit_to).
    pub async fn commit_to<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a str, i32, i64)>,
    ) -> Result<()> {
        self.begin_commit_to(offsets)?.await
    }

    /// The same, as [`Self::begin_commit`].
    pub(crate) fn begin_commit_to<T: Into<Arc<str>>>(
        &self,
        offsets: impl IntoIterator<Item = (T, i32, i64)>,
    ) -> Result<Committing> {
        let place = |(topic, partition, offset): (T, i32, i64)| {
            let topic: Arc<str> = topic.into();
            check_topic(&topic)?;
            if partition < 0 || offset < 0 {
                return Err(Error::argument(format!(
                    "offset {offset} of topic '{topic}' partition {partition} is negative"
                )));
            }
            Ok(((topic, partition), (offset, NO_EPOCH)))
        };
        let places = offsets.into_iter().map(place).collect::<Result<_>>()?;
        self.order(Some(places))
    }

    fn order(&self, places: Option<Places>) -> Result<Committing> {
        let (reply, done) = oneshot::channel();
        self.tell(Command::Commit(Order { places, reply }))?;
        Ok(Box::pin(async { done.await.unwrap_or_else(|_| Err(Error::closed("consumer"))) }))
    }

    /// As [`Consumer::subscribe`](super::Consumer::subscribe).
    ///
    /// # Errors
    /// Those of [`Consumer::subscribe`](super::Consumer::subscribe).
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        topics.iter().try_for_each(|topic| check_topic(topic))?;
        if topics.is_empty() {
            return Err(Error::argument("there is no topic to subscribe to")
                .advise("close the consumer to leave its group"));
        }
        let topics = topics.iter().map(|topic| Arc::from(topic.as_str())).collect();
        self.tell(Command::Subscribe(topics))
    }

    fn tell(&self, command: Command) -> Result<()> {
        self.check()?;
        let Some(contact) = &self.contact else {
            return Err(Error::argument("this consumer is not a member of a group")
                .advise("name the group when the consumer is made"));
        };
        if contact.order(command) { Ok(()) } else { Err(Error::closed("consumer")) }
    }

    /// Ends fetching: whoever waits for a batch gets `None`, now and later. Closing again does nothing.
    ///
    /// # Errors
    /// `Forked` in a child of the process that made the consumer.
    pub fn close(&self) -> Result<()> {
        self.check()?;
        self.buffer.close();
        Ok(())
    }

    /// What the application has in hand stays unfinished at the end, and is not waited for.
    pub(crate) fn lets_go(&self) {
        if self.origin.is_here() {
            self.buffer.lets_go();
        }
    }

    /// A wait has ended without anything, and nobody else waits: a member of a group has to come back within the max poll interval.
    pub(crate) fn waits_no_more(&self) {
        if self.origin.is_here() {
            self.buffer.waits_no_more(WHO);
        }
    }

    /// Whether nothing more will be fetched: closed, or its engine has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closed() || self.buffer.is_over()
    }

    /// In a group it is not the application that decides what is read.
    fn decides(&self) -> Result<()> {
        if self.contact.is_none() {
            return Ok(());
        }
        Err(Error::argument(
            "this consumer is a member of a group, which gives and takes its partitions",
        )
        .advise("pause what is not wanted for now, or make a consumer without a group"))
    }

    fn check(&self) -> Result<()> {
        if self.origin.is_here() { Ok(()) } else { Err(fork::forked()) }
    }

    /// Whether the consumer was closed or dropped, or is a parent process's.
    pub fn is_closed(&self) -> bool {
        !self.origin.is_here() || self.buffer.is_closed()
    }
}
