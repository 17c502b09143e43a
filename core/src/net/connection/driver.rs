//! The task that owns the stream of a connection: it writes the frames that handles have ordered, and matches
//! responses to them by correlation id.
//!
//! It ends when the peer closes, when a response is overdue or wrong, when nothing was asked for long, or when
//! every handle is gone and nothing is in flight. For each request in flight it then says whether its frame had
//! been handed to the socket whole: only if it had not is it certain that the broker never saw it.

mod overdue;
mod session;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::{CallError, CloseReason, OnClose, Order, Outgoing, Response, Shared};
use crate::caught;
use crate::environment::Transport;
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result};
use crate::metrics::{Failure, Sent};
use crate::net::frames::FrameReader;
use crate::net::renewal::{Preparing, Renewal};
use crate::security::Mechanism;
use crate::security::tls::cut_off;
use session::Phase;

const MAY_WANT_SASL: &str = "set sasl, or use a listener without it; else look at the broker's log";

/// How long an orderly end of TLS may take: the peer may read nothing any more.
const GOODBYE: Duration = Duration::from_secs(1);

/// A request that is not answered yet, or (acks=0) not written yet.
struct Pending {
    correlation: i32,
    api_key: i16,
    /// The waiting caller, and what counts the request; `None`: the caller's time is over.
    waiting: Option<(oneshot::Sender<Response>, Sent)>,
    /// Since when the broker can have been at it: when it was given, or when the login was over that it waited for.
    sent: Instant,
    /// When its caller waits no longer.
    until: Instant,
    /// How long its caller waits.
    timeout: Duration,
    /// Position in the byte stream where its frame ends.
    end: u64,
}

