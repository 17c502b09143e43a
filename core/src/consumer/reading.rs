//! One partition as the fetcher reads it, and the brokers and topics around it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::position::Position;
use crate::cluster::TopicMeta;
use crate::config::Start;
use crate::error::ErrorKind;
use crate::policy::backoff::Backoff;
use crate::policy::left_out::LeftOut;
use crate::policy::pacing::Pacing;
use crate::policy::silence::Silence;
use crate::policy::spell::Spell;
use crate::policy::trickle::Trickle;
use crate::policy::turns::Turn;
use crate::protocol::NO_EPOCH;

/// A partition that is read.
pub(super) struct Reading {
    /// The topic's id: a later topic of the same name is another one.
    pub(super) id: Uuid,
    /// Where to go on; `None` until it is known.
    pub(super) next: Option<Position>,
    /// Where to begin, as long as there is no position.
    pub(super) start: Start,
    /// Where to go on when the records at the position are gone.
    pub(super) reset: Start,
    /// How many seeks this partition has had. A response to a request of an older generation is ignored.
    pub(super) generation: u64,
    /// The partition is in a request in flight: a Fetch, or ListOffsets.
    pub(super) busy: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    pub(super) turn: Turn,
    /// There are records beyond the position, or it is not known that there are none.
    pub(super) lags: bool,
    /// Trouble with this partition alone.
    pub(super) spell: Spell,
    /// Only the application can say where to go on: nothing more until a seek.
    pub(super) stopped: bool,
}

impl Reading {
    pub(super) fn new(id: Uuid, start: Start, reset: Start) -> Self {
        Self {
            id,
            next: None,
            start,
            reset: lasting(reset),
            generation: 0,
            busy: false,
            retry_at: None,
            backoff: Backoff::default(),
            turn: Turn::new(),
            lags: true,
            spell: Spell::default(),
            stopped: false,
        }
    }

    pub(super) fn seek(&mut self, to: Start, generation: u64) {
        self.generation = generation;
        self.begin(to);
        self.reset = lasting(to);
    }

    /// The topic is another one of the same name: nothing of the old one means anything there. `None`:
    /// the application has to say where to begin.
    pub(super) fn made_anew(&mut self, id: Uuid, start: Option<Start>) {
        self.id = id;
        self.begin(start.unwrap_or(self.start));
        self.stopped = start.is_none();
        self.spell.ended();
        self.backoff.reset();
        self.turn = Turn::new();
    }

    /// The records at the position are gone: begins where the policy says.
    pub(super) fn begin_again(&mut self) {
        self.begin(self.reset);
    }

    fn begin(&mut self, start: Start) {
        self.start = start;
        // An offset that the application chose comes without a leader epoch.
        self.next =
            if let Start::Offset(at) = start { Some(Position::at(at, NO_EPOCH)) } else { None };
        self.stopped = false;
        self.retry_at = None;
        self.lags = true;
    }

    /// A response was good.
    pub(super) fn recovered(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.spell.ended();
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
    /// Partitions assigned by hand, until they are there.
    pub(super) assigned: Vec<(i32, Start)>,
    /// Those of `assigned` for which `UnknownPartition` was reported.
    pub(super) missing: Vec<i32>,
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
    /// How many bytes the request in flight may bring; 0: none is.
    pub(super) in_flight: usize,
    /// The number of the consumer's last request to it, by [`Fetcher`](super::fetcher::Fetcher)'s count; 0:
    /// none yet.
    pub(super) asked: u64,
    /// Pace Fetches: after empty responses (`pacing`), and after small ones (`trickle`).
    pub(super) pacing: Pacing,
    pub(super) trickle: Trickle,
    /// Delays Fetches that leave out partitions which have records, but no share of the buffer left.
    pub(super) left_out: LeftOut,
    /// Its next request waits for the retry budget.
    pub(super) unpaid: bool,
    /// Trouble with requests as a whole.
    pub(super) spell: Spell,
    /// Fetches that it does not answer (`silence`), and ListOffsets (`starts_silence`).
    pub(super) silence: Silence,
    pub(super) starts_silence: Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut reading = Reading::new(Uuid::nil(), Start::Timestamp(5), Start::Timestamp(5));
        assert_eq!((reading.start, reading.reset), (Start::Timestamp(5), Start::Earliest));
        reading.seek(Start::Timestamp(7), 1);
        assert_eq!((reading.start, reading.reset), (Start::Timestamp(7), Start::Earliest));
        reading.begin_again();
        assert_eq!(reading.start, Start::Earliest);
    }
}
