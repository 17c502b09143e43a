//! Members of consumer groups, for a binding: their settings, what they commit, what the group says between two batches, and
//! how they leave.

use std::time::{Duration, Instant};

use super::batch::Batch;
use super::completion::{CompletionKind, Reply};
use super::consumer::{HostConsumer, Next};
use super::options::with;
use crate::TopicPartition;
use crate::consumer::{Assignor, Commit, ConsumerBuilder, Event, GroupProtocol};
use crate::error::{Error, Result};

/// Settings of a member of a group. Without any of them the consumer is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupOptions {
    /// The group.
    pub id: Option<String>,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// Default: auto.
    pub protocol: Option<GroupProtocol>,
    /// The coordinator's, under the next generation.
    pub remote_assignor: Option<String>,
    /// Default 45 s.
    pub session_timeout: Option<Duration>,
    /// Default 300 s.
    pub max_poll_interval: Option<Duration>,
    /// Who may decide what each member reads, the preferred first; see [`assignors`]. Default: `range` and
    /// `cooperative-sticky`.
    pub assignors: Option<Vec<Assignor>>,
    /// Default: marks.
    pub commit: Option<Commit>,
    /// Default 5 s.
    pub commit_interval: Option<Duration>,
}

impl GroupOptions {
    pub(super) fn is_any(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn apply(&self, b: ConsumerBuilder) -> ConsumerBuilder {
        let b = with(b, self.id.as_deref(), ConsumerBuilder::group);
        let b = with(b, self.instance_id.as_deref(), ConsumerBuilder::instance_id);
        let b = with(b, self.protocol, ConsumerBuilder::group_protocol);
        let b = with(b, self.remote_assignor.as_deref(), ConsumerBuilder::remote_assignor);
        let b = with(b, self.session_timeout, ConsumerBuilder::session_timeout);
        let b = with(b, self.max_poll_interval, ConsumerBuilder::max_poll_interval);
        let b = with(b, self.assignors.clone(), ConsumerBuilder::assignors);
        let b = with(b, self.commit, ConsumerBuilder::commit);
        with(b, self.commit_interval, ConsumerBuilder::commit_interval)
    }
}

/// Assignors by their names, separated by commas: `range`, `roundrobin`, `sticky`, `cooperative-sticky`.
///
/// # Errors
/// `Config` for a name that is none of these.
pub fn assignors(names: &str) -> Result<Vec<Assignor>> {
    let named = |name: &str| {
        Assignor::from_name(name.trim()).ok_or_else(|| {
            Error::config(format!("assignors: '{}' is none", name.trim()))
                .advise("range, roundrobin, sticky or cooperative-sticky")
        })
    };
    names.split(',').map(named).collect()
}

/// What the group says to its member between two batches. See [`Event`].
#[derive(Clone, Debug)]
pub enum GroupEvent {
    /// These partitions have come.
    Assigned(Vec<TopicPartition>),
    /// These are given up once the next is asked for, and at the deadline at the latest.
    GivingUp {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// When.
        deadline: Instant,
    },
    /// These are somebody else's by now, perhaps.
    Lost(Vec<TopicPartition>),
}

impl From<Event> for Next {
    fn from(event: Event) -> Self {
        Next::Event(match event {
            Event::Batch(batch) => return Next::Batch(Batch::fetched(batch)),
            Event::Assigned(partitions) => GroupEvent::Assigned(partitions),
            Event::GivingUp { partitions, deadline } => {
                GroupEvent::GivingUp { partitions, deadline: deadline.into_std() }
            }
            Event::Lost(partitions) => GroupEvent::Lost(partitions),
        })
    }
}

/// Offsets to commit: topic, partition, and the offset of the next record to read.
pub type CommitOffset = (String, i32, i64);

impl HostConsumer {
    /// As [`try_next`](Self::try_next), and gives what the group says too. The application that has once asked so is given
    /// time for that: partitions that are given up are so when it asks for the next.
    pub fn try_next_event(&self) -> Result<Next> {
        self.try_look(None)
    }

    /// The same, and waits as [`next`](Self::next) does.
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Next> {
        self.wait_look(None, timeout)
    }

    /// Commits what is done, or these offsets; ends in a `Committed` completion, whatever comes of it. What is done when this
    /// is called is in it. See [`Consumer::commit`](crate::Consumer::commit) and
    /// [`commit_to`](crate::Consumer::commit_to).
    pub fn commit(&self, tag: u64, to: Option<&[CommitOffset]>) {
        self.commit_by(Reply::queue(self.engine.queue(), tag, CompletionKind::Committed), to);
    }

    /// The same for a thread that waits. After `timeout` (`None`: no limit but the group's) it may still be committed.
    pub fn commit_wait(
        &self,
        to: Option<&[CommitOffset]>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.commit_by(reply, to);
        waiter.wait("commit", timeout)
    }

    fn commit_by(&self, reply: Reply, to: Option<&[CommitOffset]>) {
        let offsets =
            |(topic, partition, offset): &CommitOffset| (topic.clone(), *partition, *offset);
        let begun = self.check().and_then(|()| {
            let control = self.control()?;
            match to {
                None => control.begin_commit(),
                Some(to) => control.begin_commit_to(to.iter().map(offsets)),
            }
        });
        match begun {
            Err(error) => reply.resolve(Err(error)),
            Ok(done) => self.engine.0.operations.start(&self.engine.0.env, reply, done),
        }
    }

    /// See [`Consumer::subscribe`](crate::Consumer::subscribe).
    pub fn subscribe(&self, topics: &[&str]) -> Result<()> {
        self.check()?;
        self.control()?.subscribe(topics.iter().copied())
    }

    /// [Closes](Self::close) it; ends in a `Closed` completion once a member of a group has committed what is done, and left.
    /// Closing again ends when the first close has.
    pub fn leave(&self, tag: u64) {
        self.leave_by(Reply::queue(self.engine.queue(), tag, CompletionKind::Closed));
    }

    /// The same for a thread that waits. After `timeout` (`None`: no limit but the core's own) it goes on by itself.
    pub fn leave_wait(&self, timeout: Option<Duration>) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.leave_by(reply);
        waiter.wait("leaving the group", timeout)
    }

    fn leave_by(&self, reply: Reply) {
        if let Err(error) = self.check_process() {
            return reply.resolve(Err(error));
        }
        self.close();
        match self.departure() {
            None => reply.resolve(Ok(())),
            Some(mut ended) => {
                self.engine.0.operations.start(&self.engine.0.env, reply, async move {
                    // It never says anything: its end is what is waited for.
                    while ended.changed().await.is_ok() {}
                    Ok(())
                });
            }
        }
    }
}

/// What is asked of a consumer that is in no group.
pub(super) fn not_a_member() -> Error {
    Error::argument("this consumer is not a member of a group")
        .advise("name the group when the consumer is made")
}
