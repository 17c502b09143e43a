//! Everything that is not the protocol: the thread the engine runs on, its clock, its random
//! draws, how a connection is opened, and the pools that exist. A process has one by default; a
//! simulation makes one per virtual client, over streams in memory and in virtual time.

mod alarm;
mod builder;
mod end;
mod tcp;

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::{self, Origin};
use crate::policy::pace::PaceLimits;
use crate::threads::{self, Workers};

pub use builder::EnvironmentBuilder;
pub(crate) use end::End;
pub use tcp::TcpDialer;

/// A future in a box, as the traits of this crate return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream to a broker: TCP, TLS, or a pair of pipes in memory.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// The remote address, where there is one: lets a bootstrap connection be recognised as a
    /// broker's.
    fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        None
    }
}

impl Transport for tokio::io::DuplexStream {}

/// Opens connections. Called on the engine's runtime; a dial may take as long as it likes, the
/// caller bounds it.
pub trait Dialer: Send + Sync {
    /// Opens a stream to `to`. The kind of the error tells a host name that does not resolve
    /// (`io::ErrorKind::NotFound`) from one that cannot be reached.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>>;
}

/// At the cap of connections, who waits for room looks this often for one that has become idle.
const IDLE_LOOKED_FOR: Duration = Duration::from_millis(50);

/// A timer that fires so much too late tells that this process was stopped, or starved. Clocks have gone
/// on meanwhile, and responses come in that nobody has read.
pub(crate) const STALL: Duration = Duration::from_millis(100);

/// So long the engine reads what lies in its sockets before such a clock is believed.
pub(crate) const READ_FIRST: Duration = Duration::from_millis(10);

/// Whoever holds connections can do without one when another needs the room.
pub(crate) trait HoldsConnections: Any + Send + Sync {
    /// Closes the connection that was idle longest, if any is idle.
    fn close_longest_idle(&self);
}

/// Room for one connection; free again when dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

/// The runtime, the dialer and the clocks that a client runs on. Cheap to clone; clones are the same
/// environment.
#[derive(Clone)]
pub struct Environment(Arc<Inner>);

struct Inner {
    dialer: Arc<dyn Dialer>,
    runtime: Runtime,
    rng: Mutex<StdRng>,
    /// Who holds the connections.
    holder: OnceLock<Arc<dyn HoldsConnections>>,
    max_connections: usize,
    connections: Arc<Semaphore>,
    started: Instant,
    started_wall: Duration,
    origin: Origin,
    pace: PaceLimits,
    #[cfg(feature = "testing")]
    mishaps: Option<Mishaps>,
    /// By how much tests have set the time of day forward, in ms.
    #[cfg(feature = "testing")]
    set_forward: std::sync::atomic::AtomicI64,
}

enum Runtime {
    Caller(Handle),
    /// The engine's own thread; started when first needed, ends with the environment.
    Own {
        thread: OnceLock<OwnThread>,
        /// Held while it is started: an attempt that fails leaves the next one its chance.
        starting: Mutex<()>,
        workers: Arc<Workers>,
    },
}

struct OwnThread {
    handle: Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // The thread is not joined: the last handle may be dropped on the thread itself.
        drop(self.stop.take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Runtime::Own { workers, .. } = &self.runtime {
            workers.end();
        }
    }
}

/// Whether the engine is to panic at the place of this name.
#[cfg(feature = "testing")]
type Mishaps = Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

impl Environment {
    /// The process's own environment: TCP, one engine thread, one pool per cluster. After a fork
    /// the child gets one of its own.
    pub fn process() -> Self {
        static PROCESS: Mutex<Option<Environment>> = Mutex::new(None);
        let slot = || PROCESS.lock().unwrap_or_else(|e| e.into_inner());
        let here = |env: &&Self| env.alive_here();
        if let Some(env) = slot().as_ref().filter(here) {
            return env.clone();
        }
        // Made without the lock, which is held for so short that hardly a fork falls into it.
        let new = Self::builder().build();
        let mut slot = slot();
        if let Some(env) = slot.as_ref().filter(here) {
            return env.clone();
        }
        // The parent's environment is forgotten, not dropped: its thread does not exist in this
        // process, and its locks may be held by that thread for ever.
        std::mem::forget(slot.replace(new.clone()));
        new
    }

