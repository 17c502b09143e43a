//! A connection whose session ends: requests, then nothing more until all are answered, then a login, then requests
//! again. What is ordered meanwhile waits in the channel. Nothing else may be written between the messages of a
//! login: the broker would answer ILLEGAL_SASL_STATE and close.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Driver;
use crate::environment::{BoxFuture, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::net::connection::CloseReason;
use crate::net::frames::FrameReader;
use crate::net::renewal::Renewed;
use crate::record::pool::ChunkPool;

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
                match ready!(login.as_mut().poll(cx)) {
                    Ok(renewed) => self.renewed(renewed),
                    // A fresh connection finds out whether the credentials are good.
                    Err(e) => {
                        let words = format!("the session is over: {}", e.message());
                        let error = Error::new(ErrorKind::Disconnected, words);
                        return Poll::Ready(CloseReason::Lost(error));
                    }
                }
            }
            // Before orders are looked at: after a stall nothing may go out in a session that is over.
            if self.renewal_due(self.shared.env.now()) {
                self.phase = Phase::Draining;
            }
            let over = self.poll_requests(cx);
            if over.is_ready() {
                return over;
            }
            if !matches!(self.phase, Phase::Draining) || !self.is_drained() {
                return Poll::Pending;
            }
            self.log_in();
        }
    }

    /// When the session is to be renewed, if it ends and that is not under way.
    pub(super) fn renewal_at(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref()?;
        matches!(self.phase, Phase::Ready).then(|| renewal.due())
    }

    pub(super) fn renewal_due(&self, now: Instant) -> bool {
        self.renewal_at().is_some_and(|due| due <= now)
    }

    fn is_drained(&self) -> bool {
        self.in_flight.is_empty() && self.unwritten.is_empty() && self.write.is_empty()
    }

    fn log_in(&mut self) {
        let Some(renewal) = self.renewal.take() else {
            self.phase = Phase::Ready;
            return;
        };
        let stream = std::mem::replace(&mut self.stream, Box::new(Lent));
        let reader = std::mem::replace(&mut self.reader, FrameReader::new(ChunkPool::default()));
        let broker = self.shared.metrics.broker().clone();
        let login = renewal.log_in(stream, reader, self.shared.name.clone(), broker);
        self.phase = Phase::LoggingIn(login);
    }

    fn renewed(&mut self, renewed: Renewed) {
        let Renewed { stream, reader, renewal } = renewed;
        (self.stream, self.reader, self.renewal) = (stream, reader, renewal);
        self.phase = Phase::Ready;
        self.looked = self.shared.env.now();
        self.last_look = false;
    }
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
