//! TCP: every resolved address shuffled and tried in turn, socket options that the measurements
//! asked for.

use std::io;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rand::seq::SliceRandom;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{BoxFuture, Dialer, Transport, system_seeded};
use crate::config::Endpoint;
use crate::threads::Workers;

/// Half a megabyte: less stalls a sender that writes batches of 256 KiB, more than 1 MiB gains
/// nothing. The receive buffer is left to the kernel's autotuning: a fixed one doubles the cost
/// of consuming.
const SEND_BUFFER: usize = 512 << 10;

/// Share of the set-up time for one address when there are several: a black hole in front must
/// not use up the time of the address behind it.
const PER_ADDRESS: Duration = Duration::from_secs(3);

/// Dials TCP.
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(dial(None, to))
    }
}

/// The same where names are looked up by the engine's own threads.
pub(crate) struct Tcp {
    workers: Arc<Workers>,
}

impl Tcp {
    pub(crate) fn with(workers: &Arc<Workers>) -> Self {
        Self { workers: Arc::clone(workers) }
    }
}

impl Dialer for Tcp {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(dial(Some(&self.workers), to))
    }
}

async fn dial(workers: Option<&Arc<Workers>>, to: &Endpoint) -> io::Result<Box<dyn Transport>> {
    connect(look_up(workers, to).await?).await
}

/// To whichever of a name's addresses takes it first.
async fn connect(mut addresses: Vec<SocketAddr>) -> io::Result<Box<dyn Transport>> {
    addresses.shuffle(&mut system_seeded());
    let several = addresses.len() > 1;
    let mut last = None;
    for address in addresses {
        let connect = TcpStream::connect(address);
        let result = if several {
            match tokio::time::timeout(PER_ADDRESS, connect).await {
                Ok(result) => result,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        } else {
            connect.await
        };
        match result {
            Ok(stream) => {
                configure(&stream);
                return Ok(Box::new(Stream(stream)) as Box<dyn Transport>);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address")
    }))
}

/// The addresses of a host. The system's resolver has no other way than to keep a thread waiting.
async fn look_up(workers: Option<&Arc<Workers>>, to: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let unknown = |e| io::Error::new(io::ErrorKind::NotFound, e);
    let (host, port) = (to.host.clone(), to.port);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let Some(workers) = workers else {
        return Ok(tokio::net::lookup_host((host, port)).await.map_err(unknown)?.collect());
    };
    let (tx, rx) = tokio::sync::oneshot::channel();
    let job = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let _ = tx.send(found);
    };
    workers.run(Box::new(job)).map_err(|(_, e)| e)?;
    match rx.await {
        Ok(found) => found.map_err(unknown),
        Err(_) => Err(io::Error::other("the lookup of the name was cut off")),
    }
}

/// A socket whose writes raise no signal. A peer that has closed is an error like any other; but in a
/// process that has not said otherwise a plain `writev` to it ends the process (SIGPIPE). Rust's `main`
/// says otherwise, and so does Python's; a program in C or Go, and a Python script that wants to end
/// quietly in a pipe, does not.
struct Stream(TcpStream);

impl Transport for Stream {
    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
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
        // What tokio does with `writev`: one system call while there is room.
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

/// Options are best effort: a socket without them works.
fn configure(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(60)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn sockets_are_set_up_as_measured() {
        let (_listener, address) = listener().await;
        let stream = TcpStream::connect(address).await.unwrap();
        configure(&stream);
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
        }
        // The system has bounds of its own.
        let other = TcpStream::connect(address).await.unwrap();
        let other = SockRef::from(&other);
        other.set_send_buffer_size(SEND_BUFFER).unwrap();
        assert_eq!(socket.send_buffer_size().unwrap(), other.send_buffer_size().unwrap());
    }

    /// Each of a name's addresses has its turn, and one that refuses stands in nobody's way.
    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        // Bound, so that nobody else gets it, and not listening.
        let refusing = tokio::net::TcpSocket::new_v4().unwrap();
        refusing.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let closed = refusing.local_addr().unwrap();
        let (_a, here) = listener().await;
        let (_b, there) = listener().await;
        let mut reached = BTreeSet::new();
        for _ in 0..64 {
            let stream = connect(vec![closed, here, there]).await.unwrap();
            reached.insert(stream.peer_addr().unwrap());
        }
        assert_eq!(reached, BTreeSet::from([here, there]));
        assert!(connect(vec![closed, closed]).await.is_err());
        let nowhere = connect(Vec::new()).await.err().unwrap();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }
}
