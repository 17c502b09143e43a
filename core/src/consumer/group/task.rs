//! The task of a member: it hands the machine what happens, and does what the machine wants. Beside that it looks up where
//! the group was in partitions that come, commits what is done, and gives partitions up once the application has
//! finished what it has of them.

mod actions;
mod giving;
mod leader;
mod machine;
mod next;
mod patterns;
mod places;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::auto::Protocol;
use super::calls::{Calls, Failure, Found, Joined, Profile, Turns};
use super::events::{self, Identity, Outcome, RequestId, Settings};
use super::offsets::{Offsets, Order};
use super::settings::GroupConfig;
use super::wire::Partitions;
use super::wish::Wish;
use giving::Giving;
use machine::Machine;
use places::not_a_member;

use crate::cluster::survey::Seen;
use crate::cluster::{Handle, Lookup};
use crate::config::Start;
use crate::consumer::buffer::{Buffer, Key, Lease, Presence};
use crate::consumer::event::Event;
use crate::consumer::marks::{Attention, MOST_OPEN};
use crate::consumer::{StreamEnd, WHO};
use crate::environment::{Environment, earlier};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::Origin;
use crate::metrics::limited;
use crate::policy::backoff::Backoff;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::spell::Spell;

/// What the task hears of its own calls, and of the application.
enum News {
    Coordinator {
        id: RequestId,
        found: Result<i32>,
    },
    /// `joined`: of a JoinGroup, what the leader needs of it.
    Answer {
        id: RequestId,
        outcome: Outcome<machine::Answer>,
        joined: Option<Joined>,
    },
    /// A request has no response.
    Lost {
        id: RequestId,
        failure: Failure,
    },
    /// Which protocol it is, and who coordinates the group.
    Chosen(Result<(Protocol, i32), Failure>),
    Planned {
        join: RequestId,
        plan: Result<leader::Plan>,
    },
    /// What the group has of partitions that came.
    Found {
        of: Of,
        found: Result<Vec<(Take, Found)>, Failure>,
    },
    Committed {
        of: Of,
        answer: Result<Vec<(Key, i16)>, Failure>,
    },
    /// All topics there are, for the so-manyeth subscription.
    Topics {
        of: u64,
        seen: Result<(i32, Vec<Seen>)>,
    },
    /// Topics whose names were asked for.
    Names {
        of: u64,
        seen: Result<Vec<Seen>>,
    },
}

/// Of a call beside the machine's: who made it, to the coordinator of which lookup, and when.
#[derive(Clone)]
struct Of {
    sent: Identity,
    found: RequestId,
    since: Instant,
}

/// A partition that came, as the so-manyeth: it may go and come again while the group is asked about it.
type Take = (Key, u64);

/// A partition of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Of its topic; nil from the classic protocol, which knows names only.
    topic: Uuid,
    /// What its name stood for in the metadata when it came, which may have been behind.
    was: Uuid,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Where the group was is looked up.
    Looking(u64),
    Reading,
}

/// Orders of the application.
pub(crate) enum Command {
    Commit(Order),
    Subscribe(Wish),
}

/// How the application's side reaches the task.
#[derive(Clone)]
pub(crate) struct Contact {
    /// Forgotten in a forked child: the last one to be dropped wakes a task, with locks of the parent's threads.
    orders: Option<mpsc::UnboundedSender<Command>>,
    origin: Origin,
}

impl Contact {
    pub(crate) fn new(orders: mpsc::UnboundedSender<Command>) -> Self {
        Self { orders: Some(orders), origin: Origin::here() }
    }

    /// Gives whether there is still a task.
    pub(crate) fn order(&self, command: Command) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.send(command).is_ok())
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            std::mem::forget(self.orders.take());
        }
    }
}

/// A topic when it was seen first: which it was, and how many partitions it had. Nothing of one that was not there.
#[derive(Clone, Copy, Debug, Default)]
struct FirstSeen {
    id: Uuid,
    count: i32,
}

