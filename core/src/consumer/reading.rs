//! One partition as the fetcher reads it, and the brokers and topics around it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::buffer::{Amount, Key};
use super::fetch::session::Session;
use super::position::Position;
use super::slot::SlotId;
use crate::cluster::TopicMeta;
use crate::config::Start;
use crate::error::ErrorKind;
use crate::policy::backoff::Backoff;
use crate::policy::pacing::Pacing;
use crate::policy::read_ahead::ReadAhead;
use crate::policy::replica::Replica;
use crate::policy::silence::Silence;
use crate::policy::spell::Spell;
use crate::policy::trickle::Trickle;
use crate::policy::turns::Turn;
use crate::protocol::NO_EPOCH;

/// What a partition waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// Something that is told: a response, metadata, a command.
    #[default]
    Nothing,
    /// This time.
    Retry(Instant),
    /// That this broker is asked where it begins: it is in the source's `starting`.
    Start(i32),
    /// That this broker is asked whether its log is the one that was read: it is in the source's `checking`.
    Epoch(i32),
    /// The next Fetch to this broker, or the response to one: it is in the source's `wanted`.
    Fetch(i32),
}

/// What is queued of a partition for the application.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    pub(super) bytes: usize,
    pub(super) largest: usize,
    /// When it was seen last that something of it was taken, or that it was no longer empty.
    pub(super) moved: Option<Instant>,
}

/// A partition that is read.
pub(super) struct Reading {
    pub(super) key: Key,
    /// The topic's id: a later topic of the same name is another one.
    pub(super) id: Uuid,
    /// It was assigned as one of a topic with this id, and of no other; nil: as one of whichever has the name.
    pub(super) of: Uuid,
    /// What is asked and answered under an earlier one is ignored.
    pub(super) incarnation: u64,
    /// How often it has begun anew: a lookup of where to begin answers one of these times, also where all of them are
    /// of one incarnation.
    pub(super) begun: u64,
    /// Where to go on; `None` until it is known.
    pub(super) next: Option<Position>,
    /// Where to begin, as long as there is no position.
    pub(super) start: Start,
    /// Where to go on when the records at the position are gone.
    pub(super) reset: Start,
    /// Where it begins is being looked up, or whether its position is in the leader's log.
    pub(super) looking: bool,
    /// The epoch of the leader in whose log the position is known to be; -1: of none.
    pub(super) checked: i32,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    pub(super) turn: Turn,
    /// There are records beyond the position, or it is not known that there are none.
    pub(super) lags: bool,
    /// Where it ends, as its broker told last. A session does not tell it twice.
    pub(super) end: Option<i64>,
    /// Trouble with this partition alone.
    pub(super) spell: Spell,
    /// Its broker does not know the topic: the name may be another one's by now.
    pub(super) doubted: bool,
    /// Whom it is read from besides its leader.
    pub(super) replica: Replica,
    /// Only the application can say where to go on: nothing more until a seek.
    pub(super) stopped: bool,
    /// The application wants nothing of it now.
    pub(super) paused: bool,
    /// What is queued of it.
    pub(super) queued: Queue,
    /// What it waits for, as [`Fetcher::settle`](super::fetcher::Fetcher) found it last.
    pub(super) waits: Waits,
    touched: bool,
}

impl Reading {
    pub(super) fn new(key: Key, id: Uuid, incarnation: u64, start: Start, reset: Start) -> Self {
        let mut reading = Self {
            key,
            id,
            of: Uuid::nil(),
            incarnation,
            begun: 0,
            next: None,
            start,
            reset: lasting(reset),
            looking: false,
            checked: NO_EPOCH,
            retry_at: None,
            backoff: Backoff::default(),
            turn: Turn::new(),
            lags: true,
            end: None,
            spell: Spell::default(),
            doubted: false,
            replica: Replica::default(),
            stopped: false,
            paused: false,
            queued: Queue::default(),
            waits: Waits::Nothing,
            touched: false,
        };
        reading.begin(start);
        reading
    }

    pub(super) fn seek(&mut self, to: Start, incarnation: u64) {
        self.incarnation = incarnation;
        self.begin(to);
        self.reset = lasting(to);
    }

    /// The topic is another one of the same name: nothing of the old one means anything there. `None`:
    /// the application has to say where to begin.
    pub(super) fn made_anew(&mut self, id: Uuid, incarnation: u64, start: Option<Start>) {
        self.id = id;
        self.incarnation = incarnation;
        self.end = None;
        self.begin(start.unwrap_or(self.start));
        self.stopped = start.is_none();
        self.spell.ended();
        self.doubted = false;
        self.backoff.reset();
        self.turn = Turn::new();
        self.replica = Replica::default();
    }

    /// The records at the position are gone: begins where the policy says.
    pub(super) fn begin_again(&mut self) {
        self.begin(self.reset);
    }

