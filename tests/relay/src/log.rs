//! What the relay saw, in order of time, and the questions tests have about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;

/// Something that happened to a connection between a client and a broker.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, on the monotonic clock.
    pub at: Instant,
    /// The broker that the client meant.
    pub broker: u32,
    /// Which connection, counted over all brokers.
    pub connection: u64,
    /// What.
    pub what: What,
}

/// See [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A client connected. Dials to a broker that refuses never come this far: the kernel answers
    /// them. Whoever dials counts those.
    Accepted,
    /// A client sent a request.
    Request {
        /// Kafka's number of the request.
        key: i16,
        /// The client's own name for itself.
        client: Arc<str>,
    },
    /// The client was handed a Produce response that asks it to be silent for so long.
    Throttled(Duration),
    /// The answer to a Produce request that the broker had written was dropped, and the connection
    /// reset.
    ResponseLost,
    /// The connection is gone.
    Closed(End),
}

/// Who closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client.
    Client,
    /// The broker, or nobody was there to connect to.
    Broker,
    /// The relay, told to.
    Relay,
}

/// A part of what the relay saw.
#[derive(Clone, Debug, Default)]
pub struct Log {
    events: Vec<Event>,
}

impl Log {
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// All events, in order of time.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What happened at `from` or later, and before `to`. Connections that were open at `from` are
    /// not known to be: ask the whole log about those.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let inside = |event: &&Event| event.at >= from && event.at < to;
        Self { events: self.events.iter().filter(inside).cloned().collect() }
    }

    /// What happened at one broker.
    pub fn at_broker(&self, broker: u32) -> Self {
        let here = |event: &&Event| event.broker == broker;
        Self { events: self.events.iter().filter(here).cloned().collect() }
    }

    /// Connections accepted.
    pub fn connects(&self) -> usize {
        self.connect_times().len()
    }

    /// Most connections accepted within any stretch of so long.
    pub fn peak_connects(&self, within: Duration) -> usize {
        peak(&self.connect_times(), within)
    }

    fn connect_times(&self) -> Vec<Instant> {
        let accepted = self.events.iter().filter(|event| event.what == What::Accepted);
        accepted.map(|event| event.at).collect()
    }

    /// Requests of one kind.
    pub fn requests(&self, api: ApiKey) -> usize {
        self.requests_by_client(api).values().sum()
    }

    /// Requests of one kind by the name of the client.
    pub fn requests_by_client(&self, api: ApiKey) -> BTreeMap<Arc<str>, usize> {
        let mut all = BTreeMap::new();
        for event in &self.events {
            match &event.what {
                What::Request { key, client } if *key == api as i16 => {
                    *all.entry(Arc::clone(client)).or_default() += 1;
                }
                _ => {}
            }
        }
        all
    }

    /// When the last request of one kind came.
    pub fn last_request(&self, api: ApiKey) -> Option<Instant> {
        let of =
            |event: &&Event| matches!(event.what, What::Request { key, .. } if key == api as i16);
        self.events.iter().rev().find(of).map(|event| event.at)
    }

    /// What each connection was used for: its broker, and how many requests of each kind it carried,
    /// by Kafka's number of the kind.
    pub fn uses(&self) -> BTreeMap<u64, (u32, BTreeMap<i16, usize>)> {
        let mut all: BTreeMap<u64, (u32, BTreeMap<i16, usize>)> = BTreeMap::new();
        for event in &self.events {
            let (_, kinds) =
                all.entry(event.connection).or_insert_with(|| (event.broker, BTreeMap::new()));
            if let What::Request { key, .. } = event.what {
                *kinds.entry(key).or_default() += 1;
            }
        }
        all
    }

    /// Connections closed by the relay.
    pub fn resets(&self) -> usize {
        self.events.iter().filter(|event| event.what == What::Closed(End::Relay)).count()
    }

    /// Most connections that were open at one moment between `from` and `to`.
    pub fn open_at_most(&self, from: Instant, to: Instant) -> usize {
        self.most_open(from, to, |_| Some(())).remove(&()).unwrap_or(0)
    }

    /// The same by the name of the client. A connection belongs to the client that sends its first
    /// request; one that never sends any belongs to nobody.
    pub fn open_at_most_by_client(&self, from: Instant, to: Instant) -> BTreeMap<Arc<str>, usize> {
        let mut owners = HashMap::new();
        for event in &self.events {
            if let What::Request { client, .. } = &event.what {
                owners.entry(event.connection).or_insert(client);
            }
        }
        self.most_open(from, to, |connection| owners.get(&connection).map(|c| Arc::clone(c)))
    }

    fn most_open<K: Ord + Clone>(
        &self,
        from: Instant,
        to: Instant,
        group: impl Fn(u64) -> Option<K>,
    ) -> BTreeMap<K, usize> {
        let mut open: BTreeMap<K, usize> = BTreeMap::new();
        let mut most = None;
        for event in self.events.iter().take_while(|event| event.at < to) {
            let Some(key) = group(event.connection) else { continue };
            // What was open when the stretch began counts.
            if event.at >= from && most.is_none() {
                most = Some(open.clone());
            }
            let now = open.entry(key.clone()).or_default();
            match event.what {
                What::Accepted => *now += 1,
                What::Closed(_) => *now = now.saturating_sub(1),
                _ => {}
            }
            if let Some(most) = &mut most {
                let so_far = most.entry(key).or_default();
                *so_far = (*so_far).max(*now);
            }
        }
        most.unwrap_or(open)
    }

    /// Produce requests that came on a connection whose client had been asked to be silent, and from
    /// how many connections. `grace` is what a response may take to be read.
    pub fn sent_while_throttled(&self, grace: Duration) -> (usize, usize) {
        let mut silent: HashMap<u64, (Instant, Instant)> = HashMap::new();
        let mut connections = std::collections::HashSet::new();
        let mut requests = 0;
        for event in &self.events {
            match &event.what {
                What::Throttled(time) => {
                    let until = event.at + *time;
                    silent.entry(event.connection).or_insert((event.at + grace, until)).1 = until;
                }
                What::Request { key, .. } if *key == ApiKey::Produce as i16 => {
                    let muted = silent.get(&event.connection);
                    if muted.is_some_and(|(from, until)| event.at >= *from && event.at < *until) {
                        requests += 1;
                        connections.insert(event.connection);
                    }
                }
                _ => {}
            }
        }
        (requests, connections.len())
    }
}