    /// An environment with parts of one's own.
    pub fn builder() -> EnvironmentBuilder {
        EnvironmentBuilder::default()
    }

    /// Starts the engine's thread. To be called before anything is made that needs it.
    ///
    /// # Errors
    /// `OutOfResources` if the operating system has no thread or descriptor left for it. The next call
    /// tries again. `Forked` for an environment of the parent process.
    pub(crate) fn start(&self) -> Result<()> {
        self.check_process()?;
        let Runtime::Own { thread, starting, .. } = &self.0.runtime else { return Ok(()) };
        if thread.get().is_some() {
            return Ok(());
        }
        let _one_at_a_time = starting.lock().unwrap_or_else(|e| e.into_inner());
        if thread.get().is_none() {
            // Nobody else sets it while the lock is held.
            let _ = thread.set(start_thread()?);
        }
        Ok(())
    }

    /// The runtime the engine runs on, which whoever made the first handle has started.
    pub(crate) fn handle(&self) -> &Handle {
        match &self.0.runtime {
            Runtime::Caller(handle) => handle,
            Runtime::Own { thread, .. } => {
                if thread.get().is_none() {
                    // Only tests come without a client.
                    self.start().expect("clients are made only where the engine runs");
                }
                &thread.get().expect("started above, if it was not before").handle
            }
        }
    }

