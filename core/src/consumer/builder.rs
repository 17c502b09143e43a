//! Settings of a consumer.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::buffer::{Buffer, Key};
use super::control::checked;
use super::fetcher::Fetcher;
use super::group::task::{Contact, Member as MemberTask};
use super::group::wish::{Wish, is_pattern};
use super::group::{Assignor, Commit, GroupConfig, GroupProtocol};
use super::marks::Attention;
use super::{Consumer, Member};
use crate::caught::caught;
use crate::cluster::Handle;
use crate::config::foreign::Owner;
use crate::config::properties::{self, Properties, Value};
use crate::config::{ConsumerConfig, Isolation, Start};
use crate::error::{Error, Result};

/// The settings of a member, whose group may be named later.
fn of(group: &mut Option<GroupConfig>) -> &mut GroupConfig {
    group.get_or_insert_with(|| GroupConfig::new(String::new()))
}

/// Settings of a [`Consumer`]; get one from [`Client::consumer`](crate::Client::consumer).
#[derive(Clone)]
#[must_use]
pub struct ConsumerBuilder {
    pool: Handle,
    config: ConsumerConfig,
    topics: Vec<String>,
    assigned: Vec<(String, i32, Start)>,
    start: Start,
    group: Option<GroupConfig>,
    /// A property says that nothing is committed by itself, which holds without a group, too.
    by_hand: Option<Commit>,
    /// The error of properties that were refused.
    refused: Option<Error>,
}

impl ConsumerBuilder {
    pub(crate) fn new(pool: Handle) -> Self {
        Self {
            pool,
            config: ConsumerConfig::default(),
            topics: Vec::new(),
            assigned: Vec::new(),
            start: Start::Earliest,
            group: None,
            by_hand: None,
            refused: None,
        }
    }

    /// Reads every partition of these topics, those added later included. What is found after the
    /// consumer was made (partitions that were added, a topic that was not there) is read from its
    /// first record, whatever [`start`](Self::start) says: all of it is new.
    ///
    /// With a [`group`](Self::group), a name that begins with `^` is a pattern of whole names, in RE2's syntax: `^orders-.*`. Under
    /// the next generation the coordinator looks for topics that match (within 10 s); of a classic group each member
    /// does, when it joins and every 4 to 5 minutes, and leaves out those that are Kafka's own. What comes to match later is
    /// read from its first record in a classic group, and from [`start`](Self::start) under the next generation.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Reads the [`topics`](Self::topics) together with the other members of this group: each partition is one member's at
    /// a time, and read on where the group was. Where it never was, reading begins at [`start`](Self::start). The
    /// consumer becomes a member when it is asked for the first batch.
    ///
    /// What was handed out counts as done once the next is asked for, and is committed every 5 s, when partitions are
    /// given up, and by a close: see [`commit`](Self::commit).
    pub fn group(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        match &mut self.group {
            Some(group) => group.id = Arc::from(id),
            None => self.group = Some(GroupConfig::new(id)),
        }
        self
    }

    fn of_group(mut self, set: impl FnOnce(&mut GroupConfig)) -> Self {
        set(of(&mut self.group));
        self
    }

