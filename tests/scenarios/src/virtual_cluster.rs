//! Client and embedded cluster in one runtime, over streams in memory: with a paused clock, hours
//! pass in milliseconds, and a seed repeats a run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ottla::testing::Cluster;
use ottla::{
    BoxFuture, Client, ClientBuilder, Dialer, Endpoint, Environment, EnvironmentBuilder, Transport,
};
use tokio::runtime::Handle;

/// The same hour of the day in every run: subsets rotate by it.
pub(crate) const WALL_CLOCK: Duration = Duration::from_secs(1_700_000_000);

/// Dials the brokers of one cluster through memory.
struct InMemory(ottla::testing::Dialer);

impl Dialer for InMemory {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let stream = self.0.dial(&to.host, to.port)?;
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}

/// Settings of a client of `cluster` that runs in the current runtime and draws from `seed`.
pub fn client(cluster: &Cluster, seed: u64) -> ClientBuilder {
    client_with(cluster, seed, |environment| environment)
}

/// The same with an environment that differs in something.
pub fn client_with(
    cluster: &Cluster,
    seed: u64,
    differs: impl FnOnce(EnvironmentBuilder) -> EnvironmentBuilder,
) -> ClientBuilder {
    let environment = Environment::builder()
        .runtime(Handle::current())
        .dialer(Arc::new(InMemory(cluster.dialer())))
        .seed(seed)
        .wall_clock(WALL_CLOCK);
    let environment = differs(environment).build();
    Client::builder().bootstrap(cluster.bootstrap()).environment(environment)
}
