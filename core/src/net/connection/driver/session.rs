//! A connection whose session ends: requests, while what the login needs is got ready; nothing more until all are
//! answered; then a login, and requests again. Nothing else may be written between the messages of a login: the broker would answer ILLEGAL_SASL_STATE and
//! close.
//!
//! What is ordered meanwhile is held. Its time runs: it makes the connection late, and what is over is answered as
//! unsent and never written. To what is written after the login the broker's time begins then.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Driver, Outgoing};
use crate::environment::{BoxFuture, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Failure;
use crate::net::connection::{CallError, CloseReason};
use crate::net::frames::FrameReader;
use crate::net::renewal::Renewed;
use crate::record::pool::ChunkPool;
use crate::security::Mechanism;

/// What a connection does.
pub(super) enum Phase {
    /// Requests.
    Ready,
    /// Nothing new is sent: the session is about to end.
    Draining,
    /// The login has the stream.
    LoggingIn(BoxFuture<'static, Result<Renewed>>),
}

impl Driver {
    pub(super) fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            if let Phase::LoggingIn(login) = &mut self.phase {
                match login.as_mut().poll(cx) {
                    Poll::Ready(Ok(renewed)) => self.renewed(renewed),
                    // A fresh connection finds out whether the credentials are good.
                    Poll::Ready(Err(e)) => {
                        let words = format!("the session is over: {}", e.message());
                        let error = Error::new(ErrorKind::Disconnected, words);
                        return Poll::Ready(CloseReason::Lost(error));
                    }
                    Poll::Pending => return self.poll_held(cx),
                }
            }
            // Before orders are looked at: after a stall nothing may go out in a session that is over.
            self.poll_preparing(cx);
            let over = self.poll_requests(cx);
            if over.is_ready() {
                return over;
            }
            if !self.login_due(self.shared.env.now()) {
                return Poll::Pending;
            }
            match self.prepared.take() {
                Some(Ok(login)) => self.log_in(login),
                Some(Err(e)) => {
                    let words =
                        format!("{}: the session is over: {}", self.shared.name, e.message());
                    let error = Error::new(ErrorKind::Disconnected, words);
                    return Poll::Ready(CloseReason::Lost(error));
                }
                None => return Poll::Pending,
            }
        }
    }

    /// Gets ready what the login needs, and sends nothing more once that is there, or the session nearly over.
    fn poll_preparing(&mut self, cx: &mut Context<'_>) {
        let Some(renewal) = &self.renewal else { return };
        let over = renewal.is_nearly_over();
        let due = over || renewal.due() <= self.shared.env.now();
        if due && self.preparing.is_none() && self.prepared.is_none() {
            self.preparing = Some(renewal.prepare());
        }
        if let Some(preparing) = &mut self.preparing
            && let Poll::Ready(login) = preparing.as_mut().poll(cx)
        {
            self.preparing = None;
            self.prepared = Some(login);
        }
        if self.is_ready() && (over || self.prepared.is_some()) {
            self.phase = Phase::Draining;
        }
    }

    /// While the login has the stream.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Some(end) = self.take_orders(cx) {
            return Poll::Ready(end);
        }
        // Not even if nobody needs it any more: the login has the stream, and with TLS the peer is to be told of an end. A
        // login takes only so long.
        self.poll_deadline(cx)
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// When the session is to be renewed, if it ends and that is not under way; or when it is so near its end that
    /// nothing more is to be sent.
    pub(super) fn renewal_at(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref()?;
        let begun = self.preparing.is_some();
        self.is_ready().then(|| if begun { renewal.last() } else { renewal.due() })
    }

    pub(super) fn renewal_due(&self, now: Instant) -> bool {
        self.renewal_at().is_some_and(|due| due <= now)
    }

    /// When the login may begin, if nothing else is waited for.
    pub(super) fn login_at(&self) -> Option<Instant> {
        let drains = matches!(self.phase, Phase::Draining);
        let drained = self.in_flight.is_empty() && self.unwritten.is_empty();
        let is_next = drains && drained && self.write.is_empty() && self.prepared.is_some();
        let now = || self.shared.env.now();
        is_next.then(|| self.renewal.as_ref().map_or_else(now, |renewal| renewal.login_from()))
    }

    pub(super) fn login_due(&self, now: Instant) -> bool {
        self.login_at().is_some_and(|at| at <= now)
    }

    /// A request is given while the session is renewed.
    pub(super) fn hold(&mut self, outgoing: Outgoing) {
        if self.in_flight.is_empty() && self.held.is_empty() {
            self.oldest(Some(outgoing.given));
        }
        self.held.push_back(outgoing);
    }

    /// When to look next at what is held: at the first whose time is over, and now and then, to know whether this
    /// process runs.
    pub(super) fn next_look_at_held(&self) -> Option<Instant> {
        let first = self.held.iter().map(until).min()?;
        Some(self.look_at(self.held.front()?.given).min(first))
    }

    /// Tells callers that hold no longer. `true` if there were any.
    pub(super) fn held_give_up(&mut self, now: Instant) -> bool {
        let before = self.held.len();
        for outgoing in std::mem::take(&mut self.held) {
            if until(&outgoing) > now {
                self.held.push_back(outgoing);
                continue;
            }
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            outgoing.counted.failed(Failure::Timeout);
            let what = format!(
                "{}: request {}, which waited for a new login",
                self.shared.name, outgoing.frame.api_key
            );
            let error = Error::timeout(what, outgoing.caller.request_timeout);
            let _ = outgoing.reply.send(Err(CallError::Unsent(error)));
        }
        let any = self.held.len() < before;
        if any && self.in_flight.is_empty() {
            self.oldest(self.held.front().map(|outgoing| outgoing.given));
        }
        any
    }

    /// This process did nothing for so long.
    pub(super) fn stalled_held(&mut self, by: Duration, now: Instant) {
        for outgoing in &mut self.held {
            outgoing.given = (outgoing.given + by).min(now);
        }
    }

    fn log_in(&mut self, login: Box<dyn Mechanism>) {
        let Some(renewal) = self.renewal.take() else {
            self.phase = Phase::Ready;
            return;
        };
        let stream = std::mem::replace(&mut self.stream, Box::new(Lent));
        let reader = std::mem::replace(&mut self.reader, FrameReader::new(ChunkPool::default()));
        let broker = self.shared.metrics.broker().clone();
        let login = renewal.log_in(login, stream, reader, self.shared.name.clone(), broker);
        self.phase = Phase::LoggingIn(login);
    }

    fn renewed(&mut self, renewed: Renewed) {
        let Renewed { stream, reader, renewal } = renewed;
        (self.stream, self.reader, self.renewal) = (stream, reader, renewal);
        let now = self.shared.env.now();
        // The login may be over before the timer has told that this process did not run. Whoever is held has lost no
        // time then.
        self.notice_stall(now);
        // And the new session may be over by now as well: what is held waits for the next.
        let over = self.renewal.as_ref().is_some_and(|renewal| renewal.is_over());
        self.phase = if over { Phase::Draining } else { Phase::Ready };
        self.looked = now;
        self.last_look = false;
        let us = self.shared.env.micros(now);
        self.shared.renewed_us.store(us, Ordering::Relaxed);
        self.shared.used_us.store(us, Ordering::Relaxed);
        self.held_give_up(now);
        if over {
            return;
        }
        self.oldest(None);
        for outgoing in std::mem::take(&mut self.held) {
            self.queue(outgoing, now);
        }
    }
}

fn until(outgoing: &Outgoing) -> Instant {
    outgoing.given + outgoing.caller.request_timeout
}

/// In place of the stream while the login has it. Nobody reads or writes it.
struct Lent;

impl Transport for Lent {}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