/// See the module.
pub(crate) struct Member {
    pool: Handle,
    env: Environment,
    rng: StdRng,
    config: GroupConfig,
    /// Where partitions begin of which the group has nothing.
    start: Start,
    /// What is subscribed to.
    wish: Wish,
    /// The topics of that which are known by name now.
    topics: Vec<Arc<str>>,
    patterns: patterns::Patterns,
    /// How many partitions each of them had when it was seen first: what comes later is read from its first record.
    first_seen: BTreeMap<Arc<str>, FirstSeen>,
    /// When the topics are looked at again, whether there is news of them or not.
    learn_at: Instant,
    /// Topics that the application was told are not to be had, and why.
    told: BTreeMap<Arc<str>, ErrorKind>,
    /// The kind of the last error about offsets that it was told.
    offsets_told: Option<ErrorKind>,
    buffer: Arc<Buffer>,
    attention: Arc<Attention>,
    calls: Calls,
    machine: Machine,
    choice: next::Choice,
    /// Of the next generation: what its heartbeats say, and their order.
    profile: Profile,
    turns: Turns,
    settings: Settings,
    /// By which lookup, and who.
    coordinator: Option<(RequestId, i32)>,
    leader: leader::Leader,
    /// What the last assignment was, and of which generation: an eager member's history.
    history: (Partitions, i32),
    /// Partitions of this member; those that are not read yet wait for what the group has of them.
    parts: BTreeMap<Key, Part>,
    takes: u64,
    looking: bool,
    look_at: Option<Instant>,
    look_backoff: Backoff,
    /// The coordinator cannot be found, or not be reached.
    silence: Spell,
    givings: Vec<Giving>,
    /// Until then names of newly assigned topics are waited for before anything is given up.
    nameless_until: Option<Instant>,
    offsets: Offsets,
    presence: Presence,
    /// Since when who reads is away, by number: the consumer, and streams of single partitions.
    away: BTreeMap<u64, Instant>,
    /// How often partitions had too much in hand, and how often that was over.
    fillings: (u64, u64),
    halted: bool,
    lease: Lease,
    /// When the consumer is closed, at the latest.
    closes: Option<Instant>,
    closing: bool,
    ended: bool,
    /// The incarnation of the cluster that the group is of.
    incarnation: u64,
    orders: mpsc::UnboundedReceiver<Command>,
    tx: mpsc::UnboundedSender<News>,
    rx: mpsc::UnboundedReceiver<News>,
}

/// Topics that are not there are looked up again after this time, and the others, so that they count as used.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const STILL_USED: Duration = Duration::from_secs(60);

/// A topic whose name nobody tells is not waited for longer than this: it may be one that this client may not see.
const NAMELESS: Duration = Duration::from_secs(5);

/// How long a close may take, commit and farewell included.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How much of that is left for what is done by itself at the end, whatever was ordered before.
const CLOSE_RESERVE: Duration = Duration::from_secs(5);

