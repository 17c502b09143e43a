//! TCP: every resolved address shuffled and tried in turn, socket options that the measurements
//! asked for.

use std::io;
use std::time::Duration;

use rand::seq::SliceRandom;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::Endpoint;
use crate::environment::{BoxFuture, Dialer, Transport};

/// Half a megabyte: less stalls a sender that writes batches of 256 KiB, more than 1 MiB gains
/// nothing. The receive buffer is left to the kernel's autotuning: a fixed one doubles the cost
/// of consuming.
const SEND_BUFFER: usize = 512 << 10;

/// Share of the set-up time for one address when there are several: a black hole in front must
/// not use up the time of the address behind it.
const PER_ADDRESS: Duration = Duration::from_secs(3);

/// Dials TCP.
pub struct TcpDialer;

impl Transport for TcpStream {
    fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        Self::peer_addr(self).ok()
    }
}

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let mut addresses: Vec<_> = tokio::net::lookup_host((to.host.as_str(), to.port))
                .await
                .map_err(|e| io::Error::new(io::ErrorKind::NotFound, e))?
                .collect();
            addresses.shuffle(&mut rand::rng());
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
                        return Ok(Box::new(stream) as Box<dyn Transport>);
                    }
                    Err(e) => last = Some(e),
                }
            }
            Err(last.unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address")
            }))
        })
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
