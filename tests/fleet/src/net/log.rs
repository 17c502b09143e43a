//! What brokers see of the fleet: every dial, every request, over time.

use super::Name;
use super::wire::{Api, Seen};

/// How a dial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    UnderWay,
    /// The connection is open.
    Connected,
    /// Nobody listens there.
    Refused,
    /// Who dialled did not wait any longer.
    GivenUp,
}

/// One attempt to open a connection.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// Milliseconds since the network began.
    pub at_ms: u64,
    /// Number of the client.
    pub client: u32,
    /// Id of the broker.
    pub broker: i32,
    /// How it ended.
    pub outcome: Outcome,
}

/// Requests of one kind each.
pub type Requests = [u64; Api::COUNT];

/// See the module.
#[derive(Default)]
pub struct Log {
    dials: Vec<Dial>,
    /// SYNs that reached each broker in each 10 ms: (when / 10 ms, broker, how many).
    syns: Vec<(u64, i32, u32)>,
    /// The last entry of `syns` of each broker.
    last_syns: Vec<Option<usize>>,
    overflows: Vec<(u64, i32)>,
    by_client: Vec<[u32; Api::COUNT]>,
    /// Of what each client did, so that the order of two clients within a millisecond is nothing.
    digests: Vec<u64>,
    by_broker: Vec<Requests>,
    bytes_to_broker: Vec<u64>,
    by_second: Vec<Requests>,
    /// Produce requests to each broker in each second.
    produce: Vec<Vec<u32>>,
    /// The broker whose Produce requests are kept one by one.
    watched: Option<i32>,
    seen: Vec<(u64, u32)>,
}

/// FNV-1a's offset basis.
const NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

impl Log {
    pub(crate) fn new(brokers: i32) -> Self {
        let brokers = brokers.unsigned_abs() as usize;
        Self {
            last_syns: vec![None; brokers],
            by_broker: vec![Requests::default(); brokers],
            bytes_to_broker: vec![0; brokers],
            produce: vec![Vec::new(); brokers],
            ..Self::default()
        }
    }

    pub(crate) fn dialled(&mut self, at_ms: u64, client: u32, broker: i32) -> usize {
        self.dials.push(Dial { at_ms, client, broker, outcome: Outcome::UnderWay });
        self.mix(client, &[1, at_ms, broker.unsigned_abs().into()]);
        self.dials.len() - 1
    }

    pub(crate) fn settled(&mut self, entry: usize, outcome: Outcome) {
        self.dials[entry].outcome = outcome;
        self.mix(self.dials[entry].client, &[2, outcome as u64]);
    }

    pub(crate) fn syn(&mut self, at_ms: u64, broker: i32, overflow: bool) {
        let slot = at_ms / 10;
        let last = &mut self.last_syns[broker as usize - 1];
        match last.filter(|index| self.syns[*index].0 == slot) {
            Some(index) => self.syns[index].2 += 1,
            None => {
                *last = Some(self.syns.len());
                self.syns.push((slot, broker, 1));
            }
        }
        if overflow {
            self.overflows.push((at_ms, broker));
        }
    }

    pub(crate) fn request(&mut self, at_ms: u64, name: Name, broker: i32, seen: Seen) {
        let client = name.0 as usize;
        if self.by_client.len() <= client {
            self.by_client.resize(client + 1, Default::default());
        }
        let api = seen.api as usize;
        self.by_client[client][api] += 1;
        self.by_broker[broker as usize - 1][api] += 1;
        self.bytes_to_broker[broker as usize - 1] += u64::from(seen.bytes);
        let second = (at_ms / 1000) as usize;
        if self.by_second.len() <= second {
            self.by_second.resize(second + 1, Default::default());
        }
        self.by_second[second][api] += 1;
        if seen.api == Api::Produce {
            if self.watched == Some(broker) {
                self.seen.push((at_ms, name.0));
            }
            let produce = &mut self.produce[broker as usize - 1];
            if produce.len() <= second {
                produce.resize(second + 1, 0);
            }
            produce[second] += 1;
        }
        self.mix(name.0, &[3, at_ms, name.1.into(), api as u64, seen.bytes.into()]);
    }

    /// FNV-1a over words: it tells whether two runs are the same, and is no proof against anybody.
    fn mix(&mut self, client: u32, words: &[u64]) {
        let client = client as usize;
        if self.digests.len() <= client {
            self.digests.resize(client + 1, NOTHING);
        }
        for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
            let digest = self.digests[client] ^ u64::from(byte);
            self.digests[client] = digest.wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// All dials, in order.
    pub fn dials(&self) -> &[Dial] {
        &self.dials
    }

    /// Dials from `from_ms` until before `to_ms`.
    pub fn dials_in(&self, from_ms: u64, to_ms: u64) -> &[Dial] {
        let first = self.dials.partition_point(|dial| dial.at_ms < from_ms);
        let last = self.dials.partition_point(|dial| dial.at_ms < to_ms);
        &self.dials[first..last.max(first)]
    }

    /// The most SYNs that reached one broker in one slot of 10 ms, repeated ones included.
    pub fn peak_per_10ms(&self, from_ms: u64, to_ms: u64) -> u32 {
        let slots = from_ms / 10..to_ms.div_ceil(10);
        let counts = self.syns.iter().filter(|(slot, ..)| slots.contains(slot));
        counts.map(|(.., count)| *count).max().unwrap_or(0)
    }

    /// SYNs that found a full backlog.
    pub fn overflows(&self, from_ms: u64, to_ms: u64) -> usize {
        self.overflows.iter().filter(|(at, _)| (from_ms..to_ms).contains(at)).count()
    }

    /// Requests of each client so far.
    pub fn by_client(&self) -> &[[u32; Api::COUNT]] {
        &self.by_client
    }

    /// Requests to each broker so far, by id from 1.
    pub fn by_broker(&self) -> &[Requests] {
        &self.by_broker
    }

    /// Bytes of requests to each broker so far, by id from 1.
    pub fn bytes_to_broker(&self) -> &[u64] {
        &self.bytes_to_broker
    }

    /// Requests by the second in which they were written.
    pub fn by_second(&self) -> &[Requests] {
        &self.by_second
    }

    /// Produce requests to a broker from second `from` until before `to`.
    pub fn produce_to(&self, broker: i32, from: u64, to: u64) -> u64 {
        let seconds = self.produce[broker as usize - 1].iter().enumerate();
        let within = seconds.filter(|(second, _)| (from..to).contains(&(*second as u64)));
        within.map(|(_, count)| u64::from(*count)).sum()
    }

    pub(crate) fn watch(&mut self, broker: i32) {
        self.watched = Some(broker);
        self.seen.clear();
    }

    /// Produce requests to the watched broker since it is watched: when each was written, in
    /// milliseconds, and by which client.
    pub fn seen(&self) -> &[(u64, u32)] {
        &self.seen
    }

    /// One number per client: the same for two runs in which it dialled and asked the same at the same
    /// times.
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }
}
