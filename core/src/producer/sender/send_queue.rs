//! The batches that wait for one partition that was named, or for whichever of a topic's is best. Batches
//! that came back go before new ones.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::environment::earlier;
use crate::policy::pace::Gather;
use crate::producer::accumulator::{Accumulator, BatchQueue, LATE, Peek};
use crate::producer::batch::{Batch, Books};

/// The batches for one named partition, or those of a topic that may go to any, in the order in which they
/// are sent.
#[derive(Default)]
pub(in crate::producer) struct SendQueue {
    /// Batches that were sent, or put into a request, and came back: they go first.
    back: VecDeque<Batch>,
    /// Batch queues that have announced a batch: at most one per accumulator and shard.
    batch_queues: VecDeque<ListedQueue>,
}

struct ListedQueue {
    accumulator: Arc<Accumulator>,
    batch_queue: Arc<BatchQueue>,
    doze: Doze,
}

/// Whether an empty batch queue stays on the list. Usually it leaves the list, and its next record
/// announces it, which wakes the sender. While pacing allows no request, that would wake the sender for
/// nothing. So a queue from which a batch was taken then stays until the next request is due (`Until`), and
/// its next record wakes nobody. Its deadline is not missed: it is later than that of the batch that was
/// taken, which the sender watches.
#[derive(Clone, Copy)]
enum Doze {
    No,
    Taken,
    Until(Instant),
}

impl ListedQueue {
    /// What the queue holds now; if it is empty and stays on the list, until when.
    fn look(&mut self, now: Instant, gather: &Gather) -> (Peek, Option<Instant>) {
        let until = match self.doze {
            Doze::No => None,
            Doze::Taken => gather.next.filter(|at| {
                // A record that came now would wait at least as long.
                let config = self.accumulator.config();
                *at <= now + gather.linger(config.linger).min(config.delivery_timeout / LATE)
            }),
            Doze::Until(at) => Some(at).filter(|at| *at > now),
        };
        let peek = self.batch_queue.look(&self.accumulator, until.is_some());
        self.doze = match (peek, until) {
            (Peek::Kept, Some(at)) => Doze::Until(at),
            _ => Doze::No,
        };
        (peek, until)
    }
}

/// What a send queue could give now.
pub(super) enum Next {
    Nothing,
    /// There may be batches, but none may go before this time.
    Later(Instant),
    Full,
    /// Only open batches. The first one that may go now must go at `due`; `later` is when others may go
    /// that may not go yet.
    Open {
        due: Instant,
        later: Option<Instant>,
    },
}

impl SendQueue {
    pub(in crate::producer) fn is_empty(&self) -> bool {
        self.back.is_empty() && self.batch_queues.is_empty()
    }

    /// Adds a batch queue that has announced itself. `true` if it was not on the list yet.
    pub(in crate::producer) fn add(
        &mut self,
        accumulator: &Arc<Accumulator>,
        batch_queue: &Arc<BatchQueue>,
    ) -> bool {
        let new =
            !self.batch_queues.iter().any(|listed| Arc::ptr_eq(&listed.batch_queue, batch_queue));
        if new {
            let (accumulator, batch_queue) = (Arc::clone(accumulator), Arc::clone(batch_queue));
            self.batch_queues.push_back(ListedQueue { accumulator, batch_queue, doze: Doze::No });
        }
        new
    }

    pub(in crate::producer) fn batch_queues(
        &self,
    ) -> impl Iterator<Item = (&Arc<Accumulator>, &Arc<BatchQueue>)> {
        self.batch_queues.iter().map(|listed| (&listed.accumulator, &listed.batch_queue))
    }

