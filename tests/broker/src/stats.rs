//! What each broker has seen: connections, requests, software names, batches and bytes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::ApiKey;

/// Api keys counted one by one; a request with a larger key counts as the last.
const API_KEYS: usize = 128;
/// Distinct software names kept per broker: the name is the client's choice and must be bounded.
const MAX_SOFTWARE: usize = 256;

#[derive(Debug)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    requests: [AtomicU64; API_KEYS],
    produce_batches: AtomicU64,
    produce_duplicates: AtomicU64,
    produce_records: AtomicU64,
    produce_bytes: AtomicU64,
    fetch_bytes: AtomicU64,
    fetch_request_bytes: AtomicU64,
    fetch_response_bytes: AtomicU64,
    metadata_topics: AtomicU64,
    tls_begun: AtomicU64,
    tls_finished: AtomicU64,
    tls_resumed: AtomicU64,
    logins_begun: AtomicU64,
    logins_succeeded: AtomicU64,
    logins_refused: AtomicU64,
    reauthentications: AtomicU64,
    sessions_expired: AtomicU64,
    offsets_committed: AtomicU64,
    software: Mutex<BTreeMap<(String, String), u64>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            open: AtomicU64::new(0),
            most_open: AtomicU64::new(0),
            requests: [const { AtomicU64::new(0) }; API_KEYS],
            produce_batches: AtomicU64::new(0),
            produce_duplicates: AtomicU64::new(0),
            produce_records: AtomicU64::new(0),
            produce_bytes: AtomicU64::new(0),
            fetch_bytes: AtomicU64::new(0),
            fetch_request_bytes: AtomicU64::new(0),
            fetch_response_bytes: AtomicU64::new(0),
            metadata_topics: AtomicU64::new(0),
            tls_begun: AtomicU64::new(0),
            tls_finished: AtomicU64::new(0),
            tls_resumed: AtomicU64::new(0),
            logins_begun: AtomicU64::new(0),
            logins_succeeded: AtomicU64::new(0),
            logins_refused: AtomicU64::new(0),
            reauthentications: AtomicU64::new(0),
            sessions_expired: AtomicU64::new(0),
            offsets_committed: AtomicU64::new(0),
            software: Mutex::new(BTreeMap::new()),
        }
    }
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn refused(&self) {
        add(&self.refused, 1);
    }

    pub(crate) fn opened(&self) {
        add(&self.accepted, 1);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// `bytes`: of the request's frame.
    pub(crate) fn request(&self, api: ApiKey, bytes: usize) {
        let index = usize::try_from(api.0).unwrap_or(API_KEYS).min(API_KEYS - 1);
        add(&self.requests[index], 1);
        if api == ApiKey::FETCH {
            add(&self.fetch_request_bytes, bytes as u64);
        }
    }

    /// `bytes`: of the answer's frame.
    pub(crate) fn answered(&self, api: ApiKey, bytes: usize) {
        if api == ApiKey::FETCH {
            add(&self.fetch_response_bytes, bytes as u64);
        }
    }

    pub(crate) fn produced(&self, records: u64, bytes: u64) {
        add(&self.produce_batches, 1);
        add(&self.produce_records, records);
        add(&self.produce_bytes, bytes);
    }

    pub(crate) fn duplicate(&self) {
        add(&self.produce_duplicates, 1);
    }

    pub(crate) fn fetched(&self, bytes: u64) {
        add(&self.fetch_bytes, bytes);
    }

    pub(crate) fn described(&self, topics: u64) {
        add(&self.metadata_topics, topics);
    }

    pub(crate) fn tls_begun(&self) {
        add(&self.tls_begun, 1);
    }

    pub(crate) fn tls_finished(&self, resumed: bool) {
        add(&self.tls_finished, 1);
        add(&self.tls_resumed, u64::from(resumed));
    }

    pub(crate) fn login_begun(&self) {
        add(&self.logins_begun, 1);
    }

    pub(crate) fn login_succeeded(&self, again: bool) {
        add(&self.logins_succeeded, 1);
        add(&self.reauthentications, u64::from(again));
    }

    pub(crate) fn login_refused(&self) {
        add(&self.logins_refused, 1);
    }

    pub(crate) fn session_expired(&self) {
        add(&self.sessions_expired, 1);
    }

    pub(crate) fn committed(&self, offsets: u64) {
        add(&self.offsets_committed, offsets);
    }

    pub(crate) fn software(&self, name: &str, version: &str) {
        let mut known = self.software.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (name.to_owned(), version.to_owned());
        if known.len() < MAX_SOFTWARE || known.contains_key(&key) {
            *known.entry(key).or_insert(0) += 1;
        }
    }

    pub(crate) fn snapshot(
        &self,
        broker: i32,
        (worked, longest_wait): (Duration, Duration),
    ) -> BrokerStats {
        BrokerStats {
            broker,
            connections_accepted: get(&self.accepted),
            connections_refused: get(&self.refused),
            connections_open: get(&self.open),
            most_connections_open: get(&self.most_open),
            requests: self
                .requests
                .iter()
                .enumerate()
                .filter(|(_, count)| get(count) > 0)
                .map(|(key, count)| (ApiKey(key as i16), get(count)))
                .collect(),
            produce_batches: get(&self.produce_batches),
            produce_duplicates: get(&self.produce_duplicates),
            produce_records: get(&self.produce_records),
            produce_bytes: get(&self.produce_bytes),
            fetch_bytes: get(&self.fetch_bytes),
            fetch_request_bytes: get(&self.fetch_request_bytes),
            fetch_response_bytes: get(&self.fetch_response_bytes),
            metadata_topics: get(&self.metadata_topics),
            tls_handshakes_begun: get(&self.tls_begun),
            tls_handshakes_finished: get(&self.tls_finished),
            tls_handshakes_resumed: get(&self.tls_resumed),
            logins_begun: get(&self.logins_begun),
            logins_succeeded: get(&self.logins_succeeded),
            logins_refused: get(&self.logins_refused),
            reauthentications: get(&self.reauthentications),
            sessions_expired: get(&self.sessions_expired),
            offsets_committed: get(&self.offsets_committed),
            worked,
            longest_wait,
            software: self
                .software
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone(),
        }
    }
}

