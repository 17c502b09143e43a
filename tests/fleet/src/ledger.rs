//! What became of the records: by phase of the experiment, and by second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use ottla::{Acked, Error};

/// Counts for a whole fleet. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Inner>>);

struct Inner {
    phases: Vec<Phase>,
    by_second: Vec<Second>,
}

/// Records sent from the start of a phase until the start of the next, whenever they resolved.
#[derive(Clone)]
pub struct Phase {
    /// What the script calls it.
    pub name: String,
    /// When it began, in milliseconds of the network's clock.
    pub from_ms: u64,
    /// Records given to the producers.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that resolved with an error, or that a producer did not take.
    pub failed: u64,
    /// The errors' kinds.
    pub errors: BTreeMap<String, u64>,
    /// Milliseconds from the send to the acknowledgement.
    pub latency: Histogram<u64>,
    /// The first acknowledgement of each client, in milliseconds since the phase began.
    pub first_acks: BTreeMap<u32, u64>,
}

/// One second of the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// Records sent in it.
    pub sent: u64,
    /// Records acknowledged in it.
    pub acked: u64,
    /// The longest wait that ended in it, in milliseconds.
    pub longest_ms: u64,
}

/// A record that is on its way; handed back when it resolves.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    phase: usize,
    client: u32,
    at_ms: u64,
}

impl Phase {
    fn new(name: &str, from_ms: u64) -> Self {
        Self {
            name: name.to_owned(),
            from_ms,
            sent: 0,
            acked: 0,
            failed: 0,
            errors: BTreeMap::new(),
            latency: Histogram::new(3).expect("three significant digits are possible"),
            first_acks: BTreeMap::new(),
        }
    }

    /// Records that have neither been acknowledged nor failed.
    pub fn unresolved(&self) -> u64 {
        self.sent - self.acked - self.failed
    }

    /// Milliseconds within which this share (0 to 1) of the acknowledged records was acknowledged.
    pub fn quantile(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64
    }

    /// Share of the acknowledged records that waited longer than this.
    pub fn share_over(&self, ms: u64) -> f64 {
        let within = self.latency.count_between(0, ms);
        (self.latency.len() - within) as f64 / (self.latency.len().max(1)) as f64
    }

    /// When this share (0 to 1) of `clients` had an acknowledgement in this phase, in milliseconds
    /// since it began. `None`: fewer ever had.
    pub fn first_ack_of(&self, share: f64, clients: u32) -> Option<u64> {
        let mut times: Vec<u64> = self.first_acks.values().copied().collect();
        times.sort_unstable();
        let rank = (share * f64::from(clients)).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let phases = vec![Phase::new("start", 0)];
        Self(Arc::new(Mutex::new(Inner { phases, by_second: Vec::new() })))
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records sent from now on belong to another phase.
    pub fn phase(&self, name: &str, now_ms: u64) {
        self.lock().phases.push(Phase::new(name, now_ms));
    }

    /// A phase by name.
    ///
    /// # Panics
    /// If the script has not begun it.
    pub fn of(&self, name: &str) -> Phase {
        let found = self.lock().phases.iter().find(|phase| phase.name == name).cloned();
        found.unwrap_or_else(|| panic!("no phase '{name}' was begun"))
    }

    /// Every phase together.
    pub fn total(&self) -> Phase {
        merged(&self.lock().phases)
    }

    /// Consecutive phases as one, from the first to the last of these names.
    ///
    /// # Panics
    /// If the script has not begun one of them.
    pub fn from_to(&self, first: &str, last: &str) -> Phase {
        let inner = self.lock();
        let place = |name: &str| {
            let found = inner.phases.iter().position(|phase| phase.name == name);
            found.unwrap_or_else(|| panic!("no phase '{name}' was begun"))
        };
        merged(&inner.phases[place(first)..=place(last)])
    }

    /// By second since the network began.
    pub fn by_second(&self) -> Vec<Second> {
        self.lock().by_second.clone()
    }

    pub(crate) fn sent(&self, client: u32, now_ms: u64) -> Sent {
        let mut inner = self.lock();
        let phase = inner.phases.len() - 1;
        inner.phases[phase].sent += 1;
        inner.second(now_ms).sent += 1;
        Sent { phase, client, at_ms: now_ms }
    }

    pub(crate) fn resolved(&self, sent: Sent, now_ms: u64, result: &Result<Acked, Error>) {
        let mut inner = self.lock();
        let took = now_ms - sent.at_ms;
        let phase = &mut inner.phases[sent.phase];
        match result {
            Ok(_) => {
                phase.acked += 1;
                phase.latency.record(took).expect("an auto-resizing histogram takes all");
                let since = now_ms - phase.from_ms;
                phase.first_acks.entry(sent.client).or_insert(since);
                let second = inner.second(now_ms);
                second.acked += 1;
                second.longest_ms = second.longest_ms.max(took);
            }
            Err(e) => {
                phase.failed += 1;
                *phase.errors.entry(format!("{:?}", e.kind())).or_default() += 1;
            }
        }
    }
}

fn merged(phases: &[Phase]) -> Phase {
    let mut all = Phase::new(&phases[0].name, phases[0].from_ms);
    for phase in phases {
        all.sent += phase.sent;
        all.acked += phase.acked;
        all.failed += phase.failed;
        all.latency.add(&phase.latency).expect("an auto-resizing histogram takes all");
        for (kind, count) in &phase.errors {
            *all.errors.entry(kind.clone()).or_default() += count;
        }
        for (client, since) in &phase.first_acks {
            let since = phase.from_ms + since - all.from_ms;
            all.first_acks.entry(*client).or_insert(since);
        }
    }
    all
}

impl Inner {
    fn second(&mut self, now_ms: u64) -> &mut Second {
        let second = (now_ms / 1000) as usize;
        if self.by_second.len() <= second {
            self.by_second.resize(second + 1, Second::default());
        }
        &mut self.by_second[second]
    }
}

#[cfg(test)]
mod tests {
    use ottla::Client;

