//! A real cluster behind a relay.

use ottla_test_kafka::node::{hold_ports, numbers};
use ottla_test_kafka::{Cluster, Context, Options, Result};

use crate::relay::{Relay, Target};

/// Real brokers whose clients come through a relay. [`Cluster::bootstrap`] goes around it.
#[derive(Debug)]
pub struct RelayedCluster {
    /// The brokers.
    pub cluster: Cluster,
    /// What stands in front of them.
    pub relay: Relay,
}

impl RelayedCluster {
    /// Starts both.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start(options: Options) -> Result<Self> {
        // Held from here on: a port that brokers advertise must not become somebody else's.
        let listeners = hold_ports(options.brokers as usize, rand::random())?;
        let advertise = numbers(&listeners)?;
        let cluster = Cluster::start(Options { advertise, ..options })?;
        let mut targets = Vec::new();
        for (broker, listener) in cluster.ids().into_iter().zip(listeners) {
            let to = cluster.behind_relay(broker)?;
            let to = to.parse().context(format!("reading the address {to}"))?;
            targets.push(Target { broker, listener, to });
        }
        let relay = Relay::start(targets).context("starting the relay")?;
        Ok(Self { cluster, relay })
    }
}