    fn begin(&mut self, start: Start) {
        self.begun += 1;
        self.start = start;
        // An offset that the application chose comes without a leader epoch.
        self.next =
            if let Start::Offset(at) = start { Some(Position::at(at, NO_EPOCH)) } else { None };
        // What is being looked up answers an earlier question.
        self.looking = false;
        self.checked = NO_EPOCH;
        self.stopped = false;
        self.retry_at = None;
        self.lags = self.end.is_none_or(|end| self.next.is_none_or(|at| at.offset < end));
    }

    /// A response was good.
    pub(super) fn recovered(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.spell.ended();
    }
}

/// The partitions that are read, by their numbers. What is changed is *touched*: the fetcher looks at it again to
/// see what it waits for, and at nothing else.
#[derive(Default)]
pub(super) struct Readings {
    list: Vec<Option<Reading>>,
    touched: Vec<SlotId>,
}

impl Readings {
    pub(super) fn insert(&mut self, slot: SlotId, reading: Reading) {
        if self.list.len() <= slot.index() {
            self.list.resize_with(slot.index() + 1, || None);
        }
        self.list[slot.index()] = Some(reading);
        self.touch(slot);
    }

    pub(super) fn remove(&mut self, slot: SlotId) -> Option<Reading> {
        self.list.get_mut(slot.index())?.take()
    }

    pub(super) fn get(&self, slot: SlotId) -> Option<&Reading> {
        self.list.get(slot.index())?.as_ref()
    }

    /// To be changed: it is touched.
    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Reading> {
        self.touch(slot);
        self.list.get_mut(slot.index())?.as_mut()
    }

    pub(super) fn touch(&mut self, slot: SlotId) {
        let reading = self.list.get_mut(slot.index()).and_then(Option::as_mut);
        if let Some(reading) = reading
            && !std::mem::replace(&mut reading.touched, true)
        {
            self.touched.push(slot);
        }
    }

    /// Notes what is queued of it, which touches nothing.
    pub(super) fn holds(&mut self, amount: &Amount, now: Instant) {
        let Some(Some(reading)) = self.list.get_mut(amount.slot.index()) else { return };
        let queued = &mut reading.queued;
        if amount.drained > 0 || queued.bytes == 0 {
            queued.moved = Some(now);
        }
        (queued.bytes, queued.largest) = (amount.bytes, amount.largest);
    }

    /// Those that were touched since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<SlotId> {
        let touched = std::mem::take(&mut self.touched);
        for slot in &touched {
            if let Some(Some(reading)) = self.list.get_mut(slot.index()) {
                reading.touched = false;
            }
        }
        touched
    }

    /// Notes what it waits for, which touches nothing. Gives what it waited for before.
    pub(super) fn waits_for(&mut self, slot: SlotId, waits: Waits) -> Waits {
        let reading = self.list.get_mut(slot.index()).and_then(Option::as_mut);
        reading.map_or(Waits::Nothing, |reading| std::mem::replace(&mut reading.waits, waits))
    }
}

/// Where to go on when records are gone. A timestamp would lead to the same missing records again, so reading
/// then goes on at the earliest.
fn lasting(start: Start) -> Start {
    if let Start::Timestamp(_) = start { Start::Earliest } else { start }
}

/// A topic of which something is read.
#[derive(Default)]
pub(super) struct Topic {
    /// `Some` if every partition of the topic is read: those that are there at first begin here.
    pub(super) whole: Option<Start>,
    /// The partitions that are read, those that were assigned and are not there yet included.
    pub(super) slots: BTreeMap<i32, SlotId>,
    /// Those of a whole topic that the application does not want.
    pub(super) unwanted: BTreeSet<i32>,
    /// Some were assigned since the metadata was looked at.
    pub(super) grown: bool,
    /// Those of `slots` for which `UnknownPartition` was reported.
    pub(super) missing: BTreeSet<i32>,
    /// When metadata is asked for again because of those.
    pub(super) ask_again: Option<Instant>,
    /// The topic's metadata now; `None`: it is not known.
    pub(super) meta: Option<Arc<TopicMeta>>,
    /// The id that its partitions are read under; nil until it is known, or where brokers are too old
    /// to tell.
    pub(super) id: Uuid,
    /// The last ids that it had before. Brokers hear of a new topic one after the other, so some name an old
    /// id.
    pub(super) was: VecDeque<Uuid>,
    /// The one of these ids that metadata names now: its broker is behind.
    pub(super) behind: Option<Uuid>,
    /// The topic was known before, or known to be missing: partitions that are found from now on are younger
    /// than the consumer.
    pub(super) looked_for: bool,
    /// The kind of the last error that was reported for it, until the topic is known again.
    pub(super) told: Option<ErrorKind>,
    /// Trouble with rights, which are the topic's and not a partition's.
    pub(super) rights: Spell,
}

