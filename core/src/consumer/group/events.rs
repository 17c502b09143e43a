//! What a member of a group is told, and what it wants done. One task per consumer owns the machine
//! ([`Classic`](super::classic::Classic) or [`Next`](super::next::Next)), hands it each [`Event`] as it happens, and executes
//! the [`Action`]s in their order. What it owes the machine:
//!
//! - Every [`RequestId`] is answered once, by [`Event::Answer`], whatever becomes of the request: what the broker said, or how
//!   it was lost. Answers may come late or for what is no longer ours: the machine knows its numbers.
//! - [`Event::Tick`] when [`next_wake`](super::classic::Classic::next_wake) has come; too early or too late does no harm but that.
//! - Every [`Action::GiveUp`] is followed by [`Event::GaveUp`] once what was handed out of these partitions is finished
//!   and committed. At the deadline the machine goes on without it.
//! - Nothing is handed out past [`lease`](super::classic::Classic::lease), which whoever takes a batch compares with the clock: a process
//!   that was stopped looks there before any task of ours runs.
//! - Commits go out as [`commits`](super::classic::Classic::commits) says, looked at when the request is made; what is refused
//!   comes back as [`Event::Refused`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The number of a request, never given again by the machine that gave it. A member, its committer and its lookups of
/// offsets count each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// The number of a [`Action::GiveUp`], never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Round(pub(crate) u64);

/// A partition as the group assigns it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    pub(crate) topic: Arc<str>,
    /// The topic's id; nil from the classic protocol, which knows names only.
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<A> {
    /// A response that could be read.
    Answered(A),
    /// It never left, for certain: no connection, or the dial failed.
    NotSent,
    /// The connection ended before the response, or brought something that could not be read.
    Cut,
    /// Nothing came within the request's timeout.
    TimedOut,
}

/// What the machine is told. `A` is what the coordinator's responses are decoded to.
#[derive(Clone, Debug)]
pub(crate) enum Event<A> {
    /// Time has passed.
    Tick,
    /// The application waits for a batch or an event: it has let go of what it had before. Marks are made by whoever
    /// reports this. The first one makes the consumer a member; so does one after it left because none came.
    Asks,
    /// The application was given something, or has stopped waiting, or waits only because it has not acknowledged
    /// what it has. From then on [`Settings::max_poll_interval`] runs until it asks again. Where several read for it, the one
    /// counts that is away for the longest, whatever the others ask for.
    Away {
        since: Instant,
    },
    /// The coordinator was looked up: NONE, or why not.
    Coordinator {
        to: RequestId,
        outcome: Outcome<i16>,
    },
    /// A connection to the coordinator that the lookup `found` ended unasked, or a request of somebody else's there was
    /// lost. Those of the machine's own are answered besides, before or after.
    CoordinatorLost {
        found: RequestId,
    },
    Answer {
        to: RequestId,
        outcome: Outcome<A>,
    },
    /// What was to be given up is finished and committed, or will not be.
    GaveUp {
        round: Round,
    },
    /// A commit, or a lookup of offsets, was refused as a whole by the coordinator that the lookup `found`, whatever the code.
    /// `sent` is the identity it bore.
    Refused {
        code: i16,
        sent: Identity,
        found: RequestId,
    },
    /// Classic: a commit that bore this identity was taken, and was sent then. It counts as a heartbeat, as no other request
    /// does (`OffsetMetadataManager.validateOffsetCommit`).
    Alive {
        sent: Identity,
        since: Instant,
    },
    /// Next: a commit is on its way, or not any more. It bears the epoch, which moves with the answers to heartbeats:
    /// each waits for the other.
    Committing(bool),
    /// This is subscribed to from now on.
    Subscribed(Subscription),
    /// Classic, the leader: the partitions or racks of the group's topics are not those that the plan was made with.
    TopicsChanged,
    /// Classic, the leader: what [`Action::Plan`] wanted is there, or could not be had.
    Planned {
        join: RequestId,
        ok: bool,
    },
    /// Next: names of topic ids that [`Action::Resolve`] asked for. May come again, with more.
    Named {
        topics: Vec<(Uuid, Arc<str>)>,
    },
    /// The end, by then at the latest. `leave`: whether a static member leaves as well.
    Close {
        deadline: Instant,
        leave: bool,
    },
}

/// Which connection to the coordinator a request takes. A broker reads a connection's next request only after the last is
/// answered, and JoinGroup and SyncGroup wait there for other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The classic group's own, on which requests are parked.
    Group,
    /// One for short calls, with the commits. (Next: the same one for all, in order.)
    Control,
}

