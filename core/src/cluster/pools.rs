//! The pools of an environment: one for each bootstrap list, software and security, until two of them turn out to
//! lead to one cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::pool::Pool;
use crate::config::Endpoint;
use crate::environment::{Environment, HoldsConnections};
use crate::error::Result;
use crate::security::SecurityKey;

/// Two clients share a pool if these are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) bootstrap: Vec<Endpoint>,
    pub(crate) software: (String, String),
    /// Protocol, TLS settings and credentials.
    pub(crate) security: SecurityKey,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pools(
    /// By the bootstrap lists of the clients: pools that are gone are removed when another one is made.
    Mutex<HashMap<PoolKey, Weak<Pool>>>,
);

impl HoldsConnections for Pools {
    fn close_longest_idle(&self) {
        let pools: Vec<Arc<Pool>> = {
            let pools = self.lock();
            pools.values().filter_map(Weak::upgrade).collect()
        };
        let idle = pools.iter().filter_map(|pool| pool.longest_idle()).min_by_key(|(at, _)| *at);
        if let Some((_, connection)) = idle {
            connection.retire();
        }
    }
}

impl Pools {
    /// The pools of this environment.
    pub(crate) fn of(env: &Environment) -> Arc<Self> {
        env.holder()
    }

    /// The pool of a cluster: the one that exists, or what `make` makes.
    pub(crate) fn get(
        &self,
        key: PoolKey,
        make: impl FnOnce() -> Result<Arc<Pool>>,
    ) -> Result<Arc<Pool>> {
        let there = self.lock().get(&key).and_then(Weak::upgrade);
        if let Some(pool) = there {
            return Ok(pool);
        }
        // Made without the lock: it opens a span, and a `tracing` subscriber may use a client. Of two that are
        // made at the same time, the first one that is entered stays.
        let made = make()?;
        let mut pools = self.lock();
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            drop(pools);
            return Ok(pool);
        }
        pools.retain(|_, pool| pool.strong_count() > 0);
        pools.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    /// How many entries there are, those of pools that are gone included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolKey, Weak<Pool>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The older pool of the same cluster, if there is one: its bootstrap list is another, so this was not
    /// known before a broker answered. From now on this list leads there, too.
    pub(crate) fn twin(&self, of: &Arc<Pool>) -> Option<Arc<Pool>> {
        let pools: Vec<Arc<Pool>> = {
            let pools = self.0.lock().unwrap_or_else(|e| e.into_inner());
            // Nearly always there is only one.
            if pools.len() < 2 {
                return None;
            }
            pools.values().filter_map(Weak::upgrade).collect()
        };
        let id = of.identity().cluster_id()?;
        let same = |pool: &&Arc<Pool>| {
            pool.is_older_than(of) && pool.identity().cluster_id().as_ref() == Some(&id)
        };
        let twin = Arc::clone(pools.iter().find(same)?);
        let mut pools = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let led_to_it = |pool: &&mut Weak<Pool>| pool.as_ptr() == Arc::as_ptr(of);
        pools.values_mut().filter(led_to_it).for_each(|pool| *pool = Arc::downgrade(&twin));
        drop(pools);
        Some(twin)
    }

    /// Whether there are other pools than this one: it may turn out to be of the same cluster as one of them.
    pub(crate) fn has_others(&self) -> bool {
        let pools = self.0.lock().unwrap_or_else(|e| e.into_inner());
        pools.values().filter(|pool| pool.strong_count() > 0).count() > 1
    }
}
