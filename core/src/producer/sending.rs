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
    /// The future that waits for memory; set once there was none.
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

/// Units of the task's budget (see `coop`) for a record that comes here because the open chunk of its batch is
/// full. The records before it took the short way and were not counted, so this one counts for them. The first
/// record of a batch counts 1: there may be no others.
const TURN: u32 = 8;