    /// Runs a future on the engine. A panic in it ends that future alone; whoever waits for it
    /// sees its channel closed.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.handle().spawn(future));
    }

    /// Runs what takes long, and asks nobody, on a thread beside the engine's; where there is none to
    /// be had, on this one.
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        match &self.0.runtime {
            Runtime::Caller(handle) => drop(handle.spawn_blocking(work)),
            Runtime::Own { workers, .. } => {
                if let Err((work, _)) = workers.run(Box::new(work)) {
                    work();
                }
            }
        }
    }

    /// Runs a future on the engine and waits for it from anywhere. Dropping the wait does not end
    /// the work.
    pub(crate) async fn run<T, F>(&self, future: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.check_process()?;
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = tx.send(future.await);
        });
        rx.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "the engine ended a task without a result"))
        })
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    /// An instant as microseconds since shortly before the environment was made, for atomics.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        let us = at.saturating_duration_since(self.0.started).as_micros();
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    /// The instant of [`micros`](Self::micros).
    pub(crate) fn instant(&self, us: u64) -> Instant {
        self.0.started + Duration::from_micros(us)
    }

    /// A timer of the engine, as it is.
    pub(crate) fn timer(&self, at: Instant) -> tokio::time::Sleep {
        let _guard = self.handle().enter();
        tokio::time::sleep_until(at)
    }

    /// Until then, in any executor. A process that was stopped finds its timers first and what came in
    /// meanwhile a moment later: then that moment is waited for, too, since what lies in a socket has come
    /// in time.
    pub(crate) fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + use<> {
        let timer = self.timer(at);
        let env = self.clone();
        async move {
            timer.await;
            let now = env.now();
            if now.saturating_duration_since(at) > STALL {
                env.timer(now + READ_FIRST).await;
            }
        }
    }

    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.sleep_until(self.now() + duration)
    }

    /// The result of `future`; `None` if it has none within `duration`.
    pub(crate) async fn within<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Option<F::Output> {
        let sleep = self.sleep(duration);
        tokio::select! {
            biased;
            output = future => Some(output),
            () = sleep => None,
        }
    }

    /// Milliseconds since 1970, from the engine's clock (virtual time included).
    pub(crate) fn wall_ms(&self) -> i64 {
        let at = match &self.0.runtime {
            // The system's clock is corrected while a process runs; its corrections count.
            Runtime::Own { .. } => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Runtime::Caller(_) => {
                self.0.started_wall + Instant::now().saturating_duration_since(self.0.started)
            }
        };
        let ms = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        #[cfg(feature = "testing")]
        let ms = ms.saturating_add(self.0.set_forward.load(std::sync::atomic::Ordering::Relaxed));
        ms
    }

    /// Sets the time of day forward, while the clock that timers follow stands still: what a process finds whose machine
    /// slept for so long.
    #[cfg(feature = "testing")]
    pub fn set_time_of_day(&self, forward: Duration) {
        let ms = i64::try_from(forward.as_millis()).unwrap_or(i64::MAX);
        self.0.set_forward.fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
    }

    /// Room for one more connection. At the cap, the connection of any pool that was idle longest is
    /// closed for it; if all are at work, the first that has nothing to do.
    pub(crate) async fn permit(&self, timeout: Duration) -> Result<Permit> {
        let connections = &self.0.connections;
        let deadline = self.now() + timeout;
        loop {
            if let Ok(permit) = Arc::clone(connections).try_acquire_owned() {
                return Ok(permit);
            }
            self.make_room();
            let look = deadline.min(self.now() + IDLE_LOOKED_FOR);
            let acquired = Arc::clone(connections).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout_at(look, acquired).await {
                return Ok(permit);
            }
            if self.now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Connect,
                    format!(
                        "all {} connections that this process may open are at work",
                        self.0.max_connections
                    ),
                )
                .advise("raise max_connections, or use fewer consumers"));
            }
        }
    }

    /// Closes the connection that was idle longest.
    pub(crate) fn make_room(&self) {
        if let Some(holder) = self.0.holder.get() {
            holder.close_longest_idle();
        }
    }

    /// Who holds the connections of this environment; made when first asked for.
    pub(crate) fn holder<T: HoldsConnections + Default>(&self) -> Arc<T> {
        let holder = self.0.holder.get_or_init(|| Arc::new(T::default()));
        let holder: Arc<dyn Any + Send + Sync> = Arc::clone(holder) as _;
        holder.downcast().expect("an environment has one kind of holder")
    }

    /// A place where a test may have the engine panic. Nothing at all in other builds.
    #[inline]
    pub(crate) fn mishap(&self, place: &'static str) {
        #[cfg(feature = "testing")]
        if self.0.mishaps.as_ref().is_some_and(|panics| panics(place)) {
            panic!("a panic at '{place}', ordered by a test");
        }
        #[cfg(not(feature = "testing"))]
        let _ = place;
    }

    pub(crate) fn pace(&self) -> &PaceLimits {
        &self.0.pace
    }

    pub(crate) fn dialer(&self) -> &Arc<dyn Dialer> {
        &self.0.dialer
    }

    /// A generator for one task, seeded from the environment's.
    pub(crate) fn rng(&self) -> StdRng {
        let mut rng = self.0.rng.lock().unwrap_or_else(|e| e.into_inner());
        StdRng::seed_from_u64(rng.random())
    }

    /// The same for what nobody may guess: of all the randomness that the environment's generator has, not of the 64
    /// bits that tell tasks apart.
    pub(crate) fn secret_rng(&self) -> StdRng {
        let mut rng = self.0.rng.lock().unwrap_or_else(|e| e.into_inner());
        StdRng::from_rng(&mut *rng)
    }

    /// Whether this environment was made in this process and not inherited through a fork.
    pub(crate) fn alive_here(&self) -> bool {
        self.0.origin.is_here()
    }

    /// The same, as far as it is known without a system call: for calls that are made per record.
    pub(crate) fn seems_alive_here(&self) -> bool {
        self.0.origin.seems_here()
    }

    /// An error in a forked child, where the engine's thread does not exist.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.alive_here() { Ok(()) } else { Err(fork::forked()) }
    }
}

/// The earlier of two times, if there is any.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A generator of this process and no other. Not seeded from the thread's: that one is copied by a fork,
/// and the children of a pre-forking server would draw in step.
pub(crate) fn system_seeded() -> StdRng {
    StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| {
        // A system without randomness has a clock, and processes have numbers.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        StdRng::seed_from_u64(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32)
    })
}

fn start_thread() -> Result<OwnThread> {
    let refused = |what: &str, e: &io::Error| {
        Error::new(ErrorKind::OutOfResources, format!("the system gives no {what}: {e}"))
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| refused("descriptors to wait for sockets with", &e))?;
    let handle = runtime.handle().clone();
    threads::start("ottla", move || {
        // Ends when the environment is dropped; tasks that are left are dropped with it.
        let _ = runtime.block_on(stopped);
    })
    .map_err(|e| refused("thread", &e))?;
    Ok(OwnThread { handle, stop: Some(stop) })
}

#[cfg(test)]
mod tests;
