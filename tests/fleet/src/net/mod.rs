//! The network between clients and brokers, in memory and in virtual time.
//!
//! ```text
//! client ── dial ──> SYN ──delay──> backlog of the broker ──every 10 ms──> accepted: a task there
//!        ── write ─> Arrive ──delay, bandwidth──> readable at the other end
//! ```
//!
//! Everything that is under way is an [`events::Event`] in one queue with one timer. What happens in
//! the same millisecond (the grain of the runtime's timers) happens in the order of the connections'
//! names, not in the order in which tasks ran, so that a run repeats exactly.
//!
//! The network is also the instrument: [`log`] holds every dial and every request, seen on the wire.

mod events;
mod link;
mod listen;
mod log;
mod stream;
mod wire;

pub use link::Link;
pub use log::{Dial, Log, Outcome, Requests};
pub use stream::Stream;
pub use wire::{Api, Seen};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ottla::{BoxFuture, Dialer, Endpoint, Transport};
use tokio::sync::Notify;
use tokio::time::Instant;

use events::{Event, Queue};
use link::Links;
use listen::Dials;
use stream::Conn;

/// Connections that a broker has not accepted yet; a SYN beyond is dropped. What Kafka's
/// `socket.listen.backlog.size` is by default.
pub const BACKLOG: usize = 50;
/// How often a broker takes what waits in its backlog.
pub const ACCEPT_EVERY_MS: u64 = 10;

/// The brokers' side: who listens, and who serves an accepted connection.
pub trait Host: Send + Sync {
    /// Whether a process listens at `broker` now; if not, a dial is refused.
    fn listens(&self, broker: i32) -> bool;
    /// Serves a connection. An error closes it.
    ///
    /// # Errors
    /// If the broker does not want it any more.
    fn accept(&self, broker: i32, stream: Stream) -> io::Result<()>;
}

/// Number of a connection: who dialled, and the how-manieth dial of that client it was. Its order is
/// the order of events within a millisecond.
pub(crate) type Name = (u32, u32);

/// See the module. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

pub(crate) struct Shared {
    host: Box<dyn Host>,
    started: Instant,
    state: Mutex<State>,
    /// An event came in that is due before the one the timer waits for.
    earlier: Notify,
}

/// Locked after a connection's own state, never before.
pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) links: Links,
    pub(crate) dials: Dials,
    pub(crate) conns: BTreeMap<Name, Arc<Conn>>,
    pub(crate) log: Log,
    /// Clients whose processes are gone.
    pub(crate) killed: BTreeSet<u32>,
}

impl Network {
    /// A network of `brokers` links (ids 1 to n) in the current runtime.
    pub fn new(brokers: i32, link: Link, host: impl Host + 'static) -> Self {
        let shared = Arc::new(Shared {
            host: Box::new(host),
            started: Instant::now(),
            state: Mutex::new(State {
                queue: Queue::default(),
                links: Links::new(brokers, link),
                dials: Dials::new(brokers),
                conns: BTreeMap::new(),
                log: Log::new(brokers),
                killed: BTreeSet::new(),
            }),
            earlier: Notify::new(),
        });
        tokio::spawn(run(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// How client number `client` dials.
    pub fn dialer(&self, client: u32) -> Arc<dyn Dialer> {
        Arc::new(ClientDialer { network: self.clone(), client })
    }

    /// Milliseconds since the network began.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// Reads the log.
    pub fn log<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.0.state().log)
    }

    /// From now on the log keeps each Produce request to this broker.
    pub fn watch(&self, broker: i32) {
        self.0.state().log.watch(broker);
    }

    /// Connections that are open at a broker, accepted or in its backlog.
    pub fn open_at(&self, broker: i32) -> usize {
        self.conns_of(&[broker]).len()
    }

    /// Brokers that `client` has connections to, one entry for each.
    pub fn open_of(&self, client: u32) -> Vec<i32> {
        let state = self.0.state();
        state.conns.range((client, 0)..=(client, u32::MAX)).map(|(_, conn)| conn.broker).collect()
    }

    /// Resets all connections of these brokers at this instant, on both ends, as a firewall does that
    /// lost its state. Gives how many.
    pub fn reset(&self, brokers: &[i32]) -> usize {
        let conns = self.conns_of(brokers);
        for conn in &conns {
            self.0.reset(conn);
        }
        conns.len()
    }

    /// A broker's process is gone: its ends of all connections close. Whether dials are refused from
    /// now on is the host's to say.
    pub fn hang_up(&self, broker: i32) -> usize {
        let conns = self.conns_of(&[broker]);
        for conn in &conns {
            self.0.hang_up(conn);
        }
        conns.len()
    }

    /// A client's process is gone: its connections are reset, and it dials nobody any more.
    pub fn kill(&self, client: u32) {
        let conns: Vec<_> = {
            let mut state = self.0.state();
            state.killed.insert(client);
            let of = state.conns.range((client, 0)..=(client, u32::MAX));
            of.map(|(_, conn)| Arc::clone(conn)).collect()
        };
        conns.iter().for_each(|conn| self.0.reset(conn));
    }

    /// From now on nothing reaches the broker and nothing leaves it: bytes are held, dials hang.
    pub fn black_hole(&self, broker: i32) {
        self.0.state().links.cut(broker);
    }

    /// Ends a black hole. What was under way arrives with TCP's next retransmission.
    pub fn heal(&self, broker: i32) {
        let now = self.0.now_ms();
        let mut state = self.0.state();
        let held = state.links.heal(broker);
        for (event, lost_at) in held {
            self.0.push(&mut state, link::retransmitted_at(lost_at, now), event);
        }
    }

    /// Changes the delay and bandwidth of a broker's link.
    pub fn set_link(&self, broker: i32, link: Link) {
        self.0.state().links.set(broker, link);
    }

    fn conns_of(&self, brokers: &[i32]) -> Vec<Arc<Conn>> {
        let state = self.0.state();
        state.conns.values().filter(|conn| brokers.contains(&conn.broker)).cloned().collect()
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Puts an event into the queue; never for this very millisecond, whose events may have happened.
    pub(crate) fn push(&self, state: &mut State, at: u64, event: Event) {
        if state.queue.push(at.max(self.now_ms() + 1), event) {
            self.earlier.notify_one();
        }
    }
}

/// The network's one timer: sleeps until the next event and makes what is due happen.
async fn run(network: Weak<Shared>) {
    let Some(shared) = network.upgrade() else { return };
    let started = shared.started;
    drop(shared);
    let timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(timer);
    loop {
        let Some(shared) = network.upgrade() else { return };
        let next = shared.state().queue.next();
        match next {
            None => shared.earlier.notified().await,
            Some(at) if at > shared.now_ms() => {
                timer.as_mut().reset(started + Duration::from_millis(at));
                tokio::select! {
                    biased;
                    () = shared.earlier.notified() => {}
                    () = &mut timer => {}
                }
            }
            Some(at) => {
                let due = shared.state().queue.take(at);
                for event in due {
                    shared.happens(event);
                }
            }
        }
    }
}

struct ClientDialer {
    network: Network,
    client: u32,
}

impl Dialer for ClientDialer {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let broker = to.host.strip_prefix("broker-").and_then(|id| id.parse().ok());
            let known = broker.filter(|id| self.network.0.state().links.contains(*id));
            let broker = known.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no host is named '{}'", to.host))
            })?;
            if self.network.0.state().killed.contains(&self.client) {
                return Err(io::ErrorKind::NetworkDown.into());
            }
            let stream = listen::dial(Arc::clone(&self.network.0), self.client, broker).await?;
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}
