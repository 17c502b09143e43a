//! A broker's door: its TCP port, and the in-memory way in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::connection;
use crate::host::Quiet;
use crate::state::Shared;

/// Dials that wait for the broker to accept them.
const BACKLOG: i32 = 1024;
/// Buffer of an in-memory stream, each way: a socket's default on Linux is of this order.
const IN_MEMORY_BUFFER: usize = 256 << 10;

/// A loopback socket bound to `port` (0: any free one), not listening yet.
pub(crate) fn bind(port: u16) -> io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker has its port back although old connections linger in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into())?;
    if port != 0 {
        return Ok((socket, port));
    }
    let port = socket
        .local_addr()?
        .as_socket()
        .map(|address| address.port())
        .ok_or_else(|| io::Error::other("the socket has no IP address"))?;
    // Linux lets go of a port it chose itself when the socket stops listening, and keeps one that
    // was asked for: so ask for the port it chose.
    #[cfg(unix)]
    return bind(port);
    #[cfg(not(unix))]
    Ok((socket, port))
}

/// Opens a broker's gate, and listens if the cluster has TCP.
pub(crate) fn open(shared: &Arc<Shared>, id: i32) -> io::Result<()> {
    let broker = shared.broker(id).ok_or_else(|| unknown_broker(id))?;
    let mut gate = broker.gate();
    if gate.connections.is_some() {
        return Ok(());
    }
    if shared.config.tcp {
        let socket = match gate.socket.take() {
            Some(socket) => socket,
            None => bind(broker.port)?.0,
        };
        socket.listen(BACKLOG)?;
        let _context = shared.handle.enter();
        let listener = TcpListener::from_std(socket.try_clone()?.into())?;
        gate.socket = Some(socket);
        let (stop, stopped) = watch::channel(());
        gate.listening = Some(stop);
        shared.handle.spawn(accept(Arc::clone(shared), id, listener, stopped));
    }
    gate.connections = Some(watch::channel(()).0);
    Ok(())
}

/// Closes a broker's gate: nobody new comes in, and who is in is cut.
pub(crate) fn close(shared: &Shared, id: i32) -> io::Result<()> {
    let broker = shared.broker(id).ok_or_else(|| unknown_broker(id))?;
    let mut gate = broker.gate();
    gate.connections = None;
    gate.listening = None;
    // Linux takes a listening socket back to a bound one: dials are refused from now on, and nobody
    // else (least of all a dialling client's own end) can be given the port while the broker is
    // down. Elsewhere the port is free until the broker starts again.
    if gate.socket.as_ref().is_some_and(|socket| socket.shutdown(std::net::Shutdown::Both).is_err())
    {
        gate.socket = None;
    }
    Ok(())
}

/// Cuts a broker's connections; it goes on listening.
pub(crate) fn cut(shared: &Shared, id: i32) -> io::Result<()> {
    let broker = shared.broker(id).ok_or_else(|| unknown_broker(id))?;
    let mut gate = broker.gate();
    if gate.connections.is_some() {
        gate.connections = Some(watch::channel(()).0);
    }
    Ok(())
}

pub(crate) fn unknown_broker(id: i32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the cluster has no broker {id}"))
}

async fn accept(
    shared: Arc<Shared>,
    id: i32,
    listener: TcpListener,
    mut stopped: watch::Receiver<()>,
) {
    loop {
        let stream = tokio::select! {
            biased;
            _ = stopped.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, or the peer is gone already: the next one may do.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let Some(broker) = shared.broker(id) else { break };
        if shared.faults.refuses(id) {
            broker.counters.refused();
            continue;
        }
        // Small answers must not wait for the peer's delayed acknowledgement.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let cut = broker.gate().connections.as_ref().map(watch::Sender::subscribe);
        if let Some(cut) = cut {
            connection::spawn(&shared, id, Quiet(stream), cut);
        }
    }
}

/// Whether a broker lets anybody in.
pub(crate) fn is_open(shared: &Shared, id: i32) -> bool {
    shared.broker(id).is_some_and(|broker| broker.gate().connections.is_some())
}

/// Serves a connection that came in some other way than through the broker's port.
pub(crate) fn admit<S>(shared: &Arc<Shared>, id: i32, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broker = shared.broker(id).ok_or_else(|| unknown_broker(id))?;
    let cut = broker.gate().connections.as_ref().map(watch::Sender::subscribe);
    match cut {
        Some(cut) if !shared.faults.refuses(id) => {
            connection::spawn(shared, id, stream, cut);
            Ok(())
        }
        _ => {
            broker.counters.refused();
            let words = format!("broker {id} refuses connections");
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, words))
        }
    }
}

/// A connection to a broker through memory.
pub(crate) fn connect_in_memory(shared: &Arc<Shared>, id: i32) -> io::Result<DuplexStream> {
    let (near, far) = tokio::io::duplex(IN_MEMORY_BUFFER);
    admit(shared, id, far)?;
    Ok(near)
}
