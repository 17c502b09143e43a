//! Counters of a pool.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A snapshot of what a pool has done since it exists. All handles of a process on one cluster
/// share a pool, so they count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Connections opened.
    pub connects: u64,
    /// Dials that did not become a connection.
    pub connect_failures: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Metadata requests sent.
    pub metadata_requests: u64,
    /// Produce requests sent.
    pub produce_requests: u64,
    /// Of those, requests that held a batch sent before.
    pub produce_retries: u64,
    /// Bytes of Produce requests sent.
    pub produce_bytes: u64,
    /// Batches sent, each attempt counted.
    pub produce_batches: u64,
    /// Records acknowledged.
    pub records_acknowledged: u64,
    /// Records that resolved with an error.
    pub records_failed: u64,
    /// Fetch requests sent.
    pub fetch_requests: u64,
    /// Bytes of records fetched, as they came.
    pub fetch_bytes: u64,
    /// Records handed to the application.
    pub records_consumed: u64,
    /// Records acknowledged by broker id.
    pub acknowledged_by_broker: BTreeMap<i32, u64>,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The live counters behind [`Stats`].
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            by_broker: Mutex<BTreeMap<i32, u64>>,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    acknowledged_by_broker:
                        self.by_broker.lock().unwrap_or_else(|e| e.into_inner()).clone(),
                }
            }
        }
    };
}

counters!(
    connects,
    connect_failures,
    connections_open,
    metadata_requests,
    produce_requests,
    produce_retries,
    produce_bytes,
    produce_batches,
    records_acknowledged,
    records_failed,
    fetch_requests,
    fetch_bytes,
    records_consumed,
);

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Once per acknowledged batch.
    pub(crate) fn acknowledged(&self, broker: i32, records: u64) {
        Self::add(&self.records_acknowledged, records);
        let mut by_broker = self.by_broker.lock().unwrap_or_else(|e| e.into_inner());
        *by_broker.entry(broker).or_default() += records;
    }
}