/// What is to be done. `R` is a request to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action<R> {
    /// Ask any broker who the group's coordinator is. The answer is [`Event::Coordinator`]; whoever executes this keeps
    /// the broker, and its connections.
    FindCoordinator {
        id: RequestId,
    },
    /// Send it to the coordinator that was found last.
    Send {
        id: RequestId,
        lane: Lane,
        timeout: Duration,
        request: R,
    },
    /// Nobody waits for this parked request any more: the connection it is parked on is of no more use.
    Abandon {
        id: RequestId,
    },
    /// Classic, the leader: load the topics of all members that the answer to `join` names, then assign if `assign` is set,
    /// then tell [`Event::Planned`]. From now on changes of these topics are [`Event::TopicsChanged`]. The plan
    /// travels with the SyncGroup that says `planned`.
    Plan {
        join: RequestId,
        assign: bool,
    },
    /// Next: ask for the names of these topics until there are some.
    Resolve {
        topics: Vec<Uuid>,
    },
    /// These are ours: read them from where they are committed. The application is told *assigned*, also of none:
    /// something was decided.
    Take {
        parts: Vec<Part>,
    },
    /// Hand nothing more of these out, tell the application *giving up* with the deadline, wait for what it has of
    /// them, commit that, and tell [`Event::GaveUp`].
    GiveUp {
        round: Round,
        parts: Vec<Part>,
        deadline: Instant,
    },
    /// These are not ours any more: their slots, ledgers and marks go, and no commit names them.
    Drop {
        parts: Vec<Part>,
        why: Why,
    },
    /// Hand nothing out, of any partition, until [`Resume`](Self::Resume): the coordinator may have given ours away.
    Halt,
    Resume,
    /// Tell the application; the machine goes on. At most once a minute.
    Tell(Trouble),
    /// Next: the broker does not know this protocol, or not the group under it. Go on with the classic one.
    UseClassic,
    /// The handle is of no more use. Nothing comes after it.
    End(Trouble),
    /// What [`Event::Close`] wanted is done, or its time is up. Nothing comes after it.
    Closed,
}

/// Why partitions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// They were given up: what was done is committed, unless the deadline came.
    GivenUp,
    /// We are no longer a member. The application is told *lost*.
    Lost,
}

/// Trouble that the application is to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The broker's code.
    pub(crate) code: i16,
    /// The request that it answered.
    pub(crate) during: &'static str,
}

/// As whom a commit is made. Equal identities are the same member in the same generation or epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty without a membership (partitions assigned by hand).
    pub(crate) member_id: Arc<str>,
    /// The generation, or the member's epoch; -1 without a membership.
    pub(crate) generation: i32,
    pub(crate) instance_id: Option<Arc<str>>,
}

/// Whether a commit may go out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// As this one.
    As(Identity),
    /// It would be refused, or there is nobody to send it to. Later.
    Wait,
    /// There is no membership that it could belong to.
    Never,
}

/// What a member wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The names of the topics. With a pattern that the client evaluates: those that match now.
    pub(crate) topics: Vec<Arc<str>>,
    /// Next: a pattern that the coordinator evaluates (RE2, the whole name).
    pub(crate) pattern: Option<Arc<str>>,
}

/// What a member is made with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `group.instance.id`: a static member, which keeps its partitions over a restart.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Classic: after this without a heartbeat the coordinator gives the partitions away.
    pub(crate) session_timeout: Duration,
    /// R: how long the application may be away, and how long a rebalance waits for members.
    pub(crate) max_poll_interval: Duration,
    /// Classic: all partitions are given up before each join. One assignor that needs it is enough.
    pub(crate) eager: bool,
    /// How long a short call may take.
    pub(crate) request_timeout: Duration,
}

/// The least share of the max poll interval that is left for giving up where that is short.
const GIVE_UP_SHARE: u32 = 2;
/// For the commit and the join behind it.
const GIVE_UP_RESERVE: Duration = Duration::from_secs(5);

impl Settings {
    /// How often a classic member tells that it is there.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        // Who hears of a rebalance only once it is over is not part of it.
        Duration::from_secs(3).min(self.session_timeout / 3).min(self.max_poll_interval / 3)
    }

    /// How long partitions may take to be given up: the others wait for us since up to a heartbeat ago, for R.
    pub(crate) fn give_up_within(&self, heartbeat: Duration) -> Duration {
        let rest = self.max_poll_interval.saturating_sub(heartbeat + GIVE_UP_RESERVE);
        rest.max(self.max_poll_interval / GIVE_UP_SHARE)
    }
}
