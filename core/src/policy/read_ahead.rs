//! How far one broker is read ahead, and when it is asked next.
//!
//! What is fetched long before it is read costs memory, and has left the cache by then; what is fetched too late is waited
//! for. So the next Fetch goes out as long as no more than one and a half responses are queued, and a response is only as
//! large as it has to be: 2 MiB, and more where the way is long, so that more come in a second.
//!
//! A broker has one Fetch of a consumer at a time, and holds it until there is something in what it names. While it waits
//! for the records of idle partitions, one that was left out cannot be asked for, however soon there is room for it.
//! So who is left out, although it has records, is thought of:
//!
//! 1. Left out is a partition of which a whole response is queued; and all that lag, while enough is queued. Those that have
//!    nothing new are asked for all the same: a slow reader is no reason not to hear of what comes to them.
//! 2. If that leaves only idle ones, and the reader will have made room in a moment, the Fetch waits for that, for 20 ms at most;
//!    then all go together.
//! 3. Else the broker may hold the Fetch for as long as the reader takes to make room, as it reads now, and for 100 ms at most;
//!    twice as long each time that it took nothing of what is left out, so that one that reads nothing costs no more
//!    requests than usual.
//! 4. A reader that has nothing to read is never refused a Fetch because others do not read what they have.
//!
//! What is paused is neither left out nor queued: it waits for the application, and not the application for it.
//!
//! Who reads one partition alone (a stream) and who reads all the others wait for different things, so they do not wait for
//! each other: what is queued of a stream's partition says nothing of the others, and the other way round. A stream's
//! partition is asked for until a share of the memory is queued of it.

use std::time::Duration;

use tokio::time::Instant;

/// What a response is asked for at first. With what is around the records it fits a buffer of 2 MiB.
const FIRST: usize = (2 << 20) - AROUND;
/// Bytes of a response that are not records.
const AROUND: usize = 32 << 10;
/// A response is this many times the largest batch, if it may be: brokers cut the last batch anywhere, and the
/// part of it is thrown away.
const BATCHES: usize = 8;
/// Bytes a second from which on larger responses are not worth their memory.
const FAST: f64 = 500e6;
/// Larger responses have to come this many times as fast, or it is not the way that is long: then they are not tried again
/// for so many responses.
const FASTER: f64 = 1.25;
const CONTENT: u32 = 100;
/// After so many responses that were not waited for, the next ones are half as large.
const AT_EASE: u32 = 10;
/// No Fetch is made for less than this, unless that is all there may be.
pub(crate) const LEAST: usize = 64 << 10;

/// How long a Fetch waits for those that are left out.
const HOLD: Duration = Duration::from_millis(20);
/// How long the broker may hold a Fetch that leaves some out, at first.
pub(crate) const SHORT: Duration = Duration::from_millis(100);
/// A partition of which nothing was taken for so long is stuck.
const STUCK: Duration = Duration::from_millis(100);

/// Who takes what is queued of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whoever asks the consumer for the next batch.
    Shared,
    /// One that reads nothing else: a stream.
    Own,
    /// Nobody: it is paused.
    Nobody,
}

/// A partition of which something is queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) bytes: usize,
    /// The largest batch that was seen of it.
    pub(crate) largest: usize,
    pub(crate) reader: Reader,
    /// So much is queued that no more is asked for, by the share of memory that its reader has.
    pub(crate) is_over: bool,
    /// There are records beyond what is queued, or it is not known that there are none.
    pub(crate) lags: bool,
    /// When something of it was taken last, or it ceased to be empty.
    pub(crate) moved: Instant,
}

/// What is read from one broker, as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) queues: &'a [Queued],
    /// How many may be asked for: neither paused, nor [over](ReadAhead::is_over), nor waiting for anything else. Those
    /// that lag, or of which nothing is known yet, and the others.
    pub(crate) lagging: usize,
    pub(crate) idle: usize,
    /// How many that lag, and that somebody reads who reads nothing else: likewise, and not in `lagging`.
    pub(crate) own: usize,
    /// Bytes that were taken since the last Fetch was sent.
    pub(crate) taken: usize,
    /// How many bytes may come, by the memory that all of the consumer's brokers share.
    pub(crate) room: usize,
    /// A reader waits, nothing is queued for anybody, and nothing is on its way: whatever memory is used, one Fetch has to go.
    pub(crate) dry: bool,
    /// The largest batch that was seen of what may be asked for.
    pub(crate) largest: usize,
}

