//! A network between client and cluster that a test can look at and spoil: dials that hang, names
//! that lead elsewhere, and when who was dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ottla::Transport;
use ottla::testing::Cluster;
use ottla::{BoxFuture, Client, ClientBuilder, Dialer, Endpoint, Environment, EnvironmentBuilder};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

/// See the module. Cheap to clone; clones are the same network.
#[derive(Clone)]
pub struct Network {
    cluster: ottla::testing::Dialer,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    hanging: BTreeSet<String>,
    refusing: BTreeSet<String>,
    forgets_after: Option<Duration>,
    aliases: BTreeMap<String, (String, u16)>,
    elsewhere: BTreeMap<String, (ottla::testing::Dialer, (String, u16))>,
    dials: Vec<Dial>,
}

/// One dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The host that was dialled.
    pub host: String,
    /// When it began.
    pub at: Instant,
    /// When it was over, however it went; none: it hangs.
    pub over: Option<Instant>,
}

impl Dial {
    /// How long it took, or takes.
    pub fn took(&self) -> Duration {
        self.over.unwrap_or_else(Instant::now) - self.at
    }
}

impl Network {
    /// A network without faults.
    pub fn new(cluster: &Cluster) -> Self {
        Self { cluster: cluster.dialer(), state: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Environment of one process on this network, in the current runtime.
    pub fn environment(&self, seed: u64) -> EnvironmentBuilder {
        Environment::builder().runtime(Handle::current()).dialer(Arc::new(self.clone())).seed(seed)
    }

    /// Settings of a client of `cluster`, in a process of its own.
    pub fn client(&self, cluster: &Cluster, seed: u64) -> ClientBuilder {
        Client::builder().bootstrap(cluster.bootstrap()).environment(self.environment(seed).build())
    }

    /// Dials to this host hang from now on, as where packets are dropped.
    pub fn hang(&self, host: &str) {
        self.state().hanging.insert(host.to_owned());
    }

    /// Dials to this host are refused from now on, as where nobody listens.
    pub fn refuse(&self, host: &str) {
        self.state().refusing.insert(host.to_owned());
    }

    /// Dials to this host go on, those that hang included.
    pub fn release(&self, host: &str) {
        let mut state = self.state();
        state.hanging.remove(host);
        state.refusing.remove(host);
        drop(state);
        self.changed.send_replace(());
    }

    /// Connections made from now on are forgotten by something in between once nothing has crossed them
    /// for so long: what is written then disappears, and nobody is told.
    pub fn forget_quiet(&self, after: Duration) {
        self.state().forgets_after = Some(after);
    }

    /// Dials to the host `name` reach `host`, whatever their port.
    pub fn alias(&self, name: &str, (host, port): (String, u16)) {
        self.state().aliases.insert(name.to_owned(), (host, port));
    }

    /// Dials to the host `name` reach the first broker of another cluster.
    ///
    /// # Panics
    /// If that has none.
    pub fn lead_elsewhere(&self, name: &str, other: &Cluster) {
        let place = other.address(1).expect("a cluster has a first broker");
        self.state().elsewhere.insert(name.to_owned(), (other.dialer(), place));
    }

    /// Dials to the host `name` reach the broker that is called so again.
    pub fn lead_back(&self, name: &str) {
        self.state().elsewhere.remove(name);
    }

    /// All dials to a host so far.
    pub fn dials(&self, host: &str) -> Vec<Dial> {
        self.state().dials.iter().filter(|dial| dial.host == host).cloned().collect()
    }

    /// All dials so far.
    pub fn all_dials(&self) -> Vec<Dial> {
        self.state().dials.clone()
    }

    /// The most dials to a host that were under way at one time.
    pub fn most_at_once(&self, host: &str) -> usize {
        let dials = self.dials(host);
        let under_way = |at: Instant| {
            dials.iter().filter(|d| d.at <= at && d.over.is_none_or(|over| over > at)).count()
        };
        dials.iter().map(|dial| under_way(dial.at)).max().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the end of a dial, also of one that is given up.
struct UnderWay(Network, usize);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().dials[self.1].over = Some(Instant::now());
    }
}

impl Dialer for Network {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        let number = {
            let mut state = self.state();
            state.dials.push(Dial { host: to.host.clone(), at: Instant::now(), over: None });
            state.dials.len() - 1
        };
        let under_way = UnderWay(self.clone(), number);
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            while self.state().hanging.contains(&to.host) {
                // The sender is this network's, which is here.
                let _ = changed.changed().await;
            }
            if self.state().refusing.contains(&to.host) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let elsewhere = self.state().elsewhere.get(&to.host).cloned();
            let place = self.state().aliases.get(&to.host).cloned();
            let (host, port) = place.unwrap_or_else(|| (to.host.clone(), to.port));
            let stream = match elsewhere {
                Some((other, (host, port))) => other.dial(&host, port)?,
                None => self.cluster.dial(&host, port)?,
            };
            drop(under_way);
            let forgets_after = self.state().forgets_after;
            Ok(match forgets_after {
                Some(after) => Box::new(Flow::new(stream, after)) as Box<dyn Transport>,
                None => Box::new(stream),
            })
        })
    }
}