    /// Makes it a static member (KIP-345): one that restarts within the session timeout under the same id has its partitions
    /// again, and the others notice nothing. It does not leave when it is closed. Each running consumer has its own.
    pub fn instance_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.of_group(|group| group.instance_id = Some(Arc::from(id)))
    }

    /// Which of Kafka's two protocols of groups it speaks. Default: the next generation (KIP-848) where the cluster has
    /// it and the group has no classic members.
    pub fn group_protocol(self, protocol: GroupProtocol) -> Self {
        self.of_group(|group| group.protocol = protocol)
    }

    /// Under the next generation: which assignor of the coordinator assigns, `uniform` or `range` or one that the brokers
    /// were given (`group.consumer.assignors`). The last to join decides for the group. Default: the brokers' first.
    pub fn remote_assignor(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.of_group(|group| group.remote_assignor = Some(Arc::from(name)))
    }

    /// After how long without a heartbeat the group gives the member's partitions to others. 1 s to a day within what
    /// the brokers allow (`group.min.session.timeout.ms` and `max`); default 45 s. Heartbeats go out by themselves, whatever
    /// the application does: every 3 s, or three in a session timeout. Of the classic protocol: under the next generation
    /// the brokers decide both (`group.consumer.session.timeout.ms`).
    pub fn session_timeout(self, timeout: Duration) -> Self {
        self.of_group(|group| group.session_timeout = Some(timeout))
    }

    /// How long the application may take between being handed a batch and asking for the next, and how long a rebalance
    /// waits for members. After that the member leaves, so that others have its partitions; when the application asks
    /// again it joins again. 1 s to a day, default 300 s.
    pub fn max_poll_interval(self, interval: Duration) -> Self {
        self.of_group(|group| group.max_poll_interval = interval)
    }

    /// Of the classic protocol: who may decide which member reads what, the preferred first; the members of a group have at least one in common.
    /// Default: `range` and `cooperative-sticky`, as Java's client has it. One that is not cooperative makes the member
    /// give up all partitions in each rebalance.
    pub fn assignors(self, assignors: impl IntoIterator<Item = Assignor>) -> Self {
        let assignors = assignors.into_iter().collect();
        self.of_group(|group| group.assignors = Some(assignors))
    }

    /// When what was handed out counts as done. Default: once the next is asked for.
    pub fn commit(mut self, commit: Commit) -> Self {
        self.by_hand = None;
        self.of_group(|group| group.commit = commit)
    }

    /// How often what is done is committed, +-20 %. 10 ms to a day, default 5 s.
    pub fn commit_interval(self, interval: Duration) -> Self {
        self.of_group(|group| group.commit_interval = interval)
    }

    /// Reads these partitions.
    pub fn assign<T: Into<String>>(
        mut self,
        partitions: impl IntoIterator<Item = (T, i32, Start)>,
    ) -> Self {
        self.assigned.extend(partitions.into_iter().map(|(t, p, s)| (t.into(), p, s)));
        self
    }

    /// Where partitions of [`topics`](Self::topics) start that are there when the consumer is made.
    /// Default: earliest. Also where a partition goes on whose records were deleted under the reader
    /// (`Earliest` for a timestamp), after `next` has told that (`OffsetOutOfRange`).
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How long a broker may hold a fetch back while it has nothing. 0 to 300 s, below the request
    /// timeout; default 500 ms. Where brokers do not hold them back (0, or `min_bytes(0)`), empty responses
    /// are paced: after the n-th in a row the next fetch goes to that broker not before U(1/2, 1) *
    /// min(100 ms, 1 ms * 2^n) after the last. What flows is never paced.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// Bytes a broker gathers before it answers, `max_wait` permitting. Default 1.
    pub fn min_bytes(mut self, bytes: usize) -> Self {
        self.config.min_bytes = bytes;
        self
    }

    /// Bytes of one fetch. 1 KiB to 100 MiB, default 8 MiB. A first batch that is larger comes all
    /// the same.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// Bytes of one partition in one fetch. 1 KiB to 100 MiB, default 1 MiB.
    pub fn max_partition_bytes(mut self, bytes: usize) -> Self {
        self.config.max_partition_bytes = bytes;
        self
    }

    /// Memory for records, at most, wherever they are: in responses that may come, in those that are queued, in those of which
    /// the application keeps a batch (a batch keeps its whole response until it is dropped, or
    /// [detached](crate::Batch::detach)), and in what batches are decompressed into. Each broker is read ahead by one and a half
    /// responses, and a response is at most a quarter of its share of this. 64 KiB to 1 TiB, default 64 MiB.
    ///
    /// Two things come on top: a batch that is larger than was asked for, as brokers never cut the first one; and one batch for
    /// each thread that takes one, while it is decompressed, of 256 MiB at most (one that would be larger is an error,
    /// `Corrupt`, and is passed over as damaged ones are). An application that keeps more than this reads on all the
    /// same, by one small response at a time, and a line in the log says so.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// Whether checksums are compared. Default: yes.
    pub fn check_crc(mut self, check: bool) -> Self {
        self.config.check_crc = check;
        self
    }

    /// Which records of transactions are read. Default: all, also of those that were aborted.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.config.isolation = isolation;
        self
    }

    /// Takes the settings of a consumer from properties as Java's client and librdkafka have them:
    /// `auto.offset.reset`, `fetch.max.wait.ms`, `fetch.min.bytes`, `fetch.max.bytes`,
    /// `max.partition.fetch.bytes`, `check.crcs`, `isolation.level` and their aliases; and, of members of groups, `group.id`,
    /// `group.instance.id`, `session.timeout.ms`, `max.poll.interval.ms`, `partition.assignment.strategy`,
    /// `group.protocol` (`consumer`: [`GroupProtocol::Next`]), `group.remote.assignor`,
    /// `enable.auto.commit` (`false`: [`Commit::Manual`]), `auto.commit.interval.ms` and `enable.auto.offset.store` (`false`:
    /// [`Commit::Acked`]; both `false`: [`Commit::ManualAcked`]). Those of clients are passed over
    /// ([`ClientBuilder::from_properties`](crate::ClientBuilder::from_properties)).
    ///
    /// Settings that are not named keep Ottla's defaults: reading starts at the oldest record, unless
    /// [`start`](Self::start) is told otherwise.
    ///
    /// A producer's property, a name that no client has, and one that asks for what is not done here,
    /// is refused by [`build`](Self::build) (`Config`), with what there is instead.
    pub fn from_properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.read_properties(&properties.into_iter().collect())
    }

    pub(crate) fn read_properties(mut self, properties: &Properties) -> Self {
        let settings = properties::read(Owner::Consumer, properties);
        let taken = settings.and_then(|settings| {
            for (name, value) in settings {
                let group = &mut self.group;
                let config = &mut self.config;
                match (name, value) {
                    ("assignors", Value::Assignors(assignors)) => {
                        of(group).assignors = Some(assignors);
                    }
                    ("buffer_memory", Value::Size(bytes)) => config.buffer_memory = bytes,
                    ("check_crc", Value::Flag(check)) => config.check_crc = check,
                    ("commit", Value::Commit(commit)) if commit.is_by_hand() => {
                        self.by_hand = Some(commit);
                    }
                    ("commit", Value::Commit(commit)) => of(group).commit = commit,
                    ("commit_interval", Value::Time(time)) => of(group).commit_interval = time,
                    ("group", Value::Text(id)) => of(group).id = Arc::from(id),
                    ("group_protocol", Value::GroupProtocol(protocol)) => {
                        of(group).protocol = protocol;
                    }
                    ("instance_id", Value::Text(id)) => of(group).instance_id = Some(Arc::from(id)),
                    ("isolation", Value::Isolation(isolation)) => config.isolation = isolation,
                    ("max_bytes", Value::Size(bytes)) => config.max_bytes = bytes,
                    ("max_partition_bytes", Value::Size(bytes)) => {
                        config.max_partition_bytes = bytes;
                    }
                    ("max_poll_interval", Value::Time(time)) => of(group).max_poll_interval = time,
                    ("max_wait", Value::Time(time)) => config.max_wait = time,
                    ("min_bytes", Value::Size(bytes)) => config.min_bytes = bytes,
                    ("remote_assignor", Value::Text(name)) => {
                        of(group).remote_assignor = Some(Arc::from(name));
                    }
                    ("session_timeout", Value::Time(time)) => {
                        of(group).session_timeout = Some(time);
                    }
                    ("start", Value::Start(start)) => self.start = start,
                    (name, _) => return Err(properties::not_taken(name)),
                }
            }
            Ok(())
        });
        self.refused = self.refused.or(taken.err());
        self
    }

    /// The consumer; fetching starts at once.
    ///
    /// # Errors
    /// `Config` for a setting out of its range, or nothing to read; `InvalidArgument` for what is
    /// not a topic name, and for a start below zero.
    pub fn build(self) -> Result<Consumer> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        self.pool.env().check_process()?;
        self.config.check(self.pool.request_timeout())?;
        if self.topics.is_empty() && self.assigned.is_empty() {
            return Err(Error::config("nothing to read; name topics or assign partitions"));
        }
        if self.group.is_none()
            && let Some(pattern) = self.topics.iter().find(|topic| is_pattern(topic))
        {
            let words = format!(
                "'{}' is a pattern of topics, and there is no group",
                pattern.escape_debug()
            );
            return Err(Error::config(words).advise("name a group, or each of the topics"));
        }
        let wish = Wish::new(&self.topics)?;
        let assigned = checked(self.assigned.clone())?;
        self.start.check()?;
        if let Some(mut group) = self.group.clone() {
            group.commit = self.by_hand.unwrap_or(group.commit);
            return self.member((group, wish), &assigned);
        }
        let buffer = Arc::new(Buffer::new(self.config.clone()));
        buffer.assign(assigned)?;
        let fetcher = Fetcher::new(&self.pool, &buffer, wish.names, self.start);
        let told = Arc::clone(&buffer);
        self.pool.env().spawn(async move {
            // The fetcher's positions are lost with it, so the consumer cannot go on.
            if let Err(e) = caught(fetcher.run()).await {
                told.end(e);
            }
        });
        Ok(Consumer { pool: self.pool, buffer, member: None, kept: VecDeque::new() })
    }

    /// A consumer that is a member of a group.
    fn member(
        self,
        (group, wish): (GroupConfig, Wish),
        assigned: &[(Key, Start)],
    ) -> Result<Consumer> {
        group.check()?;
        if !assigned.is_empty() {
            return Err(Error::config(
                "both a group and partitions of its own: the group decides what its members read",
            )
            .advise("leave out assign, or group"));
        }
        let attention = Arc::new(Attention::default());
        let buffer = Arc::new(Buffer::of_member(self.config.clone(), &attention));
        let fetcher = Fetcher::new(&self.pool, &buffer, Vec::new(), self.start);
        let (orders, taken) = mpsc::unbounded_channel();
        let (alive, ended) = watch::channel(());
        let marks = group.commit.is_by_asking();
        let contact = Contact::new(orders);
        let settings = (group, wish, self.start);
        let task = MemberTask::new(&self.pool, &buffer, attention, taken, settings);
        for (run, told) in [
            (Box::pin(fetcher.run()) as Pin<Box<dyn Future<Output = ()> + Send>>, None),
            (Box::pin(task.run()), Some(alive)),
        ] {
            let buffer = Arc::clone(&buffer);
            self.pool.env().spawn(async move {
                if let Err(e) = caught(run).await {
                    buffer.end(e);
                }
                drop(told);
            });
        }
        let member = Member { contact, marks, in_hand: None, ended };
        Ok(Consumer { pool: self.pool, buffer, member: Some(member), kept: VecDeque::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Client, ErrorKind};

    fn builder() -> ConsumerBuilder {
        Client::builder().bootstrap("a:1").build().unwrap().consumer()
    }

    fn settings(builder: &ConsumerBuilder) -> (Duration, [usize; 4], bool) {
        let config = &builder.config;
        let bytes = [config.min_bytes, config.max_bytes, config.max_partition_bytes];
        let [a, b, c] = bytes;
        (config.max_wait, [a, b, c, config.buffer_memory], config.check_crc)
    }

    /// By its method and by the names that others have for it.
    #[test]
    fn every_setting_arrives() {
        let wanted = (Duration::from_millis(7), [2, 3_000, 4_000, 5 << 20], false);
        let set = builder().max_wait(wanted.0).min_bytes(2).max_bytes(3_000);
        let set = set.max_partition_bytes(4_000).buffer_memory(5 << 20).check_crc(false);
        assert_eq!(settings(&set), wanted);
        let read = builder().from_properties([
            ("fetch.max.wait.ms", "7"),
            ("fetch.min.bytes", "2"),
            ("fetch.max.bytes", "3000"),
            ("max.partition.fetch.bytes", "4000"),
            ("queued.max.messages.kbytes", "5120"),
            ("check.crcs", "false"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_committed"),
        ]);
        assert!(read.refused.is_none(), "{:?}", read.refused);
        assert_eq!((settings(&read), read.start), (wanted, Start::Latest));
        assert_eq!(read.config.isolation, Isolation::ReadCommitted);
        let set = set.isolation(Isolation::ReadCommitted);
        assert_eq!(set.config.isolation, Isolation::ReadCommitted);
    }

    #[test]
    fn settings_of_a_member_arrive() {
        let secs = Duration::from_secs;
        let assignors = [Assignor::CooperativeSticky, Assignor::Range];
        let set = builder().group("g").instance_id("one").session_timeout(secs(20));
        let set = set.group_protocol(GroupProtocol::Classic);
        let set = set.max_poll_interval(secs(60)).assignors(assignors).commit(Commit::Acked);
        let set = set.commit_interval(secs(2));
        let read = builder().from_properties([
            ("group.id", "g"),
            ("group.instance.id", "one"),
            ("session.timeout.ms", "20000"),
            ("max.poll.interval.ms", "60000"),
            (
                "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor, range",
            ),
            ("enable.auto.offset.store", "false"),
            ("auto.commit.interval.ms", "2000"),
            ("group.protocol", "CLASSIC"),
        ]);
        assert!(read.refused.is_none(), "{:?}", read.refused);
        for builder in [set, read] {
            let group = builder.group.unwrap();
            group.check().unwrap();
            assert_eq!((&*group.id, group.instance_id.as_deref()), ("g", Some("one")));
            assert_eq!((group.session_timeout(), group.max_poll_interval), (secs(20), secs(60)));
            assert_eq!(group.protocol, GroupProtocol::Classic);
            assert_eq!((group.commit, group.commit_interval), (Commit::Acked, secs(2)));
            assert_eq!(group.assignors(), assignors);
        }
    }

    /// Programs without a group say so, since others would commit.
    #[test]
    fn that_nothing_is_committed_needs_no_group() {
        let manual = || builder().from_properties([("enable.auto.commit", "false")]).topics(["t"]);
        let member = manual().group("g").build().unwrap();
        assert!(member.departure().is_some());
        assert!(manual().build().unwrap().departure().is_none());
        assert!(manual().group("g").commit(Commit::Marks).by_hand.is_none());
        let kind = |builder: ConsumerBuilder| builder.build().map(drop).unwrap_err().kind();
        let both = builder().group("g").topics(["t"]).assign([("t", 0, Start::Earliest)]);
        let nowhere = builder().topics(["t"]).session_timeout(Duration::from_secs(20));
        for builder in [both, nowhere] {
            assert_eq!(kind(builder), ErrorKind::Config);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let kind = |builder: ConsumerBuilder| builder.build().map(drop).unwrap_err().kind();
        assert_eq!(kind(builder()), ErrorKind::Config, "nothing to read");
        let argument = ErrorKind::InvalidArgument;
        assert_eq!(kind(builder().topics(["no topic"])), argument);
        assert_eq!(kind(builder().assign([("t", -1, Start::Earliest)])), argument);
        assert_eq!(kind(builder().assign([("t", 0, Start::Offset(-1))])), argument);
        assert_eq!(kind(builder().topics(["t"]).start(Start::Timestamp(-1))), argument);
        assert_eq!(kind(builder().topics(["t"]).max_bytes(1)), ErrorKind::Config);
    }
}