/// Owns the stream of one connection.
pub(super) struct Driver {
    stream: Box<dyn Transport>,
    reader: FrameReader,
    rx: mpsc::UnboundedReceiver<Order>,
    rx_open: bool,
    shared: Arc<Shared>,
    /// Segments that wait to be written. Bounded by what callers have in flight: a sender has
    /// [`MAX_REQUESTS_IN_FLIGHT`](crate::config::MAX_REQUESTS_IN_FLIGHT) requests at most, and others wait for
    /// each response.
    write: VecDeque<Bytes>,
    /// How many bytes were queued, how many the stream has accepted, and how many it has handed on to the socket (TLS
    /// keeps some), since the connection was opened.
    queued: u64,
    written: u64,
    flushed: u64,
    in_flight: VecDeque<Pending>,
    /// Requests without a response (acks=0), until the socket has them.
    unwritten: VecDeque<Pending>,
    /// Requests that were given while the session is renewed.
    held: VecDeque<Outgoing>,
    /// The longest idle timeout of its callers, and the part of it after which this connection closes.
    idle_timeout: Duration,
    idle_share: f64,
    /// The longest request timeout of its callers.
    patience: Duration,
    /// Whether some callers have a shorter request timeout than that.
    some_wait_less: bool,
    used: Instant,
    on_close: Option<OnClose>,
    /// Fires at the next look or before it. A request never sets it, unless its look comes earlier: the timer is
    /// set again when it fires.
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    /// When the timer fired last, or the oldest request came to be the oldest.
    looked: Instant,
    /// The oldest request is overdue, and the socket is looked into once more.
    last_look: bool,
    /// After a stall: nothing is overdue before this.
    grace: Instant,
    /// How to log in anew, if the broker ends the session.
    renewal: Option<Box<Renewal>>,
    /// What that needs is being got ready, or is there.
    preparing: Option<Preparing>,
    prepared: Option<Result<Box<dyn Mechanism>>>,
    phase: Phase,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        rx: mpsc::UnboundedReceiver<Order>,
        stream: Box<dyn Transport>,
        reader: FrameReader,
        (idle_timeout, idle_share): (Duration, f64),
        renewal: Option<Box<Renewal>>,
        on_close: OnClose,
    ) -> Self {
        let used = shared.env.now();
        let idle_at = used + idle_timeout.mul_f64(idle_share);
        Self {
            stream,
            reader,
            rx,
            rx_open: true,
            write: VecDeque::new(),
            queued: 0,
            written: 0,
            flushed: 0,
            in_flight: VecDeque::new(),
            unwritten: VecDeque::new(),
            held: VecDeque::new(),
            idle_timeout,
            idle_share,
            patience: Duration::ZERO,
            some_wait_less: false,
            used,
            on_close: Some(on_close),
            timer: Box::pin(shared.env.timer(idle_at)),
            timer_at: idle_at,
            looked: used,
            last_look: false,
            grace: used,
            renewal,
            preparing: None,
            prepared: None,
            phase: Phase::Ready,
            shared,
        }
    }

    /// Runs until the connection is over and every caller that waits has been told.
    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let in_order = matches!(end, CloseReason::Unneeded | CloseReason::Idle);
        let why = self.over(end);
        while let Some(order) = self.rx.recv().await {
            self.refuse(order, &why);
        }
        if in_order {
            // With TLS the peer is told that nothing was cut off.
            let env = self.shared.env.clone();
            let goodbye = poll_fn(|cx| Pin::new(&mut *self.stream).poll_shutdown(cx));
            let _ = env.within(GOODBYE, goodbye).await;
        }
    }

    /// The connection is over: everybody who waits for a response is told.
    fn over(&mut self, end: CloseReason) -> Error {
        if let CloseReason::Lost(e) = &end
            && e.kind() == ErrorKind::NotKafka
        {
            let _ = self.shared.not_kafka.set(e.clone());
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.oldest_us.store(0, Ordering::Relaxed);
        self.rx.close();
        // Before callers are told: whoever hears of the loss finds the broker's state up to date.
        match &end {
            CloseReason::Unneeded => self.shared.metrics.closed(),
            CloseReason::Idle => self.shared.metrics.closed_idle(),
            CloseReason::Lost(e) | CloseReason::HungUp(e) => self.shared.metrics.lost(e),
        }
        if let Some(on_close) = self.on_close.take() {
            on_close(&end);
        }
        let name = &self.shared.name;
        let why = match end {
            CloseReason::Unneeded | CloseReason::Idle => {
                Error::new(ErrorKind::Disconnected, format!("{name}: closed by this client"))
            }
            CloseReason::Lost(e) | CloseReason::HungUp(e) => e,
        };
        let failed = self.in_flight.len() + self.unwritten.len() + self.held.len();
        for pending in self.in_flight.drain(..).chain(self.unwritten.drain(..)) {
            let error = if pending.end <= self.written {
                CallError::InDoubt(why.clone())
            } else {
                CallError::Unsent(why.clone())
            };
            // All of them wait in vain for the oldest, which took too long.
            let Some((reply, counted)) = pending.waiting else { continue };
            counted.failed(match why.kind() {
                ErrorKind::Timeout => Failure::Timeout,
                _ => Failure::Disconnected,
            });
            let _ = reply.send(Err(error));
        }
        for outgoing in self.held.drain(..) {
            let _ = outgoing.reply.send(Err(CallError::Unsent(why.clone())));
        }
        self.shared.in_flight.fetch_sub(failed, Ordering::Relaxed);
        why
    }

    fn refuse(&self, order: Order, why: &Error) {
        let Order::Send(outgoing) = order else { return };
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        let _ = outgoing.reply.send(Err(CallError::Unsent(why.clone())));
    }

    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.renewal.is_none() && matches!(self.phase, Phase::Ready) {
            return self.poll_requests(cx);
        }
        self.poll_session(cx)
    }

    /// The same for a connection whose session does not end before.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Some(end) = self.take_orders(cx) {
            return Poll::Ready(end);
        }
        // A peer that has closed may have answered before: that is read first.
        let broken = match self.poll_write(cx) {
            Poll::Ready(Err(e)) => Some(e),
            _ => None,
        };
        loop {
            match self.reader.poll_frame(&mut *self.stream, cx) {
                Poll::Ready(Ok(frame)) => {
                    if let Err(e) = self.answered(frame) {
                        return Poll::Ready(CloseReason::Lost(e));
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(self.lost(&e)),
                Poll::Pending => break,
            }
        }
        if let Some(e) = broken {
            return Poll::Ready(self.lost(&e));
        }
        if self.is_unneeded() {
            return Poll::Ready(CloseReason::Unneeded);
        }
        self.poll_deadline(cx)
    }

    /// Takes what handles have ordered; gives the end, if one of them has condemned the connection.
    fn take_orders(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        while self.rx_open {
            match self.rx.poll_recv(cx) {
                Poll::Ready(Some(Order::Send(outgoing))) => match self.phase {
                    Phase::Ready => {
                        let since = outgoing.given;
                        self.queue(outgoing, since);
                    }
                    _ => self.hold(outgoing),
                },
                Poll::Ready(Some(Order::Condemn(e))) => return Some(CloseReason::Lost(e)),
                Poll::Ready(Some(Order::Retire) | None) => self.rx_open = false,
                Poll::Pending => break,
            }
        }
        None
    }

    /// Whether nothing is left to do, and nothing more can come.
    fn is_unneeded(&self) -> bool {
        !self.rx_open
            && self.in_flight.is_empty()
            && self.unwritten.is_empty()
            && self.held.is_empty()
    }

    /// `since`: when it was given, or when the login was over that it waited for.
    fn queue(&mut self, outgoing: Outgoing, since: Instant) {
        let Outgoing { frame, caller, reply, given, counted } = outgoing;
        self.used = since;
        self.idle_timeout = self.idle_timeout.max(caller.idle_timeout);
        let timeout = caller.request_timeout;
        self.some_wait_less |=
            given != since || timeout != self.patience && !self.patience.is_zero();
        self.patience = self.patience.max(timeout);
        if self.in_flight.is_empty() && frame.answered {
            self.oldest(Some(since));
        }
        for segment in frame.segments {
            self.queued += segment.len() as u64;
            if !segment.is_empty() {
                self.write.push_back(segment);
            }
        }
        let waiting = if frame.answered { &mut self.in_flight } else { &mut self.unwritten };
        waiting.push_back(Pending {
            correlation: frame.correlation,
            api_key: frame.api_key,
            waiting: Some((reply, counted)),
            sent: since,
            until: given + timeout,
            timeout,
            end: self.queued,
        });
    }

    fn oldest(&self, sent: Option<Instant>) {
        // Never 0 for a request: the environment may be as young as the request is.
        let us = sent.map_or(0, |at| self.shared.env.micros(at).max(1));
        self.shared.oldest_us.store(us, Ordering::Relaxed);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        const SLICES: usize = 64;
        while !self.write.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut n = 0;
            for (slot, segment) in slices.iter_mut().zip(&self.write) {
                *slot = IoSlice::new(segment);
                n += 1;
            }
            let stream = Pin::new(&mut *self.stream);
            let wrote = match stream.poll_write_vectored(cx, &slices[..n]) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(wrote)) => wrote,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            };
            self.written += wrote as u64;
            let mut left = wrote;
            while left > 0 {
                let front = self.write.front_mut().expect("bytes written were queued");
                if left >= front.len() {
                    left -= front.len();
                    self.write.pop_front();
                } else {
                    let _ = front.split_to(left);
                    left = 0;
                }
            }
            // What TLS keeps to itself would be lost with the process.
            if let Poll::Ready(flushed) = self.poll_flush(cx) {
                flushed?;
            }
        }
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut *self.stream).poll_flush(cx))?;
        self.flushed = self.written;
        self.written_unanswered();
        Poll::Ready(Ok(()))
    }

    /// Tells the callers of requests without a response that the socket has them.
    fn written_unanswered(&mut self) {
        while self.unwritten.front().is_some_and(|p| p.end <= self.flushed) {
            let Some(pending) = self.unwritten.pop_front() else { return };
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            let Some((reply, counted)) = pending.waiting else { continue };
            counted.answered(0, self.shared.env.now());
            let _ = reply.send(Ok(Bytes::new()));
        }
    }

    fn answered(&mut self, frame: Bytes) -> Result<()> {
        self.shared.env.mishap("connection");
        let name = &self.shared.name;
        let not_kafka = |words: String| {
            Error::new(ErrorKind::NotKafka, format!("{name}: {words}")).advise(NOT_THE_PROTOCOL)
        };
        if frame.len() < 4 {
            return Err(not_kafka(format!("an answer of {} bytes", frame.len())));
        }
        let got = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        match self.in_flight.front() {
            None => Err(not_kafka(format!("an answer ({got}) that nobody asked for"))),
            Some(p) if p.correlation != got => Err(not_kafka(format!(
                "an answer with correlation id {got} where {} is due (request {})",
                p.correlation, p.api_key
            ))),
            Some(p) if p.end > self.written => Err(not_kafka(format!(
                "an answer to a request ({}) that is not sent yet",
                p.api_key
            ))),
            Some(_) => {
                let pending = self.in_flight.pop_front().expect("checked above");
                self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                self.oldest(self.in_flight.front().map(|p| p.sent));
                // Idle since now, not since a request whose response took long.
                let now = self.shared.env.now();
                self.used = now;
                self.looked = now;
                self.last_look = false;
                self.shared.used_us.store(self.shared.env.micros(now), Ordering::Relaxed);
                self.shared.answered.store(true, Ordering::Relaxed);
                if let Some(guard) = &self.shared.guard {
                    guard.taken(now);
                }
                if let Some(vouch) = self.shared.vouch.get() {
                    let losses = vouch.losses.load(Ordering::Acquire);
                    self.shared.answered_losses.store(losses, Ordering::Release);
                }
                if let Some((reply, counted)) = pending.waiting {
                    counted.answered(frame.len(), now);
                    let _ = reply.send(Ok(frame.slice(4..)));
                }
                Ok(())
            }
        }
    }

    /// After a panic: the connection ends like one that was lost. So its lane can be opened again, its permit is
    /// given back, and nobody waits for a response that nobody reads.
    fn panicked(&mut self) {
        let words = format!("{}: the connection's task panicked", self.shared.name);
        let why = self.over(CloseReason::Lost(Error::new(ErrorKind::Internal, words)));
        while let Ok(order) = self.rx.try_recv() {
            self.refuse(order, &why);
        }
    }

    fn lost(&self, e: &std::io::Error) -> CloseReason {
        let name = &self.shared.name;
        let disconnected = |words: String| Error::new(ErrorKind::Disconnected, words);
        if let Some(words) = cut_off(e) {
            return CloseReason::Lost(disconnected(format!("{name}: {words}")));
        }
        if e.kind() == std::io::ErrorKind::InvalidData {
            let error = Error::new(ErrorKind::NotKafka, format!("{name}: {e}"));
            return CloseReason::Lost(error.advise(NOT_THE_PROTOCOL));
        }
        // A listener with SASL tells its versions to anybody, and nothing else.
        let asked = !self.in_flight.is_empty() && !self.shared.answered.load(Ordering::Relaxed);
        if asked && self.shared.guard.is_none() && self.reader.is_between_frames() {
            let words = format!(
                "{name}: the peer hung up after ApiVersions, before any other answer; it may want SASL"
            );
            return CloseReason::HungUp(disconnected(words).advise(MAY_WANT_SASL));
        }
        CloseReason::Lost(match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                disconnected(format!("{name}: the broker closed the connection"))
            }
            _ => disconnected(format!("{name}: {e}")),
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.on_close.is_some() && std::thread::panicking() {
            let _ = caught::call(|| self.panicked());
        }
    }
}