/// What to do about a broker that has no Fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Ask {
        max_bytes: usize,
        max_wait: Duration,
        /// Name none that lag, but those that somebody reads who reads nothing else.
        idle_only: bool,
    },
    /// Not now. To be looked at again when anything of the view changes but `taken`, when no more than
    /// [`low`](ReadAhead::low) is queued, and at this time.
    Wait(Option<Instant>),
}

/// The consumer's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_bytes: usize,
    pub(crate) max_wait: Duration,
    /// No Fetch is made for less: [`LEAST`], unless a broker's share of the memory is smaller.
    pub(crate) least: usize,
}

/// See the module. State of one broker.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// What responses are asked for, if batches allow it; 0: nothing is known yet.
    response: usize,
    /// Responses that were not waited for.
    at_ease: u32,
    /// Bytes a second before responses became larger.
    before: Option<f64>,
    /// For how many responses they do not.
    content: u32,
    /// Since when a Fetch waits for those that are left out.
    held: Option<Instant>,
    /// When the last Fetch was sent; and the last one that left some out.
    asked: Option<Instant>,
    left_out: Option<Instant>,
    /// How many Fetches in a row left some out, while nothing was taken of what is in the way.
    stuck: u32,
    /// What that is after the Fetch that was planned; `None`: it leaves nobody out.
    next: Option<u32>,
}

impl ReadAhead {
    /// How many bytes a response is asked for, with batches up to `largest`.
    fn response(&self, largest: usize, limits: &Limits) -> usize {
        let batches = largest.saturating_mul(BATCHES);
        self.response.max(FIRST).max(batches).min(most(limits))
    }

    /// Whether so much is queued of a partition that no more of it is asked for.
    pub(crate) fn is_over(&self, bytes: usize, largest: usize, limits: &Limits) -> bool {
        bytes >= self.response(largest, limits).max(largest)
    }

    /// With no more queued than this there is time for the next response to come.
    pub(crate) fn low(&self, largest: usize, limits: &Limits) -> usize {
        self.response(largest, limits) / 2
    }

    /// No Fetch is made for less than this: the largest batch has to fit.
    pub(crate) fn least(&self, largest: usize, limits: &Limits) -> usize {
        largest.max(limits.least).min(self.response(largest, limits))
    }

    pub(crate) fn plan(&mut self, view: &View<'_>, limits: &Limits, now: Instant) -> Plan {
        let (plan, held, next) = self.decide(view, limits, now);
        (self.held, self.next) = (held, next);
        plan
    }