impl Member {
    pub(crate) fn new(
        pool: &Handle,
        buffer: &Arc<Buffer>,
        attention: Arc<Attention>,
        orders: mpsc::UnboundedReceiver<Command>,
        (config, wish, start): (GroupConfig, Wish, Start),
    ) -> Self {
        let env = pool.env().clone();
        let now = env.now();
        let mut rng = env.rng();
        let settings = Settings {
            instance_id: config.instance_id.clone(),
            session_timeout: config.session_timeout(),
            max_poll_interval: config.max_poll_interval,
            eager: !super::assignors::is_cooperative(config.assignors()),
            request_timeout: pool.request_timeout(),
        };
        let profile = Profile {
            rack: pool.settings().rack.as_deref().map(Arc::from),
            max_poll_interval: config.max_poll_interval,
            assignor: config.remote_assignor.clone(),
        };
        let by_hand = config.commit.is_by_hand();
        let calls = Calls::new(
            pool,
            pool.next_consumer(),
            (Arc::clone(&config.id), config.instance_id.clone()),
        );
        let (tx, rx) = mpsc::unbounded_channel();
        Self {
            machine: Machine::None { wanted: false },
            choice: next::Choice::default(),
            profile,
            turns: Turns::default(),
            settings,
            offsets: Offsets::new(
                config.commit_interval,
                by_hand,
                pool.request_timeout(),
                now,
                &mut rng,
            ),
            incarnation: pool.settings().born,
            pool: pool.clone(),
            env,
            rng,
            config,
            start,
            topics: wish.names.clone(),
            wish,
            patterns: patterns::Patterns::default(),
            first_seen: BTreeMap::new(),
            learn_at: now,
            told: BTreeMap::new(),
            offsets_told: None,
            buffer: Arc::clone(buffer),
            attention,
            calls,
            coordinator: None,
            leader: leader::Leader::default(),
            history: (Partitions::new(), super::wire::NO_GENERATION),
            parts: BTreeMap::new(),
            takes: 0,
            looking: false,
            look_at: None,
            look_backoff: Backoff::default(),
            silence: Spell::default(),
            givings: Vec::new(),
            nameless_until: None,
            presence: Presence::default(),
            away: BTreeMap::new(),
            fillings: (0, 0),
            halted: false,
            lease: Lease::Over,
            closes: None,
            closing: false,
            ended: false,
            orders,
            tx,
            rx,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut metadata = self.pool.metadata().subscribe();
        let mut alarm = self.env.alarm();
        self.learn();
        loop {
            if !self.is_of_this_cluster() {
                break;
            }
            self.env.mishap("member");
            let now = self.env.now();
            if self.learn_at <= now {
                self.learn();
            }
            self.offsets.expire(now);
            self.nameless_until.take_if(|until| *until <= now);
            let is_closed = self.buffer.is_closed();
            self.look_for_full();
            self.see_application();
            // What was ordered before the application asked for the next, or closed, comes before that.
            for _ in 0..self.orders.len() {
                if let Ok(command) = self.orders.try_recv() {
                    self.obey(command);
                }
            }
            self.close_if_wanted(is_closed, now);
            self.look_at_topics(now);
            self.choose(now);
            if self.machine.next_wake().is_some_and(|at| at <= now) {
                self.tell(events::Event::Tick);
            }
            self.look_up(now);
            self.give(now);
            self.commit(now);
            self.renew_lease();
            if self.ended {
                break;
            }
            let wake = earlier(self.machine.next_wake(), self.offsets_wake());
            let wake = earlier(wake, self.look_wake());
            let wake = earlier(wake, self.choice_wake());
            let wake = earlier(wake, self.patterns_wake());
            let wake = earlier(wake, Some(self.learn_at));
            let wake = earlier(wake, self.offsets.expires());
            let wake = earlier(wake, self.closes.filter(|_| !self.closing));
            let wake =
                earlier(wake, self.givings.iter().filter_map(|giving| giving.last_call).min());
            let wake = earlier(wake, self.nameless_until);
            let doubt = self.buffer.doubted(None).map(|since| since + NAMELESS);
            let wake = earlier(wake, doubt.filter(|until| *until > now));
            // What the application does next matters: it comes back, or lets go of what is to be given up.
            if !self.givings.is_empty() || self.machine.identity().is_none() {
                self.attention.want();
                // It may have done so since it was looked at.
                let open =
                    self.givings.iter().any(|giving| !giving.finished && self.is_finished(giving));
                if open || self.buffer.presence() != self.presence {
                    // An application that looks again and again leaves the engine its turns.
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            let attention = Arc::clone(&self.attention);
            tokio::select! {
                biased;
                Some(news) = self.rx.recv() => self.hear(news),
                Some(command) = self.orders.recv() => self.obey(command),
                () = attention.wake.notified() => {}
                _ = metadata.changed() => self.learn(),
                () = alarm.until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            while let Ok(news) = self.rx.try_recv() {
                self.hear(news);
            }
        }
        self.finish();
    }

    /// Tells the machine, and does what it wants.
    fn tell(&mut self, event: events::Event<machine::Answer>) {
        let now = self.env.now();
        let actions = self.machine.on(event, now, &mut self.rng);
        for action in actions {
            self.act(action, now);
        }
    }

    /// Another cluster knows nothing of this group's members.
    fn is_of_this_cluster(&mut self) -> bool {
        if let Err(error) = self.pool.check() {
            self.offsets.lost(&error);
            self.buffer.end(error);
            return false;
        }
        let incarnation = self.pool.identity().incarnation();
        if std::mem::replace(&mut self.incarnation, incarnation) != incarnation {
            self.begins_anew();
        }
        true
    }

    /// Another cluster has taken the place of the old one. Nobody knows this member there, nothing is sent under its old
    /// ids, and nothing of its partitions is its own.
    fn begins_anew(&mut self) {
        self.replace(Machine::None { wanted: false });
        self.choice = next::Choice::default();
        self.patterns.begin_anew();
        self.topics.clone_from(&self.wish.names);
        self.told.clear();
        self.nameless_until = None;
        (self.coordinator, self.looking, self.look_at) = (None, false, None);
        self.leader = leader::Leader::default();
        self.history = (Partitions::new(), super::wire::NO_GENERATION);
        self.halted = false;
        self.offsets.begin_anew(&not_a_member(&self.config.id));
        self.givings.clear();
        let keys: Vec<Key> = self.parts.keys().cloned().collect();
        let told = self.told_of(&keys);
        self.parts.clear();
        self.buffer.give_up(&keys, StreamEnd::Lost);
        self.buffer.announce(Event::Lost(actions::named(&told)));
        self.first_seen.clear();
        self.presence = Presence::default();
        self.away.clear();
        (self.closes, self.closing) = (None, false);
        self.learn();
    }

    /// Partitions of which too much is in hand wait, which is told: nobody would know why nothing comes.
    fn look_for_full(&mut self) {
        let now = self.attention.fillings();
        let before = std::mem::replace(&mut self.fillings, now);
        if now == before {
            return;
        }
        let full = self.buffer.look_for_full();
        if now.0 != before.0
            && let Some((topic, partition)) = full.first()
        {
            let logs = self.pool.metrics().logs();
            let (group, most, partitions) = (&*self.config.id, MOST_OPEN, full.len());
            limited!(logs, "ottla::consumer", WARN, group, %topic, partition, partitions, most,
                "so many batches, or parts of them, are handed out and not acknowledged: nothing more of the partition until \
                 some are; acknowledge each batch once it is finished");
        }
    }

    /// Whether the application is there. Each of those who read for it has a clock of his own: one that waits, or comes again
    /// and again, says nothing of another one that hangs.
    fn see_application(&mut self) {
        let now = self.env.now();
        let seen = self.buffer.presence();
        // Who takes a batch apart asks for each of its records, and only for the next batch here.
        let moved = self.buffer.moved();
        let before = std::mem::replace(&mut self.presence, seen);
        let (mut asked, mut away) = (false, BTreeMap::new());
        for (who, reader) in self.presence.readers() {
            let was = before.reader(who);
            // Who waited in vain as too much was in hand waits for something again once that is over.
            let waits_again = was.is_some_and(|was| reader.waits && !was.waits);
            let has_asked = was.is_none_or(|was| was.asks != reader.asks)
                || moved.contains(&who)
                || waits_again;
            asked |= has_asked;
            // The consumer itself has no clock until it has asked once.
            let has_clock = who != WHO || reader.asks > 0;
            if has_clock && !reader.waits {
                let since = self.away.get(&who).filter(|_| !has_asked).copied();
                away.insert(who, since.unwrap_or(now));
            }
        }
        let others = std::mem::replace(&mut self.away, away);
        // One that hung is gone: those who are left count.
        let is_gone = others.keys().any(|who| self.presence.reader(*who).is_none());
        // Not where somebody who is left hangs as well: nobody has asked to be a member again.
        let most = self.config.max_poll_interval;
        let is_gone = is_gone && self.away.values().all(|since| now < *since + most);
        if asked || is_gone {
            self.tell(events::Event::Asks);
        }
        if !self.away.is_empty() && (asked || is_gone || others.len() != self.away.len()) {
            self.tell_absence(now);
        }
    }

    fn tell_absence(&mut self, now: Instant) {
        let since = self.away.values().min().copied();
        if let Some(since) = since.or((!self.presence.waits).then_some(now)) {
            self.tell(events::Event::Away { since });
        }
    }

    /// Commits that were ordered before are made first, as long as the farewell has its time.
    fn close_if_wanted(&mut self, is_closed: bool, now: Instant) {
        if self.closing || !is_closed {
            return;
        }
        let until = *self.closes.get_or_insert(now + CLOSE_WITHIN - CLOSE_RESERVE);
        if now < until && self.offsets.has_orders() {
            return;
        }
        self.closing = true;
        self.tell(events::Event::Close { deadline: until + CLOSE_RESERVE, leave: false });
    }

    fn renew_lease(&mut self) {
        let lease = match self.machine.lease() {
            Some(until) if !self.halted => Lease::Until(until),
            _ => Lease::Over,
        };
        if lease != std::mem::replace(&mut self.lease, lease) {
            self.buffer.lease(lease);
        }
    }

    /// What there is to know of the topics.
    fn learn(&mut self) {
        let (mut all, mut gone) = (true, Vec::new());
        for topic in &self.topics {
            match self.pool.metadata().lookup(topic) {
                Lookup::Pending => all = false,
                Lookup::Known(meta) => {
                    let count = i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX);
                    let known = FirstSeen { id: meta.id, count };
                    let first = self.first_seen.entry(Arc::clone(topic)).or_insert(known);
                    // Another topic of the name: all of it is new.
                    if first.id != meta.id && !meta.id.is_nil() {
                        let count =
                            if first.id.is_nil() && first.count > 0 { first.count } else { 0 };
                        *first = FirstSeen { id: meta.id, count };
                    }
                    self.told.remove(topic);
                }
                Lookup::Failed(e) => {
                    if e.kind() == ErrorKind::UnknownTopic {
                        // The application has not named it: it did match, and is gone.
                        if !self.wish.names.contains(topic) {
                            gone.push(Arc::clone(topic));
                            continue;
                        }
                        self.first_seen.insert(Arc::clone(topic), FirstSeen::default());
                    }
                    all = false;
                    if self.told.insert(Arc::clone(topic), e.kind()) != Some(e.kind()) {
                        self.buffer.fail(e);
                    }
                }
            }
        }
        self.are_gone(&gone);
        // What nobody looks up is forgotten in time.
        let all = all && !self.machine.has_nameless();
        self.learn_at = self.env.now() + if all { STILL_USED } else { LOOK_AGAIN };
        self.name_topics(RefreshReason::Again);
        if self.leader.has_changed(self.pool.metadata()) {
            self.tell(events::Event::TopicsChanged);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Commit(order) => self.offsets.order(order, self.env.now()),
            Command::Subscribe(wish) => self.wants(wish),
        }
    }

    /// The last words: whoever waits is told, and nothing of the group's is kept.
    fn finish(&mut self) {
        self.offsets.lost(&Error::closed("consumer"));
        self.orders.close();
        while let Ok(command) = self.orders.try_recv() {
            if let Command::Commit(order) = command {
                let _ = order.reply.send(Err(Error::closed("consumer")));
            }
        }
        if let Some((_, coordinator)) = self.coordinator {
            self.calls.hang_up(coordinator);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // After a panic: nobody sees to the membership any more.
        self.buffer.lease(Lease::Over);
    }
}
