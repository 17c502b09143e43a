//! Ways into the brokers besides TCP, for a client's dialer and for a network of the caller's own. They
//! may outlive the cluster.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use crate::listener;
use crate::state::Shared;

/// Dials brokers of one cluster through memory.
#[derive(Debug, Clone)]
pub struct Dialer {
    pub(crate) shared: Arc<Shared>,
}

impl Dialer {
    /// A new connection to the broker with this address.
    ///
    /// # Errors
    /// `NotFound` if no broker has the address, `ConnectionRefused` if the broker, or the cluster,
    /// is stopped or the fault script says so.
    pub fn dial(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let broker = self
            .shared
            .brokers
            .iter()
            .find(|broker| broker.named_at() == (host.to_owned(), port))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no broker at {host}:{port}"))
            })?;
        listener::connect_in_memory(&self.shared, broker.id)
    }
}

/// The brokers as a network sees them: whether a process listens there, and the hand-over of an
/// accepted connection. May outlive the cluster: then nobody listens.
#[derive(Debug, Clone)]
pub struct Doors {
    pub(crate) shared: Arc<Shared>,
}

impl Doors {
    /// Whether `broker` takes connections now.
    pub fn is_open(&self, broker: i32) -> bool {
        listener::is_open(&self.shared, broker)
    }

    /// Serves `stream` as a connection of `broker`, in the cluster's runtime.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker; `ConnectionRefused` while it is stopped, or when the fault
    /// script says so.
    pub fn admit<S>(&self, broker: i32, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        listener::admit(&self.shared, broker, stream)
    }
}
