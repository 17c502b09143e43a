//! Taking what was fetched: whose turn it is, who waits, and what the application sees of it. Checksums are compared,
//! and batches decompressed, without the lock.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::queue::{Fetched, Taken, What};
use super::{Back, Buffer, Key, State, Unreadable};
use crate::caught;
use crate::cluster::Pool;
use crate::consumer::TopicPartition;
use crate::consumer::batch::Batch;
use crate::consumer::claim::{Claim, Standing};
use crate::consumer::event::Event;
use crate::consumer::marks::Span;
use crate::error::{Error, Result};
use crate::record::reader::RecordError;

/// A batch that is smaller than such a part of its response is copied rather than kept with it, where much is kept.
const SMALL_PART: usize = 16;

#[expect(
    clippy::large_enum_variant,
    reason = "it lives from the lock to the hand-out, and nearly all are the large one"
)]
pub(super) enum Item {
    Error(Error),
    Taken(Taken),
}

impl Buffer {
    /// Takes what is next, if there is something.
    pub(in crate::consumer) fn take(&self, pool: &Pool) -> Option<Result<Batch>> {
        loop {
            let mut state = self.lock();
            if let Some(seat) = &mut state.seat {
                seat.asks(false);
            }
            let item = self.pop(&mut state, pool)?;
            drop(state);
            if let Some(shown) = self.show(pool, item) {
                return Some(shown);
            }
        }
    }