    /// Puts a batch that came back before all others.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.back.push_front(batch);
    }

    /// Whether a connection may have ended because of the first batch that came back.
    pub(super) fn next_is_suspect(&self) -> bool {
        self.back.front().is_some_and(|batch| batch.attempts.is_suspect())
    }

    /// Whether the next batch that may go was refused by the partition that it was in before.
    pub(super) fn next_was_refused(&self, now: Instant) -> bool {
        let due = self.back.iter().find(|batch| batch.attempts.not_before(now).is_none());
        due.is_some_and(|batch| batch.attempts.cost().is_some())
    }

    /// The first batch that came back.
    pub(in crate::producer) fn pop_back(&mut self) -> Option<Batch> {
        self.back.pop_front()
    }

    /// Takes the first batch that came back and may go now. `in_order`: only if none that came back before it
    /// has to wait.
    pub(super) fn pop_back_due(&mut self, now: Instant, in_order: bool) -> Option<Batch> {
        if in_order {
            self.back.front().filter(|b| b.attempts.not_before(now).is_none())?;
            return self.back.pop_front();
        }
        let first = self.back.iter().position(|b| b.attempts.not_before(now).is_none())?;
        self.back.remove(first)
    }

    /// If there is no batch and the queues on the list only doze: until when. The caller then dials nobody
    /// for this partition.
    pub(super) fn rests(&mut self, now: Instant, gather: &Gather) -> Option<Instant> {
        if !self.back.is_empty()
            || self.batch_queues.iter().any(|listed| matches!(listed.doze, Doze::No))
        {
            return None;
        }
        let (mut until, mut something) = (None, false);
        self.batch_queues.retain_mut(|listed| match listed.look(now, gather) {
            (Peek::Empty, _) => false,
            (Peek::Kept, at) => {
                until = earlier(until, at);
                true
            }
            _ => {
                something = true;
                true
            }
        });
        until.filter(|_| !something)
    }

    /// What could be taken now. `in_order`: nothing goes before batches that came back. `gather`: what open
    /// batches wait for.
    pub(super) fn next(&mut self, now: Instant, in_order: bool, gather: &Gather) -> Next {
        let mut later = None;
        if in_order && let Some(first) = self.back.front() {
            return first.attempts.not_before(now).map_or(Next::Full, Next::Later);
        }
        for batch in &self.back {
            match batch.attempts.not_before(now) {
                None => return Next::Full,
                at => later = earlier(later, at),
            }
        }
        let mut earliest = None;
        let mut full = false;
        self.batch_queues.retain_mut(|listed| {
            match listed.look(now, gather) {
                (Peek::Empty, _) => return false,
                (Peek::Kept, at) => later = earlier(later, at),
                (Peek::Full { .. }, _) => full = true,
                (Peek::Open(batch), _) => match gather.bounds(batch) {
                    (early, _) if early > now => later = earlier(later, Some(early)),
                    (_, at) => earliest = earlier(earliest, Some(at)),
                },
            }
            true
        });
        match (full, earliest) {
            (true, _) => Next::Full,
            (false, Some(due)) => Next::Open { due, later },
            (false, None) => later.map_or(Next::Nothing, Next::Later),
        }
    }

    /// Takes a batch from the batch queues: of the full and overdue ones the one that waits longest,
    /// whichever accumulator it is from; if there is none, an open one, but only if `idle` (nothing is in
    /// flight to the leader). If no batch may go, gives the time at which one may.
    pub(in crate::producer) fn take(
        &mut self,
        now: Instant,
        idle: bool,
        gather: &Gather,
    ) -> (Option<Batch>, Option<Instant>) {
        loop {
            let (mut oldest, mut open, mut wake) = (None::<(Instant, usize, bool)>, None, None);
            let mut next = 0;
            self.batch_queues.retain_mut(|listed| {
                let mut hasty = false;
                let since = match listed.look(now, gather) {
                    (Peek::Empty, _) => return false,
                    (Peek::Kept, at) => {
                        wake = earlier(wake, at);
                        None
                    }
                    (Peek::Full { opened }, _) => Some(opened),
                    (Peek::Open(batch), _) => match gather.bounds(batch) {
                        (_, at) if at <= now && batch.may_not_wait() => {
                            hasty = true;
                            Some(at)
                        }
                        // An overdue open batch competes with full ones by its due time: a producer that
                        // sends little is not held up by one that always has a full batch.
                        (_, at) if at <= now => Some(at),
                        (early, at) => {
                            wake = earlier(wake, Some(if idle { early } else { at }));
                            open = open.or((idle && early <= now).then_some(next));
                            None
                        }
                    },
                };
                if let Some(since) = since.filter(|at| oldest.is_none_or(|(then, ..)| *at < then)) {
                    oldest = Some((since, next, hasty));
                }
                next += 1;
                true
            });
            let chosen = oldest.map(|(_, index, hasty)| (index, hasty));
            let Some((index, hasty)) = chosen.or(open.map(|index| (index, false))) else {
                return (None, wake);
            };
            let listed = &mut self.batch_queues[index];
            if let Some(mut batch) = listed.batch_queue.take(&listed.accumulator) {
                listed.doze = Doze::Taken;
                batch.hasty = hasty;
                return (Some(batch), None);
            }
            // The batch is being compressed by a worker, or its compression failed: the other queues are
            // looked at.
        }
    }

    /// Takes the batches that `of` picks, of those that came back.
    pub(super) fn take_back(&mut self, of: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let (gone, stay): (Vec<Batch>, Vec<Batch>) =
            std::mem::take(&mut self.back).into_iter().partition(|b| of(b));
        self.back = stay.into();
        gone
    }

    /// Takes all batches, also those that come meanwhile: none of them can be sent any more.
    pub(super) fn take_all(&mut self) -> Vec<Batch> {
        let mut gone: Vec<Batch> = self.back.drain(..).collect();
        while !self.batch_queues.is_empty() {
            for ListedQueue { accumulator, batch_queue, .. } in &self.batch_queues {
                gone.extend(std::iter::from_fn(|| batch_queue.take(accumulator)));
            }
            self.forget_empty();
        }
        gone
    }

    /// Takes empty queues off the list until they announce themselves again. As long as a queue is on the list it
    /// does not announce itself, so an empty one must not stay: a record that comes into it would be noticed
    /// by nobody.
    pub(super) fn forget_empty(&mut self) {
        self.batch_queues
            .retain(|listed| listed.batch_queue.peek(&listed.accumulator) != Peek::Empty);
    }

    /// The earliest delivery deadline of the batches that came back.
    pub(super) fn back_deadline(&self) -> Option<Instant> {
        self.back.iter().map(|b| b.deadline).min()
    }
}

#[cfg(test)]
mod tests;
