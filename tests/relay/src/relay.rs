//! The relay's thread, its listening sockets, and what it can be told.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::log::{Event, Log, What};
use crate::passage::Passage;

/// One broker and its place in front.
#[derive(Debug)]
pub struct Target {
    /// Its id.
    pub broker: u32,
    /// Where clients connect.
    pub listener: TcpListener,
    /// Where the broker listens.
    pub to: SocketAddr,
}

/// Passes connections on to brokers, until told otherwise. Dropping it closes all of them.
///
/// Plain Kafka alone: frames are read, so that nothing encrypted passes.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    gates: Vec<(u32, SocketAddr, mpsc::UnboundedSender<Command>)>,
    thread: Option<JoinHandle<()>>,
}

/// How a broker is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Open,
    /// Nothing listens.
    Refused,
    /// Connections are accepted, and nothing passes on any.
    Hole,
}

#[derive(Debug)]
enum Command {
    Path(Path, std::sync::mpsc::Sender<io::Result<()>>),
    /// Answered with how many there were.
    Reset(std::sync::mpsc::Sender<usize>),
}

/// What is to be done with Produce responses of one broker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    silence_until: Option<Instant>,
    losses: usize,
}

impl Plan {
    /// What is left of the time for which clients are asked to be silent.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let left = self.silence_until?.saturating_duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }

    pub(crate) fn loses_responses(&self) -> bool {
        self.losses > 0
    }
}

