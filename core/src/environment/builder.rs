//! What an environment is made of.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[cfg(feature = "testing")]
use super::Mishaps;
use super::{Dialer, Environment, Inner, Runtime, system_seeded};
use crate::config::MAX_CONNECTIONS;
use crate::fork::Origin;
use crate::policy::pace::PaceLimits;
use crate::threads::Workers;

/// Makes an [`Environment`] that differs from the process's own.
#[derive(Default)]
pub struct EnvironmentBuilder {
    dialer: Option<Arc<dyn Dialer>>,
    handle: Option<Handle>,
    seed: Option<u64>,
    max_connections: Option<usize>,
    wall_clock: Option<Duration>,
    pace: PaceLimits,
    #[cfg(feature = "testing")]
    mishaps: Option<Mishaps>,
}

impl EnvironmentBuilder {
    /// How connections are opened. Default: TCP.
    pub fn dialer(mut self, dialer: Arc<dyn Dialer>) -> Self {
        self.dialer = Some(dialer);
        self
    }

    /// Runs the engine on this runtime instead of a thread of its own. Its clock may be paused:
    /// all waiting of the engine goes through it.
    pub fn runtime(mut self, handle: Handle) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Makes every random draw repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Connections that all clients of the environment together may have open or be opening. At the
    /// cap the one that was idle longest is closed to make room. 1 or more, default 1,024.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = Some(most.max(1));
        self
    }

    /// The time of day this environment starts at, as the duration since 1970, instead of the
    /// machine's: makes timestamps of records repeatable. Only with [`runtime`](Self::runtime), whose
    /// clock it then follows. Default: the machine's.
    pub fn wall_clock(mut self, since_1970: Duration) -> Self {
        self.wall_clock = Some(since_1970);
        self
    }

    /// How the Produce requests of each pool are paced. For tests and simulations.
    #[cfg(feature = "testing")]
    pub fn pace(mut self, limits: PaceLimits) -> Self {
        self.pace = limits;
        self
    }

    /// Has the engine panic where `panics` says so. For tests of what a fault of the engine leaves
    /// behind; the names of places are not stable.
    #[cfg(feature = "testing")]
    pub fn mishaps(
        mut self,
        panics: impl Fn(&'static str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.mishaps = Some(Arc::new(panics));
        self
    }

    /// The environment.
    pub fn build(self) -> Environment {
        let rng = match self.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => system_seeded(),
        };
        let started = match &self.handle {
            Some(handle) => {
                let _guard = handle.enter();
                Instant::now()
            }
            None => Instant::now(),
        };
        let max_connections = self.max_connections.unwrap_or(MAX_CONNECTIONS);
        let workers = Arc::<Workers>::default();
        let dialer = self.dialer.unwrap_or_else(|| match &self.handle {
            Some(_) => Arc::new(super::TcpDialer),
            None => Arc::new(super::tcp::Tcp::with(&workers)),
        });
        Environment(Arc::new(Inner {
            max_connections,
            connections: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            dialer,
            runtime: match self.handle {
                Some(handle) => Runtime::Caller(handle),
                None => {
                    Runtime::Own { thread: OnceLock::new(), starting: Mutex::default(), workers }
                }
            },
            rng: Mutex::new(rng),
            holder: OnceLock::new(),
            started,
            started_wall: self.wall_clock.unwrap_or_else(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
            }),
            origin: Origin::here(),
            pace: self.pace,
            #[cfg(feature = "testing")]
            mishaps: self.mishaps,
            #[cfg(feature = "testing")]
            set_forward: std::sync::atomic::AtomicI64::new(0),
        }))
    }
}
