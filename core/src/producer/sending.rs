//! A send that may have to wait for buffer space.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Delivery, Producer, Record};
use crate::coop;
use crate::environment::BoxFuture;
use crate::error::{ErrorKind, Result};

/// A [`Producer::send`]: ready as soon as there is space for the record, which is at once unless the
/// buffer is full. Written out and not an `async fn`, which would move the record several times.
#[must_use = "nothing is sent until it is awaited"]
pub struct Sending<'a> {
    pub(super) producer: &'a Producer,
    pub(super) record: Record<'a>,
    /// Where there was no space.
    pub(super) waiting: Option<BoxFuture<'a, Result<Delivery>>>,
}

impl Future for Sending<'_> {
    type Output = Result<Delivery>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.waiting.is_none()
            && let Some(delivery) = this.producer.append_at_once(&this.record)
        {
            return Poll::Ready(Ok(delivery));
        }
        this.append_or_wait(cx)
    }
}

impl Sending<'_> {
    #[inline(never)]
    fn append_or_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery>> {
        let (producer, record) = (self.producer, self.record);
        if self.waiting.is_none() {
            ready!(coop::poll_turn(cx));
            match producer.append(&record) {
                Err(e) if e.kind() == ErrorKind::BufferFull => {}
                done => {
                    let units = match &done {
                        Ok(delivery) if !delivery.is_first() && record.headers.is_empty() => TURN,
                        _ => 1,
                    };
                    coop::spend(units);
                    return Poll::Ready(done);
                }
            }
        }
        let later = || -> BoxFuture<'_, _> { Box::pin(producer.send_later(record)) };
        self.waiting.get_or_insert_with(later).as_mut().poll(cx)
    }
}

/// What a record counts in a task's budget that comes here because a piece of its batch's memory is full:
/// those before it have gone in without being counted. The first of a batch may be all there is of it.
const TURN: u32 = 8;
