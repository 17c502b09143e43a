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
    pub name: &'static str,
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
    fn new(name: &'static str, from_ms: u64) -> Self {
        Self {
            name,
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
    pub fn phase(&self, name: &'static str, now_ms: u64) {
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
    let mut all = Phase::new(phases[0].name, phases[0].from_ms);
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
