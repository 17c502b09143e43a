//! One connection by TLS. Bytes that TLS has taken count as handed over: whether the peer's kernel has them, nobody
//! can tell, and so a request that was given to TLS whole is in doubt once the connection is lost.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Tls, words};
use crate::config::Endpoint;
use crate::environment::Transport;
use crate::error::{Error, ErrorKind, Result};

/// What one connection is wrapped by.
pub(crate) struct Plan {
    pub(super) config: Arc<rustls::ClientConfig>,
}

/// The name to look for in a certificate; `None` if there can be none.
pub(super) fn name(host: &str) -> Option<ServerName<'static>> {
    // A name that is written as absolute is the same one in a certificate.
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// The name to look for in the certificate of a broker.
fn name_of(tls: &Tls, endpoint: &Endpoint) -> Result<ServerName<'static>> {
    let host = tls.server_name.as_deref().unwrap_or(&endpoint.host);
    name(host).ok_or_else(|| {
        let words = format!("{endpoint}: no certificate can be for the name '{host}'");
        Error::new(ErrorKind::Tls, words)
            .advise("set server_name, or let the brokers advertise another name")
    })
}

/// The handshake. `peer` names the broker in errors.
pub(crate) async fn wrap(
    stream: Box<dyn Transport>,
    plan: Plan,
    tls: &Tls,
    endpoint: &Endpoint,
    peer: &str,
) -> Result<Box<dyn Transport>> {
    let name = name_of(tls, endpoint)?;
    let inner = ReadAhead { inner: stream, ahead: Vec::new(), start: 0 };
    let connect = TlsConnector::from(plan.config).connect(name, inner);
    match connect.await {
        Ok(stream) => Ok(Box::new(Secure(stream))),
        Err(e) => Err(words::handshake(tls, peer, &e)),
    }
}

/// The error of rustls in one of a stream.
pub(crate) fn rustls_error(e: &io::Error) -> Option<&rustls::Error> {
    e.get_ref()?.downcast_ref()
}

struct Secure(TlsStream<ReadAhead>);

impl Transport for Secure {
    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.get_ref().0.inner.peer_addr()
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Reads 64 KiB at a time: rustls asks for 4 KiB, and each would be a system call. Bytes land on the stack, and
/// move to the heap only if rustls does not take them at once, so that a quiet connection holds no buffer.
struct ReadAhead {
    inner: Box<dyn Transport>,
    ahead: Vec<u8>,
    start: usize,
}

const AT_ONCE: usize = 64 << 10;

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.ahead.len() {
            let mut bytes = [MaybeUninit::uninit(); AT_ONCE];
            let mut read = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            let (now, later) = read.filled().split_at(read.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            this.ahead.clear();
            this.start = 0;
            this.ahead.extend_from_slice(later);
            return Poll::Ready(Ok(()));
        }
        let have = &this.ahead[this.start..];
        let take = have.len().min(buf.remaining());
        buf.put_slice(&have[..take]);
        this.start += take;
        if this.start == this.ahead.len() {
            this.ahead = Vec::new();
            this.start = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
