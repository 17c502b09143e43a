//! The process that the brokers are in is the test's: no signal of its own ends on their thread, and
//! their writing to a peer that has closed raises none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the standard library gives if nobody says otherwise.
const STACK: usize = 2 << 20;

/// Starts the brokers' thread, every signal blocked in it from the first instruction on.
pub(crate) fn start(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("ottla-test-broker".into()).stack_size(STACK);
    #[cfg(unix)]
    let before = {
        use nix::sys::signal::{SigSet, SigmaskHow};
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)
    };
    let started = thread.spawn(run);
    #[cfg(unix)]
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

/// A socket without SIGPIPE: a plain `writev` to a peer that has closed ends a process in C, Go or
/// Python that has not said otherwise.
pub(crate) struct Quiet(pub(crate) TcpStream);

impl AsyncRead for Quiet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The standard library writes to sockets with `send` and MSG_NOSIGNAL.
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
        loop {
            std::task::ready!(self.0.poll_write_ready(cx))?;
            let write = || {
                let mut nothing = SendAncillaryBuffer::default();
                Ok(sendmsg(&self.0, bufs, &mut nothing, SendFlags::NOSIGNAL)?)
            };
            match self.0.try_io(tokio::io::Interest::WRITABLE, write) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                wrote => return Poll::Ready(wrote),
            }
        }
    }

    // Elsewhere sockets are made with SO_NOSIGPIPE, or there is no such signal.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
