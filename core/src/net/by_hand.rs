//! A connection whose peer is played by a unit test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::DuplexStream;

use super::connection::{Connection, Ready, Vouch};
use super::frames::FrameReader;
use crate::config::Caller;
use crate::environment::Environment;
use crate::metrics::Metrics;
use crate::protocol::Versions;
use crate::record::pool::ChunkPool;

/// To a broker that speaks Produce, Fetch and ListOffsets in one version each, and the other end of it.
/// It is known to lead to the right cluster.
pub(crate) fn connection(env: &Environment, broker: i32) -> (Connection, DuplexStream) {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    let (near, peer) = tokio::io::duplex(1 << 20);
    let second = Duration::from_secs(1);
    let caller =
        Caller { client_id: "c".into(), request_timeout: 30 * second, idle_timeout: 600 * second };
    let now = env.now();
    let ready = Ready {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        stream: Box::new(near),
        reader: FrameReader::new(ChunkPool::default()),
        name: format!("broker {broker}"),
        versions: Versions::new([(0, 9, 9), (1, 12, 12), (2, 1, 1)].into_iter()),
        round_trip: Duration::ZERO,
        caller: Arc::new(caller),
        idle_share: 0.9,
        next_correlation: 1,
        guard: None,
        renewal: None,
        on_close: Box::new(|_| ()),
        metrics: Metrics::default().broker(broker).dialed(now).connected(false, now),
    };
    let connection = Connection::start(env, ready);
    connection.vouched_by(Arc::new(Vouch::new(true, &Arc::default())));
    (connection, peer)
}