/// One broker's counters, from its first start on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Broker id.
    pub broker: i32,
    /// Connections accepted, over TCP and in memory, without refused ones.
    pub connections_accepted: u64,
    /// Connections refused: by the fault script, or in memory while the broker was stopped.
    pub connections_refused: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// The most connections that were open at one time.
    pub most_connections_open: u64,
    /// Requests read, by api key, also those that a fault made vanish.
    pub requests: BTreeMap<ApiKey, u64>,
    /// Batches appended, without duplicates.
    pub produce_batches: u64,
    /// Batches recognised as duplicates by their sequence numbers.
    pub produce_duplicates: u64,
    /// Records appended, without duplicates.
    pub produce_records: u64,
    /// Bytes of the appended batches, as sent.
    pub produce_bytes: u64,
    /// Bytes of batches sent to consumers.
    pub fetch_bytes: u64,
    /// Bytes of all Fetch requests with their lengths and headers, also those that a fault made vanish.
    pub fetch_request_bytes: u64,
    /// Bytes of all Fetch responses that were sent, with their lengths and headers.
    pub fetch_response_bytes: u64,
    /// Topics described in Metadata responses, known or not.
    pub metadata_topics: u64,
    /// TLS handshakes that began, also with those that speak no TLS.
    pub tls_handshakes_begun: u64,
    /// TLS handshakes that came to their end, as the broker sees it.
    pub tls_handshakes_finished: u64,
    /// Of those, the ones that went on with an earlier session.
    pub tls_handshakes_resumed: u64,
    /// SaslHandshake requests that asked for a login, first ones and those of re-authentication.
    pub logins_begun: u64,
    /// Logins that were right.
    pub logins_succeeded: u64,
    /// Logins that were refused, and their connections cut: mechanism, credentials, or order of requests.
    pub logins_refused: u64,
    /// Of the logins that were right, those on a connection that was logged in before (KIP-368).
    pub reauthentications: u64,
    /// Connections that were cut because they went on after their session's end.
    pub sessions_expired: u64,
    /// Offsets of partitions that groups have committed.
    pub offsets_committed: u64,
    /// Time of its request threads that was spent on requests, all threads together. Zero where
    /// requests have no price ([`crate::Builder::price`]).
    pub worked: Duration,
    /// The longest that a request has waited for a request thread; zero without a price.
    pub longest_wait: Duration,
    /// (name, version) that clients stated in ApiVersions (KIP-511), and on how many connections.
    pub software: BTreeMap<(String, String), u64>,
}

impl BrokerStats {
    /// Requests read of one kind.
    pub fn requests_of(&self, api: ApiKey) -> u64 {
        self.requests.get(&api).copied().unwrap_or(0)
    }
}

/// The whole cluster's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One entry per broker, by id.
    pub brokers: Vec<BrokerStats>,
}

impl Stats {
    /// The counters of one broker.
    pub fn broker(&self, id: i32) -> Option<&BrokerStats> {
        self.brokers.iter().find(|broker| broker.broker == id)
    }

    /// Requests read of one kind, over all brokers.
    pub fn requests_of(&self, api: ApiKey) -> u64 {
        self.brokers.iter().map(|broker| broker.requests_of(api)).sum()
    }

    /// Connections accepted, over all brokers.
    pub fn connections_accepted(&self) -> u64 {
        self.brokers.iter().map(|broker| broker.connections_accepted).sum()
    }

    /// Connections open now, over all brokers.
    pub fn connections_open(&self) -> u64 {
        self.brokers.iter().map(|broker| broker.connections_open).sum()
    }

    /// Logins that began and those of them that were right, over all brokers.
    pub fn logins(&self) -> (u64, u64) {
        let sum = |count: fn(&BrokerStats) -> u64| self.brokers.iter().map(count).sum();
        (sum(|broker| broker.logins_begun), sum(|broker| broker.logins_succeeded))
    }
}
