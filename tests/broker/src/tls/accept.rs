//! The handshake with a client, and with those that do not know that there is one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Endpoints, subject};
use crate::faults::TlsFault;
use crate::state::{Broker, Shared};

/// Length of a record's head, from which Java takes what it gets for TLS or not.
const RECORD_HEAD: usize = 5;
/// Read at once before it is known what it is. All of a short plaintext request: what is left unread as
/// a socket is closed makes the system throw away what was said last.
const FIRST_READ: usize = 4096;
/// A record of the type "handshake".
const HANDSHAKE: u8 = 22;
/// A fatal alert, internal_error, in TLS 1.2: what Java says to whoever speaks no TLS.
const NOT_TLS: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Shakes hands. With the stream comes the principal that the client's certificate names; `None` if the
/// connection is over.
pub(crate) async fn accept<S>(
    shared: &Arc<Shared>,
    endpoints: &Endpoints,
    broker: &Broker,
    mut stream: S,
) -> Option<(TlsStream<Prefixed<S>>, Option<String>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    broker.counters.tls_begun();
    let mut read = BytesMut::with_capacity(FIRST_READ);
    while read.len() < RECORD_HEAD {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    match shared.faults.tls(broker.id) {
        None => {}
        Some(TlsFault::Cut) => return None,
        Some(TlsFault::Stall) => {
            stall(&mut stream).await;
            return None;
        }
    }
    if read[0] != HANDSHAKE || read[1] != 3 {
        let _ = stream.write_all(&NOT_TLS).await;
        let _ = stream.shutdown().await;
        return None;
    }
    let (host, _) = broker.named_at();
    // It was set up once already: only for a host that no certificate can be made for it fails here.
    let config = endpoints.for_client(broker.id, &host).ok()?;
    let stream = Prefixed { read: read.freeze(), stream };
    let stream = TlsAcceptor::from(config).accept(stream).await.ok()?;
    let (_, connection) = stream.get_ref();
    broker.counters.tls_finished(connection.handshake_kind() == Some(HandshakeKind::Resumed));
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let principal = certificate.and_then(|certificate| subject::of(certificate));
    Some((stream, principal))
}

/// Never says anything.
async fn stall<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut ignored = [0; FIRST_READ];
    while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

/// A stream of which something was read already.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    read: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