/// What the thread and its owner both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    plans: Mutex<HashMap<u32, Plan>>,
    next: AtomicU64,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plans(&self) -> MutexGuard<'_, HashMap<u32, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, broker: u32, connection: u64, what: What) {
        let mut log = self.log();
        // Read under the lock: events are in order of time.
        log.push(Event { at: Instant::now(), broker, connection, what });
        self.changed.notify_all();
    }

    pub(crate) fn plan(&self, broker: u32) -> Plan {
        self.plans().get(&broker).copied().unwrap_or_default()
    }

    /// Whether one of the responses to be lost was left.
    pub(crate) fn take_loss(&self, broker: u32) -> bool {
        match self.plans().get_mut(&broker) {
            Some(plan) if plan.losses > 0 => {
                plan.losses -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Relay {
    /// Starts a thread that accepts and passes on.
    ///
    /// # Errors
    /// The system's.
    pub fn start(targets: Vec<Target>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut gates, mut running) = (Vec::new(), Vec::new());
        for target in targets {
            target.listener.set_nonblocking(true)?;
            let address = target.listener.local_addr()?;
            let listener = {
                let _inside = runtime.enter();
                tokio::net::TcpListener::from_std(target.listener)?
            };
            let (tx, commands) = mpsc::unbounded_channel();
            let gate = Gate {
                broker: target.broker,
                address,
                to: target.to,
                listener: Some(listener),
                shared: Arc::clone(&shared),
                hole: watch::channel(false).0,
                open: HashMap::new(),
            };
            gates.push((target.broker, address, tx));
            running.push(gate.run(commands));
        }
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            runtime.block_on(async {
                let running: Vec<_> = running.into_iter().map(tokio::spawn).collect();
                for gate in running {
                    // One that panicked has said so.
                    let _ = gate.await;
                }
            });
        })?;
        Ok(Self { shared, gates, thread: Some(thread) })
    }

    /// Where clients reach the brokers, `host:port` with commas.
    pub fn bootstrap(&self) -> String {
        let all: Vec<_> = self.gates.iter().map(|(_, address, _)| address.to_string()).collect();
        all.join(",")
    }

    /// Where clients reach one broker.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn address(&self, broker: u32) -> SocketAddr {
        self.gate(broker).0
    }

    /// Ids of the brokers.
    pub fn brokers(&self) -> Vec<u32> {
        self.gates.iter().map(|(id, _, _)| *id).collect()
    }

    /// Nothing listens any more, as if the broker's machine was there and its port was not: dials
    /// are refused by the kernel, and open connections reset.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn refuse(&self, broker: u32) {
        self.set(broker, Path::Refused);
    }

    /// Connections stay open and new ones are accepted, and nothing passes in either direction, not
    /// even an end. What was sent meanwhile arrives when the path heals, as by TCP's repetition.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn black_hole(&self, broker: u32) {
        self.set(broker, Path::Hole);
    }

    /// The end of [`refuse`](Self::refuse) and [`black_hole`](Self::black_hole).
    ///
    /// # Panics
    /// If there is no such broker, or somebody has taken its port meanwhile.
    pub fn heal(&self, broker: u32) {
        self.set(broker, Path::Open);
    }

    /// Resets all connections to all brokers at once; how many there were.
    pub fn reset_all(&self) -> usize {
        let (tx, rx) = std::sync::mpsc::channel();
        for (_, _, gate) in &self.gates {
            let _ = gate.send(Command::Reset(tx.clone()));
        }
        drop(tx);
        rx.iter().sum()
    }

    /// From now on and for so long, each Produce response of a broker asks its client to send it
    /// nothing until that time has passed. The broker itself knows nothing of it.
    pub fn throttle(&self, broker: u32, time: Duration) {
        let until = Some(Instant::now() + time);
        self.shared.plans().entry(broker).or_default().silence_until = until;
    }

    /// The next so many Produce responses of a broker that say "written" get lost, each with its
    /// connection.
    pub fn lose_responses(&self, broker: u32, count: usize) {
        self.shared.plans().entry(broker).or_default().losses += count;
    }

    /// What was seen so far.
    pub fn log(&self) -> Log {
        self.shared.log().clone()
    }

    /// Waits until the log gives a response, looking after each event. `None` after `limit`.
    pub fn wait<T>(&self, limit: Duration, answer: impl Fn(&Log) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut log = self.shared.log();
        loop {
            if let Some(found) = answer(&log) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            log = self.shared.changed.wait_timeout(log, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn gate(&self, broker: u32) -> (SocketAddr, &mpsc::UnboundedSender<Command>) {
        let found = self.gates.iter().find(|(id, _, _)| *id == broker);
        let (_, address, gate) = found.unwrap_or_else(|| panic!("no broker {broker} here"));
        (*address, gate)
    }

    fn set(&self, broker: u32, path: Path) {
        let (tx, rx) = std::sync::mpsc::channel();
        let (address, gate) = self.gate(broker);
        let sent = gate.send(Command::Path(path, tx)).is_ok();
        match rx.recv() {
            Ok(Ok(())) if sent => {}
            Ok(Err(e)) => panic!("cannot listen at {address} again: {e}"),
            _ => panic!("the relay's thread has ended"),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.gates.clear();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The place in front of one broker.
struct Gate {
    broker: u32,
    address: SocketAddr,
    to: SocketAddr,
    listener: Option<tokio::net::TcpListener>,
    shared: Arc<Shared>,
    hole: watch::Sender<bool>,
    /// What resets each connection.
    open: HashMap<u64, oneshot::Sender<()>>,
}

impl Gate {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                client = accept(self.listener.as_ref()) => self.accepted(client),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Path(path, done) => {
                let result = self.set(path).await;
                let _ = done.send(result);
            }
            Command::Reset(done) => {
                let _ = done.send(self.reset());
            }
        }
    }

    async fn set(&mut self, path: Path) -> io::Result<()> {
        if path == Path::Refused {
            self.listener = None;
            self.reset();
        } else if self.listener.is_none() {
            self.listener = Some(tokio::net::TcpListener::bind(self.address).await?);
        }
        self.hole.send_replace(path == Path::Hole);
        Ok(())
    }

    fn reset(&mut self) -> usize {
        // Those that have ended already do not listen.
        self.open.drain().filter_map(|(_, reset)| reset.send(()).ok()).count()
    }

    fn accepted(&mut self, client: TcpStream) {
        self.open.retain(|_, reset| !reset.is_closed());
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.note(self.broker, id, What::Accepted);
        let (tx, reset) = oneshot::channel();
        self.open.insert(id, tx);
        let passage = Passage {
            broker: self.broker,
            id,
            to: self.to,
            shared: Arc::clone(&self.shared),
            hole: self.hole.subscribe(),
        };
        tokio::spawn(passage.run(client, reset));
    }
}

/// The next client; never without a listener.
async fn accept(listener: Option<&tokio::net::TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // It has gone again before it was looked at.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => panic!("accepting a client: {e}; allow more open files (ulimit -n)"),
        }
    }
}