/// A connection through something that keeps a table of flows (a NAT, a firewall, a load balancer).
struct Flow {
    stream: DuplexStream,
    after: Duration,
    crossed: Instant,
    forgotten: bool,
}

impl Transport for Flow {}

impl Flow {
    fn new(stream: DuplexStream, after: Duration) -> Self {
        Self { stream, after, crossed: Instant::now(), forgotten: false }
    }

    /// Something wants to cross now. Whether it does.
    fn crosses(&mut self) -> bool {
        self.forgotten |= self.crossed.elapsed() >= self.after;
        self.crossed = Instant::now();
        !self.forgotten
    }
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.forgotten {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() && !self.crosses() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        read
    }
}

impl AsyncWrite for Flow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.crosses() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::steps::{cluster, secs};
    use crate::wait::within;

    #[tokio::test(start_paused = true)]
    async fn a_flow_is_forgotten_once_it_was_quiet_for_so_long() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut flow = Flow::new(near, secs(10));
        // Used before each ten seconds are over, from either side: it stays.
        for byte in 0..3 {
            tokio::time::sleep(secs(9)).await;
            flow.write_all(&[byte]).await.unwrap();
            assert_eq!(within("what was written", far.read_u8()).await.unwrap(), byte);
            tokio::time::sleep(secs(9)).await;
            far.write_all(&[byte]).await.unwrap();
            assert_eq!(within("what came", flow.read_u8()).await.unwrap(), byte);
        }
        tokio::time::sleep(secs(10)).await;
        flow.write_all(&[7]).await.unwrap();
        let lost = tokio::time::timeout(secs(3600), far.read_u8()).await;
        assert!(lost.is_err(), "what is written disappears");
        far.write_all(&[7]).await.unwrap();
        let lost = tokio::time::timeout(secs(3600), flow.read_u8()).await;
        assert!(lost.is_err(), "and so does what comes");
    }

    #[tokio::test(start_paused = true)]
    async fn dials_are_counted_from_their_beginning_to_their_end() {
        let cluster = cluster(2, 1);
        let network = Network::new(&cluster);
        let (host, port) = cluster.address(1).unwrap();
        let at = Endpoint { host: host.clone(), port };
        network.hang(&host);
        let (one, two) = (network.clone(), network.clone());
        let (to_one, to_two) = (at.clone(), at.clone());
        let dials = [
            tokio::spawn(async move { one.dial(&to_one).await.map(drop) }),
            tokio::spawn(async move { two.dial(&to_two).await.map(drop) }),
        ];
        tokio::time::sleep(secs(5)).await;
        assert!(network.dials(&host).iter().all(|dial| dial.over.is_none()));
        assert_eq!(network.dials(&host)[0].took(), secs(5));
        network.release(&host);
        for dial in dials {
            dial.await.unwrap().expect("the broker is there");
        }
        tokio::time::sleep(secs(5)).await;
        assert!(network.dials(&host).iter().all(|dial| dial.took() == secs(5)));
        network.dial(&at).await.map(drop).expect("the broker is there");
        assert_eq!((network.most_at_once(&host), network.all_dials().len()), (2, 3));
        network.refuse(&host);
        let refused = network.dial(&at).await.map(drop).expect_err("it refuses");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        network.release(&host);
        network.dial(&at).await.map(drop).expect("no longer");
        assert_eq!(network.most_at_once(&cluster.address(2).unwrap().0), 0);
    }
}