    /// The plan, since when it waits for those that are left out, and what `next` is if it is carried out.
    fn decide(
        &self,
        view: &View<'_>,
        limits: &Limits,
        now: Instant,
    ) -> (Plan, Option<Instant>, Option<u32>) {
        let response = self.response(view.largest, limits);
        let stuck = |queued: &Queued| now.saturating_duration_since(queued.moved) >= STUCK;
        let over = |queued: &Queued| self.is_over(queued.bytes, queued.largest, limits);
        let read = || view.queues.iter().filter(|queued| queued.reader != Reader::Nobody);
        let shared = || view.queues.iter().filter(|queued| queued.reader == Reader::Shared);
        let queued: usize = shared().map(|queued| queued.bytes).sum();
        let enough = view.lagging > 0 && queued > response + response / 2;
        let names_lagging = view.lagging > 0 && !enough || view.own > 0;
        if view.idle == 0 && !names_lagging {
            return (Plan::Wait(None), None, None);
        }
        // What has to be read before those that are left out can be asked for.
        let is_in_the_way = |q: &&Queued| match enough {
            true => q.reader == Reader::Shared,
            false => q.lags && (q.is_over || over(q)),
        };
        let in_the_way = || read().filter(is_in_the_way);
        let leaves_out = enough || in_the_way().next().is_some();
        let (mut max_wait, mut held, mut next) = (limits.max_wait, None, None);
        if leaves_out {
            let moves = in_the_way().any(|queued| !stuck(queued));
            let over_it = queued.saturating_sub(self.low(view.largest, limits));
            let soon = self.time_to(over_it, view.taken, now);
            if moves && !names_lagging && soon.is_none_or(|soon| soon <= HOLD) {
                held = self.held.or(Some(now));
                if let Some(until) = held.map(|since| since + HOLD).filter(|until| now < *until) {
                    return (Plan::Wait(Some(until)), held, None);
                }
            }
            let stuck = self.stuck(in_the_way());
            next = Some(stuck.saturating_add(1));
            max_wait = max_wait.min(SHORT * 2u32.saturating_pow(stuck.min(16)));
            if let (true, Some(soon)) = (moves, soon) {
                max_wait = max_wait.min(soon.max(HOLD));
            }
        }
        let least = self.least(view.largest, limits);
        let max_bytes = match view.room {
            room if room >= least => response.min(room),
            _ if view.dry => least,
            _ => return (Plan::Wait(None), held, None),
        };
        (Plan::Ask { max_bytes, max_wait, idle_only: enough }, held, next)
    }

    /// How long the reader takes for so many bytes, if it goes on as since the last Fetch; `None`: it took nothing.
    fn time_to(&self, bytes: usize, taken: usize, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.asked?).as_secs_f64();
        let time = || Duration::try_from_secs_f64(since * bytes as f64 / taken as f64);
        (taken > 0).then(|| time().unwrap_or(Duration::MAX))
    }

    /// How many Fetches went out since something was taken of these.
    fn stuck<'a>(&self, mut in_the_way: impl Iterator<Item = &'a Queued>) -> u32 {
        let Some(last) = self.left_out else { return 0 };
        if in_the_way.any(|queued| queued.moved > last) { 0 } else { self.stuck }
    }

    /// A Fetch is sent as was planned last.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.asked = Some(now);
        self.held = None;
        self.stuck = self.next.unwrap_or(0);
        self.left_out = self.next.map(|_| now);
    }

    /// A response came.
    pub(crate) fn answered(&mut self, came: &Came, limits: &Limits) {
        let now = self.response.max(FIRST.min(most(limits)));
        let half = ((now + AROUND) / 2).saturating_sub(AROUND).max(FIRST);
        if !came.waited || came.bytes < came.asked / 4 * 3 {
            self.at_ease += 1;
            if self.at_ease >= AT_EASE {
                (self.at_ease, self.before, self.response) = (0, None, half);
            }
            return;
        }
        self.at_ease = 0;
        let rate = came.bytes as f64 / came.took.as_secs_f64().max(1e-6);
        if self.before.take().is_some_and(|before| rate < before * FASTER) {
            (self.content, self.response) = (CONTENT, half);
        } else if self.content > 0 {
            self.content -= 1;
        } else if came.taken >= came.bytes / 2 && rate < FAST {
            let larger = ((now + AROUND) * 2 - AROUND).min(most(limits));
            if larger > now {
                (self.before, self.response) = (Some(rate), larger);
            }
        }
    }
}

/// A response, as far as it tells how large the next one should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// Bytes of records, and how many were asked for.
    pub(crate) bytes: usize,
    pub(crate) asked: usize,
    /// How long it took, from the request.
    pub(crate) took: Duration,
    /// Bytes that were taken meanwhile.
    pub(crate) taken: usize,
    /// There was nothing left to take.
    pub(crate) waited: bool,
}

/// The most that a response is asked for: with what is around the records it fits a buffer of the size that is set.
fn most(limits: &Limits) -> usize {
    if limits.max_bytes > FIRST { FIRST.max(limits.max_bytes - AROUND) } else { limits.max_bytes }
}

#[cfg(test)]
mod tests;