/// Most of `times`, which are in order, within any stretch of so long.
pub fn peak(times: &[Instant], within: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (i, time) in times.iter().enumerate() {
        while times[first] + within <= *time {
            first += 1;
        }
        most = most.max(i + 1 - first);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Story {
        start: Instant,
        log: Log,
    }

    impl Story {
        fn new() -> Self {
            Self { start: Instant::now(), log: Log::default() }
        }

        fn at(&mut self, ms: u32, connection: u64, what: What) -> &mut Self {
            let broker = 1 + u32::from(connection >= 10);
            self.log.push(Event { at: self.time(ms), broker, connection, what });
            self
        }

        fn time(&self, ms: u32) -> Instant {
            self.start + ms * MS
        }
    }

    fn request(api: ApiKey, client: &str) -> What {
        What::Request { key: api as i16, client: client.into() }
    }

    #[test]
    fn a_peak_is_what_falls_into_one_stretch() {
        let mut story = Story::new();
        for (i, ms) in [0, 5, 9, 14, 15, 40].into_iter().enumerate() {
            story.at(ms, i as u64, What::Accepted);
        }
        assert_eq!(story.log.connects(), 6);
        assert_eq!(story.log.peak_connects(10 * MS), 3);
        assert_eq!(story.log.peak_connects(MS), 1);
        assert_eq!(story.log.between(story.time(5), story.time(15)).connects(), 3);
        assert_eq!(Log::default().peak_connects(MS), 0);
    }

    #[test]
    fn connections_open_before_a_stretch_count_in_it() {
        let mut story = Story::new();
        story.at(0, 1, What::Accepted).at(1, 1, request(ApiKey::ApiVersions, "a"));
        story.at(2, 2, What::Accepted).at(3, 2, request(ApiKey::ApiVersions, "a"));
        story.at(4, 10, What::Accepted).at(5, 10, request(ApiKey::ApiVersions, "b"));
        story.at(20, 1, What::Closed(End::Client)).at(30, 3, What::Accepted);
        story.at(31, 3, request(ApiKey::Produce, "a")).at(32, 4, What::Accepted);
        let (from, to) = (story.time(10), story.time(100));
        assert_eq!(story.log.open_at_most(from, to), 4);
        let by_client = story.log.open_at_most_by_client(from, to);
        assert_eq!(by_client.into_iter().collect::<Vec<_>>(), [("a".into(), 2), ("b".into(), 1)]);
        // Nothing happens within it.
        assert_eq!(story.log.open_at_most(from, story.time(15)), 3);
        assert_eq!(story.log.at_broker(2).open_at_most(story.start, to), 1);
        let uses = story.log.uses();
        let kinds = BTreeMap::from([(ApiKey::ApiVersions as i16, 1)]);
        assert_eq!((uses.len(), &uses[&10]), (5, &(2, kinds)));
    }

    #[test]
    fn a_connection_is_its_first_clients_and_only_the_relay_resets() {
        let mut story = Story::new();
        story.at(0, 1, What::Accepted).at(1, 1, request(ApiKey::ApiVersions, "a"));
        story.at(2, 1, request(ApiKey::Metadata, "b"));
        story.at(3, 1, What::Closed(End::Relay)).at(4, 2, What::Accepted);
        story.at(5, 2, What::Closed(End::Client)).at(6, 3, What::Closed(End::Broker));
        let (from, to) = (story.start, story.time(10));
        let by_client = story.log.open_at_most_by_client(from, to);
        assert_eq!(by_client.into_iter().collect::<Vec<_>>(), [("a".into(), 1)]);
        assert_eq!((story.log.resets(), story.log.open_at_most(from, to)), (1, 1));
    }

    #[test]
    fn only_what_comes_after_the_response_and_before_its_end_breaks_the_silence() {
        let mut story = Story::new();
        let produce = || request(ApiKey::Produce, "a");
        story.at(0, 1, produce()).at(10, 1, What::Throttled(100 * MS));
        // On its way before the response was there; of another kind; on another connection.
        story.at(14, 1, produce()).at(50, 1, request(ApiKey::Metadata, "a")).at(51, 2, produce());
        assert_eq!(story.log.sent_while_throttled(5 * MS), (0, 0));
        story.at(60, 1, produce()).at(61, 1, produce()).at(110, 1, produce());
        assert_eq!(story.log.sent_while_throttled(5 * MS), (2, 1));
        // Asked once more while it is silent: until then, then.
        story.at(105, 1, What::Throttled(100 * MS)).at(150, 1, produce()).at(205, 1, produce());
        assert_eq!(story.log.sent_while_throttled(5 * MS), (3, 1));
        assert_eq!(story.log.requests(ApiKey::Produce), 8);
        assert_eq!(story.log.last_request(ApiKey::Metadata), Some(story.time(50)));
        assert_eq!(story.log.last_request(ApiKey::Fetch), None);
    }
}
