//! A client's handle on a pool. All clients of a process that talk to one cluster share its pool. Each client's
//! own settings are here: client id and time-outs, rack and ordinal, and whether it goes on with another
//! cluster at the same addresses.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::broker::Lane;
use super::pool::{Hold, Pool};
use super::pools::Pools;
use crate::config::{Caller, ClientConfig, ClusterChange};
use crate::environment::Environment;
use crate::error::Result;
use crate::net::Connection;
use crate::policy::reconnect::DialUrgency;
use crate::policy::subset::Chooser;

/// A client's handle on a pool. Cheap to clone; clones belong to the same client.
#[derive(Clone)]
pub(crate) struct Handle {
    pool: Hold,
    settings: Arc<Settings>,
}

/// The settings of one client. Clients with equal settings share senders: see
/// [`Registry`](crate::producer::Registry).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Settings {
    pub(crate) caller: Arc<Caller>,
    pub(crate) rack: Option<String>,
    pub(crate) ordinal: Option<(u32, u32)>,
    pub(crate) on_cluster_change: ClusterChange,
    /// The incarnation of the cluster that the client was made for: how many clusters the pool had known
    /// before.
    pub(crate) born: u64,
}

impl Deref for Handle {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Handle {
    /// A handle on the pool for these settings: an existing one of the environment, or a new one.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub(crate) fn get(env: &Environment, config: &ClientConfig) -> Result<Self> {
        let pool = Pool::get(env, config)?;
        let settings = Settings {
            caller: Arc::new(config.caller()),
            rack: config.rack.clone(),
            ordinal: config.ordinal,
            on_cluster_change: config.on_cluster_change,
            born: pool.identity().incarnation(),
        };
        Ok(Self { pool: pool.into(), settings: Arc::new(settings) })
    }

    /// The handle of the same client on an older pool that turned out to be of the same cluster. `None` if there is
    /// none, or if the cluster has changed since this client was made.
    pub(crate) fn twin(&self) -> Option<Self> {
        let pool = Pools::of(self.pool.env()).twin(&self.pool)?;
        if self.pool.identity().incarnation() != self.settings.born {
            return None;
        }
        let born = pool.identity().incarnation();
        let settings = Arc::new(Settings { born, ..(*self.settings).clone() });
        Some(Self { pool: pool.into(), settings })
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.settings.caller
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.settings.caller.request_timeout
    }

    /// An error if the cluster is another one than the client was made for, unless the client goes on with it.
    pub(crate) fn check(&self) -> Result<()> {
        self.settings.check(&self.pool)
    }

    /// See [`Pool::lane`].
    pub(crate) async fn lane(
        &self,
        id: i32,
        lane: Lane,
        urgency: DialUrgency,
    ) -> Result<Connection> {
        Ok(self.pool.lane(id, lane, urgency).await?.on_behalf_of(self.caller()))
    }

    /// See [`Pool::lane_for_call`].
    pub(crate) async fn lane_for_call(&self, id: i32, lane: Lane) -> Result<Connection> {
        Ok(self.pool.lane_for_call(id, lane).await?.on_behalf_of(self.caller()))
    }
}

impl Settings {
    /// Chooses the brokers of a pool that this client uses.
    pub(crate) fn chooser(&self, pool: &Pool) -> Chooser {
        Chooser { instance: pool.instance(), rack: self.rack.clone(), ordinal: self.ordinal }
    }

    /// See [`Handle::check`].
    pub(crate) fn check(&self, pool: &Pool) -> Result<()> {
        match self.on_cluster_change {
            ClusterChange::Fail if pool.identity().incarnation() != self.born => {
                Err(pool.identity().changed())
            }
            _ => Ok(()),
        }
    }
}