/// How many former ids are remembered. No broker stays behind by more topics of one name for long.
const REMEMBERED: usize = 8;

impl Topic {
    /// Another one bears its name now.
    pub(super) fn leave(&mut self) {
        if self.was.len() == REMEMBERED {
            self.was.pop_front();
        }
        self.was.push_back(self.id);
    }
}

/// A broker that something is fetched from.
#[derive(Default)]
pub(super) struct Source {
    /// Partitions to be named in a Fetch, those whose start is to be asked for, and those whose position is to be compared
    /// with the log.
    pub(super) wanted: BTreeSet<SlotId>,
    pub(super) starting: BTreeSet<SlotId>,
    pub(super) checking: BTreeSet<SlotId>,
    /// Of those that are wanted: which lag, which are tried again, whose topics' ids are not known, and which are left out of
    /// the next Fetch, as enough of them is queued.
    pub(super) lagging: BTreeSet<SlotId>,
    pub(super) retrying: BTreeSet<SlotId>,
    pub(super) nameless: BTreeSet<SlotId>,
    pub(super) out: BTreeSet<SlotId>,
    /// What the broker knows of this.
    pub(super) session: Session,
    /// Since when nothing is wanted, and it keeps a session.
    pub(super) emptied: Option<Instant>,
    /// The newest version of Fetch that it speaks; `None`: not known yet.
    pub(super) version: Option<i16>,
    /// How many bytes the request in flight may bring; 0: none is.
    pub(super) in_flight: usize,
    /// Since when none is.
    pub(super) rests: Option<Instant>,
    /// The number of the consumer's last request to it, by [`Fetcher`](super::fetcher::Fetcher)'s count; 0:
    /// none yet.
    pub(super) asked: u64,
    /// Pace Fetches: after empty responses (`pacing`), and after small ones (`trickle`).
    pub(super) pacing: Pacing,
    pub(super) trickle: Trickle,
    /// Those of which something is queued, how much was taken since it was asked last, and the largest batch of late.
    pub(super) holding: BTreeSet<SlotId>,
    pub(super) taken: usize,
    pub(super) largest: usize,
    /// How far it is read ahead.
    pub(super) ahead: ReadAhead,
    /// Its next request waits for the retry budget.
    pub(super) unpaid: bool,
    /// Trouble with requests as a whole.
    pub(super) spell: Spell,
    /// Fetches that it does not answer (`silence`), and ListOffsets (`starts_silence`).
    pub(super) silence: Silence,
    pub(super) starts_silence: Silence,
}

impl Source {
    /// Whether a response of it is still to come, or partitions wait for it.
    pub(super) fn is_waited_for(&self) -> bool {
        let waits = [&self.wanted, &self.starting, &self.checking];
        self.in_flight > 0 || waits.iter().any(|slots| !slots.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_looked_at_once() {
        let mut readings = Readings::default();
        let reading =
            || Reading::new(("t".into(), 0), Uuid::nil(), 1, Start::Earliest, Start::Earliest);
        let slots = [0, 1, 2].map(SlotId);
        slots.iter().rev().for_each(|slot| readings.insert(*slot, reading()));
        assert_eq!(readings.take_touched(), [slots[2], slots[1], slots[0]]);
        readings.get(slots[0]);
        readings.waits_for(slots[2], Waits::Fetch(1));
        for _ in 0..2 {
            readings.get_mut(slots[1]).unwrap().lags = false;
            readings.touch(slots[0]);
        }
        assert_eq!(readings.take_touched(), [slots[1], slots[0]]);
        assert!(readings.remove(slots[1]).is_some() && readings.get_mut(slots[1]).is_none());
        assert!(readings.take_touched().is_empty());
    }

    #[test]
    fn a_topic_remembers_the_last_of_its_former_ids() {
        let mut topic = Topic::default();
        for n in 0..100 {
            topic.id = Uuid::from_u128(n);
            topic.leave();
        }
        let last: Vec<u128> = topic.was.iter().map(Uuid::as_u128).collect();
        assert_eq!(last, (92..100).collect::<Vec<_>>());
    }

    /// At a time where nothing is left there would be nothing the second time either.
    #[test]
    fn records_that_are_gone_are_not_looked_for_by_their_time() {
        let time = Start::Timestamp(5);
        let mut reading = Reading::new(("t".into(), 0), Uuid::nil(), 1, time, time);
        assert_eq!((reading.start, reading.reset), (Start::Timestamp(5), Start::Earliest));
        reading.seek(Start::Timestamp(7), 2);
        assert_eq!((reading.start, reading.reset), (Start::Timestamp(7), Start::Earliest));
        reading.begin_again();
        assert_eq!(reading.start, Start::Earliest);
    }
}