    use super::*;

    fn acked() -> Result<Acked, Error> {
        Ok(Acked { partition: 0, offset: 0, timestamp_ms: 0 })
    }

    fn failed() -> Result<Acked, Error> {
        Err(Client::builder().bootstrap("").build().err().expect("no bootstrap"))
    }

    /// Three clients over two phases; what is sent in the first resolves in the second.
    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        ledger.phase("one", 1000);
        let early = [1, 2, 3].map(|client| ledger.sent(client, 1000 + u64::from(client)));
        ledger.resolved(early[0], 1101, &acked());
        ledger.phase("two", 2000);
        ledger.resolved(early[1], 2302, &acked());
        ledger.resolved(early[2], 2303, &failed());
        let late = [1, 2, 2].map(|client| ledger.sent(client, 2500));
        ledger.resolved(late[0], 2510, &acked());
        ledger.resolved(late[1], 2540, &acked());
        ledger.resolved(late[2], 2600, &failed());
        let _under_way = ledger.sent(3, 3999);
        ledger
    }

    fn counts(phase: &Phase) -> [u64; 4] {
        [phase.sent, phase.acked, phase.failed, phase.unresolved()]
    }

    #[test]
    fn records_belong_to_the_phase_they_were_sent_in() {
        let ledger = ledger();
        assert_eq!(counts(&ledger.of("start")), [0, 0, 0, 0]);
        assert_eq!(counts(&ledger.of("one")), [3, 2, 1, 0]);
        assert_eq!(counts(&ledger.of("two")), [4, 2, 1, 1]);
        assert_eq!(ledger.of("one").latency.max(), 2302 - 1002);
        assert_eq!(ledger.of("two").latency.max(), 40);
        let firsts = |phase: &str| ledger.of(phase).first_acks.into_iter().collect::<Vec<_>>();
        assert_eq!(firsts("one"), [(1, 101), (2, 1302)]);
        assert_eq!(firsts("two"), [(1, 510), (2, 540)]);
        ledger.resolved(ledger.sent(1, 2700), 2710, &acked());
        let two = ledger.of("two").first_acks;
        assert_eq!((two[&1], two.len()), (510, 2), "the first remains the first");
    }

    #[test]
    fn phases_together_are_their_sums_and_nothing_twice() {
        let ledger = ledger();
        for all in [ledger.total(), ledger.from_to("start", "two"), ledger.from_to("one", "two")] {
            assert_eq!(counts(&all), [7, 4, 2, 1]);
            assert_eq!((all.latency.len(), all.latency.max()), (4, 1300));
            assert_eq!(all.errors, BTreeMap::from([("Config".to_owned(), 2)]));
        }
        assert_eq!(counts(&ledger.from_to("two", "two")), [4, 2, 1, 1]);
        // Since the first of the phases began; who had one in the first has its first there.
        let firsts: Vec<_> = ledger.from_to("one", "two").first_acks.into_iter().collect();
        assert_eq!(firsts, [(1, 101), (2, 1302)]);
        let ledger = Ledger::default();
        ledger.phase("later", 5000);
        ledger.resolved(ledger.sent(9, 6000), 6001, &acked());
        assert_eq!(ledger.total().first_acks[&9], 6001);
    }

    #[test]
    fn shares_are_of_all_clients_and_of_all_that_waited() {
        let mut phase = Phase::new("x", 0);
        for client in 1..=8 {
            phase.first_acks.insert(client, u64::from(client) * 10);
            phase.latency.record(u64::from(client)).expect("in range");
        }
        assert_eq!(phase.first_ack_of(0.5, 10), Some(50));
        assert_eq!(phase.first_ack_of(0.8, 10), Some(80));
        assert_eq!(phase.first_ack_of(0.81, 10), None, "two never had one");
        assert_eq!(phase.share_over(6), 0.25);
        assert_eq!(phase.share_over(8), 0.0);
        assert_eq!(phase.share_over(0), 1.0);
        assert_eq!(Phase::new("none", 0).share_over(0), 0.0);
        assert_eq!(phase.quantile(0.5), 4.0);
    }

    #[test]
    fn seconds_are_those_in_which_it_happened() {
        let ledger = ledger();
        let seconds: Vec<_> =
            ledger.by_second().iter().map(|s| (s.sent, s.acked, s.longest_ms)).collect();
        assert_eq!(seconds, [(0, 0, 0), (3, 1, 100), (3, 3, 1300), (1, 0, 0)]);
    }
}