    /// The same, and `who` waits if there is nothing; until the position of each of these partitions has reached an offset,
    /// if any is named: `None` then.
    pub(in crate::consumer) fn poll_take_until(
        &self,
        who: u64,
        ends: &[(TopicPartition, i64)],
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Batch>>> {
        loop {
            return Poll::Ready(match ready!(self.poll_take(who, (ends, false), pool, cx)) {
                Some(Ok(Event::Batch(batch))) => Some(Ok(batch)),
                // What nobody asked for.
                Some(Ok(_)) => continue,
                Some(Err(e)) => Some(Err(e)),
                None => None,
            });
        }
    }

    /// The same, and if `events` is set also what the group says.
    pub(in crate::consumer) fn poll_take(
        &self,
        who: u64,
        (ends, events): (&[(TopicPartition, i64)], bool),
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event>>> {
        // Cloning and dropping a waker is foreign code: neither happens under the lock.
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(None);
            }
            let event = state.seat.as_mut().and_then(|seat| seat.asks(events));
            if let Some(event) = event {
                return Poll::Ready(Some(Ok(event)));
            }
            let is_there = |(part, end): &(TopicPartition, i64)| {
                let slot = state.shelves.find(&part.topic, part.partition);
                let position = slot.and_then(|slot| state.shelves.get(slot)?.position);
                position.is_some_and(|position| position >= *end)
            };
            if !ends.is_empty() && ends.iter().all(is_there) {
                if let Some(seat) = &mut state.seat {
                    seat.gives();
                }
                return Poll::Ready(None);
            }
            if let Some(item) = self.pop(&mut state, pool) {
                drop(state);
                if let Some(shown) = self.show(pool, item) {
                    return Poll::Ready(Some(shown.map(Event::Batch)));
                }
                continue;
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.watched |= !ends.is_empty();
            if state.wakers.knows(who, cx.waker()) {
                return Poll::Pending;
            }
            if let Some(waker) = waker.take() {
                let old = state.wakers.keep(who, waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    /// Takes what is next and accounts for it: bytes, position, and whether the fetcher waits for that.
    pub(super) fn pop(&self, state: &mut State, pool: &Pool) -> Option<Item> {
        let item = self.next_item(state, pool)?;
        if let Some(seat) = &mut state.seat {
            seat.gives();
        }
        Some(item)
    }

    fn next_item(&self, state: &mut State, pool: &Pool) -> Option<Item> {
        if !state.was_news
            && let Some(error) = state.news.pop_front()
        {
            state.was_news = true;
            return Some(Item::Error(error));
        }
        state.was_news = false;
        let may = state.may_hand_out(|| pool.env().now());
        let Some(taken) = may.then(|| state.shelves.pop()).flatten() else {
            let error = state.news.pop_front().or_else(|| state.last_word.take());
            return error.map(Item::Error);
        };
        let is_waited_for = taken.bytes > 0 && state.took(taken.source, taken.bytes);
        if self.is_filled(state, &taken) || is_waited_for {
            self.wake.notify_one();
        }
        Some(Item::Taken(taken))
    }

    /// Whether so much of a partition is in hand now that nothing more of it is handed out. Nothing is fetched of it then either,
    /// as of one that is paused: what is queued of it must not be in the way of the others.
    pub(super) fn is_filled(&self, state: &mut State, taken: &Taken) -> bool {
        taken.fills.inspect(|slot| state.changed(*slot)).is_some()
    }

    /// What the application sees of it; `None` if all its records are before the offset that was asked for, or
    /// that error was told already.
    pub(super) fn show(&self, pool: &Pool, item: Item) -> Option<Result<Batch>> {
        self.show_as(pool, item, |unreadable| self.is_unreadable(unreadable))
    }

    /// The same; `unreadable` hears of what cannot be opened.
    pub(super) fn show_as(
        &self,
        pool: &Pool,
        item: Item,
        unreadable: impl FnOnce(Unreadable),
    ) -> Option<Result<Batch>> {
        let opened = match item {
            Item::Error(e) => Err(e),
            Item::Taken(Taken { what: What::Notice(notice), .. }) => Err(notice.tell()?),
            Item::Taken(Taken { what: What::Returned(back), .. }) => {
                back.put_aside(false);
                return match back {
                    back if back.is_left() => None,
                    Back::Batch(batch) => Some(Ok(batch)),
                    Back::Unreadable(told) => {
                        let error = told.error.clone();
                        unreadable(told);
                        Some(Err(error))
                    }
                };
            }
            // This is the application's thread: a panic of a codec becomes an error.
            Item::Taken(Taken {
                what: What::Batch(fetched),
                key,
                end,
                claim,
                span,
                queued,
                ..
            }) => {
                let opened = caught::call(|| {
                    pool.env().mishap("decompression");
                    self.open(pool, key, (fetched, queued), end, &claim, span.clone())
                });
                let opened = opened.and_then(|opened| opened);
                match (&opened, claim.marks(), &span) {
                    // Nobody is given it: it is passed over.
                    (Ok(batch), Some(marks), Some(span)) if batch.is_empty() => {
                        marks.done(span, span.next);
                    }
                    (Err(error), Some(_), Some(span)) => {
                        let (error, claim, span) =
                            (error.clone(), Arc::clone(&claim), span.clone());
                        unreadable(Unreadable { error, claim, span });
                    }
                    _ => {}
                }
                opened
            }
        };
        match opened {
            // Or the application went elsewhere while it was opened.
            Ok(batch) if batch.is_empty() || batch.standing() == Standing::Left => None,
            Ok(batch) => {
                pool.metrics().records_consumed(batch.len());
                Some(Ok(batch))
            }
            Err(e) => Some(Err(e)),
        }
    }

    /// Whether the application keeps so much of what it was handed that it should not keep whole responses for small
    /// parts of them. Who lets go of each batch before it asks for the next has no use for copies.
    fn is_much_kept(&self, queued: usize) -> bool {
        self.budget.held().saturating_sub(queued) > self.config.buffer_memory / 2
    }

    fn open(
        &self,
        pool: &Pool,
        (topic, partition): Key,
        (fetched, queued): (Fetched, usize),
        high_watermark: i64,
        claim: &Arc<Claim>,
        span: Option<Span>,
    ) -> Result<Batch> {
        let Fetched { mut raw, from, frame } = fetched;
        let damaged = |e: RecordError| e.error_of(&topic, partition);
        if self.config.check_crc {
            raw.verify_crc().map_err(damaged)?;
        }
        let own = |chunk| self.budget.pin_chunk(chunk);
        // What is decompressed has a buffer of its own.
        if raw.codec == 0 && raw.len_bytes() < frame / SMALL_PART && self.is_much_kept(queued) {
            raw = raw.copied(pool.buffers(), own);
        }
        let opened = raw.open_as(pool.buffers(), self.config.max_decompressed, own);
        let records = opened.map_err(damaged)?;
        let skip = if raw.may_begin_before(from) {
            records.iter().take_while(|r| r.offset() < from).count()
        } else {
            0
        };
        let claim = Arc::clone(claim);
        Ok(Batch { topic, partition, records, skip, high_watermark, claim, span })
    }
}
