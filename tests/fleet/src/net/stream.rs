//! A connection as its two ends hold it: a byte stream each way, which takes memory only for bytes
//! that are under way or unread.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::events::Event;
use super::link::Way;
use super::wire::Frames;
use super::{Name, Shared};

/// Bytes under way or unread in one direction; more wait in the writer, as with full socket buffers.
const WINDOW: usize = 256 << 10;

/// Who of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client = 0,
    Broker = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Broker,
            Self::Broker => Self::Client,
        }
    }

    /// The way that bytes to this end take.
    fn way_to(self) -> Way {
        match self {
            Self::Client => Way::FromBroker,
            Self::Broker => Way::ToBroker,
        }
    }
}

/// A connection; its ends share it with the events under way.
pub(crate) struct Conn {
    pub(crate) name: Name,
    pub(crate) broker: i32,
    state: Mutex<ConnState>,
}

#[derive(Default)]
struct ConnState {
    /// By the side that reads.
    to: [Direction; 2],
    /// By side: it no longer exists.
    gone: [bool; 2],
    frames: Frames,
}

/// What one end reads.
#[derive(Default)]
struct Direction {
    under_way: VecDeque<Bytes>,
    unread: VecDeque<Bytes>,
    /// Bytes in both.
    held: usize,
    /// The writer has said its last; arrived when nothing is under way before it.
    fin: Fin,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Fin {
    #[default]
    No,
    UnderWay,
    Arrived,
}

impl Conn {
    pub(crate) fn new(name: Name, broker: i32) -> Arc<Self> {
        Arc::new(Self { name, broker, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, ConnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `side` learns that the connection is over; what it has not read is lost.
    pub(crate) fn end(&self, side: Side) {
        let mut state = self.state();
        let [to_client, to_broker] = &mut state.to;
        let (read, write) = match side {
            Side::Client => (to_client, to_broker),
            Side::Broker => (to_broker, to_client),
        };
        read.reset = true;
        read.under_way.clear();
        read.unread.clear();
        read.held = 0;
        let wakers = [read.reader.take(), write.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Shared {
    /// The next bytes under way to `to` are there, or the end of the stream is.
    pub(crate) fn arrived(self: &Arc<Self>, conn: &Arc<Conn>, to: Side) {
        let mut state = conn.state();
        let gone = state.gone[to as usize];
        let direction = &mut state.to[to as usize];
        if direction.reset && !gone {
            return;
        }
        match direction.under_way.pop_front() {
            Some(_) if gone => {
                drop(state);
                // Nobody reads it: the sender is told so.
                self.send(conn, to.other(), 0, Event::Rst);
                return;
            }
            Some(bytes) => direction.unread.push_back(bytes),
            None => direction.fin = Fin::Arrived,
        }
        let reader = direction.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Puts on the link what reaches `to` when `bytes` have passed.
    fn send(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        to: Side,
        bytes: usize,
        event: fn(Arc<Conn>, Side) -> Event,
    ) {
        let now = self.now_ms();
        let mut state = self.state();
        let at = state.links.arrival(conn.broker, to.way_to(), now, bytes);
        self.push(&mut state, at, event(Arc::clone(conn), to));
    }

    /// Both ends learn at once.
    pub(crate) fn reset(self: &Arc<Self>, conn: &Arc<Conn>) {
        conn.end(Side::Client);
        conn.end(Side::Broker);
        self.state().conns.remove(&conn.name);
    }

    /// The broker's end closes, whoever holds it.
    pub(crate) fn hang_up(self: &Arc<Self>, conn: &Arc<Conn>) {
        self.close(conn, Side::Broker);
        conn.end(Side::Broker);
    }

    /// One end is gone: the other reads what is under way and then the end.
    fn close(self: &Arc<Self>, conn: &Arc<Conn>, side: Side) {
        let mut state = conn.state();
        if std::mem::replace(&mut state.gone[side as usize], true) {
            return;
        }
        let other_gone = state.gone[side.other() as usize];
        let other = &mut state.to[side.other() as usize];
        let tell = !other_gone && !other.reset && other.fin == Fin::No;
        if tell {
            other.fin = Fin::UnderWay;
        }
        drop(state);
        if tell {
            self.send(conn, side.other(), 0, Event::Arrive);
        }
        self.state().conns.remove(&conn.name);
    }
}

/// One end of a connection.
pub struct Stream {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    side: Side,
}

impl ottla::Transport for Stream {}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, conn: Arc<Conn>, side: Side) -> Self {
        Self { shared, conn, side }
    }

    fn write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let to = self.side.other();
        let mut state = self.conn.state();
        if state.to[self.side as usize].reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let direction = &mut state.to[to as usize];
        if direction.fin != Fin::No {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(direction.held);
        if room == 0 {
            direction.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut bytes = Vec::with_capacity(total.min(room));
        for slice in slices {
            let take = slice.len().min(room - bytes.len());
            bytes.extend_from_slice(&slice[..take]);
        }
        let len = bytes.len();
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        direction.held += len;
        direction.under_way.push_back(bytes.into());
        let seen = if self.side == Side::Client {
            let ConnState { to, frames, .. } = &mut *state;
            let written = to[Side::Broker as usize].under_way.back().expect("pushed above");
            frames.heads(written)
        } else {
            Vec::new()
        };
        drop(state);
        if !seen.is_empty() {
            let now = self.shared.now_ms();
            let mut net = self.shared.state();
            for api in seen {
                net.log.request(now, self.conn.name, self.conn.broker, api);
            }
        }
        self.shared.send(&self.conn, to, len, Event::Arrive);
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.conn.state();
        let direction = &mut state.to[self.side as usize];
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let Some(front) = direction.unread.front_mut() else { break };
            let take = front.len().min(buf.remaining());
            buf.put_slice(&front[..take]);
            front.advance(take);
            if front.is_empty() {
                direction.unread.pop_front();
            }
        }
        let read = buf.filled().len() - before;
        direction.held -= read;
        if direction.unread.is_empty() && direction.under_way.is_empty() {
            // A quiet connection keeps no room for the bytes that went through it.
            direction.unread = VecDeque::new();
            direction.under_way = VecDeque::new();
        }
        if read > 0 || buf.remaining() == 0 {
            let writer = direction.writer.take();
            drop(state);
            writer.into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        if direction.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if direction.fin == Fin::Arrived {
            return Poll::Ready(Ok(()));
        }
        direction.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to = self.side.other();
        let mut state = self.conn.state();
        let direction = &mut state.to[to as usize];
        if direction.fin == Fin::No {
            direction.fin = Fin::UnderWay;
            drop(state);
            self.shared.send(&self.conn, to, 0, Event::Arrive);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.close(&self.conn, self.side);
    }
}
