//! The machine against a small broker, which keeps sessions as Kafka does (FetchManager, FetchSession,
//! FetchSessionCacheShard), while requests and responses are lost, sessions are pushed out, brokers restart, topics
//! are made anew and partitions come, go, fail and are sought in.

mod broker;

use std::collections::BTreeMap;

use super::*;
use crate::policy::turns::Turn;
use broker::{Broker, Log, OUT_OF_RANGE, RECORDS, Request, Response};

/// A partition as the consumer sees it.
struct Reader {
    of: PartitionRef,
    incarnation: u64,
    offset: i64,
    turn: Turn,
    paused: bool,
    failed: bool,
    /// Responses with records since it was behind and got none.
    waited: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Throttled,
    Unsent,
    RequestLost,
    ResponseLost,
}

struct World {
    broker: Broker,
    session: Session,
    readers: BTreeMap<SlotId, Reader>,
    next_slot: u32,
    incarnations: u64,
    responses: u64,
    ids: bool,
    supported: bool,
    now: Instant,
    rng: StdRng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let partitions = rng.random_range(1..6);
        let logs = (0..partitions).map(|n| {
            let topic = if n % 2 == 0 { "even" } else { "odd" };
            let id = Uuid::from_u128(1_000 + n as u128 % 2);
            let of = PartitionRef { topic: topic.into(), id, partition: n };
            Log { of, end: rng.random_range(0..10), broken: false }
        });
        let logs = logs.collect();
        let slots = rng.random_range(0..4);
        let evict_after = Duration::from_secs(120);
        let old = rng.random_bool(0.3);
        let sessions = BTreeMap::new();
        let broker = Broker { slots, evict_after, old, sessions, next_id: 0, logs };
        let mut world = Self {
            broker,
            session: Session::default(),
            readers: BTreeMap::new(),
            next_slot: 0,
            incarnations: 0,
            responses: 0,
            ids: rng.random_bool(0.7),
            supported: true,
            now: Instant::now(),
            rng,
        };
        (0..world.broker.logs.len()).for_each(|n| world.assign(n));
        world
    }

    fn incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    fn assign(&mut self, log: usize) {
        let slot = SlotId(self.next_slot % 8);
        self.next_slot += 1;
        let of = self.broker.logs[log].of.clone();
        if self.readers.contains_key(&slot) || self.readers.values().any(|r| r.of.is(&of, false)) {
            return;
        }
        let (turn, incarnation) = (Turn::new(), self.incarnation());
        let [paused, failed] = [false; 2];
        let reader = Reader { of, incarnation, offset: 0, turn, paused, failed, waited: 0 };
        self.readers.insert(slot, reader);
        self.tell(slot);
    }

    fn tell(&mut self, slot: SlotId) {
        let reader = &self.readers[&slot];
        if reader.paused || reader.failed {
            return self.session.unwant(slot);
        }
        let told = Told {
            of: reader.of.clone(),
            incarnation: reader.incarnation,
            offset: reader.offset,
            fetched_epoch: (reader.offset / 4) as i32,
            leader_epoch: 7,
            max_bytes: 1 << 20,
        };
        self.session.want(slot, told);
    }

    fn any(&mut self) -> Option<SlotId> {
        let slots: Vec<SlotId> = self.readers.keys().copied().collect();
        (!slots.is_empty()).then(|| slots[self.rng.random_range(0..slots.len())])
    }

    /// The topic's id as metadata has it.
    fn learn(&mut self, slot: SlotId) {
        let Some(reader) = self.readers.get(&slot) else { return };
        let log = self.broker.logs.iter().find(|log| log.of.is(&reader.of, false));
        let id = log.map_or(reader.of.id, |log| log.of.id);
        if id != reader.of.id {
            let incarnation = self.incarnation();
            let Some(reader) = self.readers.get_mut(&slot) else { return };
            reader.of.id = id;
            (reader.incarnation, reader.offset) = (incarnation, 0);
            self.tell(slot);
        }
    }

    fn something_happens(&mut self) {
        let log = self.rng.random_range(0..self.broker.logs.len());
        let slot = self.any();
        match (self.rng.random_range(0..26), slot) {
            (0..6, _) => self.broker.logs[log].end += self.rng.random_range(1..6),
            (6, _) => self.broker.logs[log].broken ^= true,
            (7, _) => {
                let (topic, id) = (self.broker.logs[log].of.topic.clone(), self.rng.random());
                let made = self.broker.logs.iter_mut().filter(|log| log.of.topic == topic);
                made.for_each(|log| (log.of.id, log.end) = (Uuid::from_u128(id), 1));
            }
            (8, _) => self.assign(log),
            (9, Some(slot)) => {
                self.session.unwant(slot);
                self.readers.remove(&slot);
            }
            (10..13, Some(slot)) => {
                let incarnation = self.incarnation();
                let reader = self.readers.get_mut(&slot).unwrap();
                reader.incarnation = incarnation;
                reader.offset = self.rng.random_range(0..=reader.offset);
                self.tell(slot);
            }
            (13..15, Some(slot)) => {
                self.readers.get_mut(&slot).unwrap().paused ^= true;
                self.tell(slot);
            }
            (15..18, Some(slot)) => {
                self.readers.get_mut(&slot).unwrap().failed = false;
                self.tell(slot);
            }
            (18..20, Some(slot)) => self.learn(slot),
            (20, _) => self.broker.sessions.clear(),
            // Others come and go.
            (21, _) => drop(self.broker.create(true, Vec::new(), self.now)),
            (22, _) => drop(self.broker.sessions.pop_first()),
            (23, _) => self.now += Duration::from_secs(self.rng.random_range(1..300)),
            (24, _) if self.rng.random_bool(0.3) => self.ids ^= true,
            (25, _) if self.rng.random_bool(0.3) => self.supported ^= true,
            _ => {}
        }
    }

    /// One request and what becomes of it. Gives whether records came.
    fn exchange(&mut self, fate: Fate) -> bool {
        let before = self.session.state;
        let due = Event::Due { ids: self.ids, supported: self.supported };
        let ask = match self.session.on(due, self.now, &mut self.rng) {
            Action::Send(ask) => ask,
            Action::Nothing => return false,
            Action::Close { id } => {
                drop(self.broker.sessions.remove(&id));
                return false;
            }
        };
        match before {
            State::Bare { until } if self.now < until => assert_eq!((ask.id, ask.epoch), (0, -1)),
            _ => assert_eq!(ask.epoch == -1, !self.supported),
        }
        assert_eq!(ask.full, ask.epoch <= 0);
        let mut named = ask.named;
        if ask.full {
            let wanted = self.readers.iter().filter(|(_, r)| !r.paused && !r.failed);
            assert!(wanted.map(|(slot, _)| *slot).eq(named.iter().copied()));
            named.sort_by_key(|slot| self.readers[slot].turn);
        }
        let named: Vec<Told> =
            named.iter().map(|slot| self.session.asked(*slot).unwrap().clone()).collect();
        let forget = ask.forget;
        let clash = |told: &Told| forget.iter().any(|of| of.is(&told.of, self.ids));
        assert!(!named.iter().any(clash), "what is named and forgotten is lost");
        let request = Request { id: ask.id, epoch: ask.epoch, ids: self.ids, named, forget };
        let heard = !matches!(fate, Fate::Unsent | Fate::RequestLost);
        let throttle = fate == Fate::Throttled;
        let response = heard.then(|| self.broker.fetch(&request, throttle, self.now));
        // The application goes on meanwhile.
        while self.rng.random_bool(0.2) {
            if let Some(slot) = self.any() {
                self.readers.get_mut(&slot).unwrap().paused ^= true;
                self.tell(slot);
            }
        }
        match (fate, response) {
            (Fate::Unsent, _) => drop(self.session.on(Event::Unsent, self.now, &mut self.rng)),
            (Fate::Arrives | Fate::Throttled, Some(response)) => return self.take(&response),
            _ => drop(self.session.on(Event::Lost, self.now, &mut self.rng)),
        }
        false
    }

    fn take(&mut self, response: &Response) -> bool {
        let mut parts = Vec::new();
        let mut again = Vec::new();
        self.responses += 1;
        for piece in &response.pieces {
            let of = &piece.of;
            let found = self.session.find(&of.topic, of.id, of.partition);
            let (slot, told) = found.expect("a stranger in a response of a sound broker");
            assert_eq!(told.offset, piece.from, "it reads elsewhere: {told:?}");
            let brought = piece.records > 0;
            let next = piece.from + piece.records;
            parts.push(Part { slot, brought, lags: next < piece.high_watermark });
            let Some(reader) = self.readers.get_mut(&slot) else { continue };
            if (reader.incarnation, reader.offset) != (told.incarnation, told.offset) {
                continue;
            }
            match piece.error {
                NONE => reader.offset = next,
                OUT_OF_RANGE => (reader.offset, reader.incarnation) = (0, u64::MAX),
                _ => reader.failed = true,
            }
            if brought {
                reader.turn.brought(self.responses);
            } else {
                reader.turn.came_empty(next < piece.high_watermark);
            }
            again.push(slot);
        }
        let answer = Answer {
            error: response.error,
            session_id: response.session_id,
            throttled: response.throttled,
            parts: &parts,
            strangers: 0,
        };
        let action = self.session.on(Event::Answered(answer), self.now, &mut self.rng);
        assert_eq!(action, Action::Nothing);
        self.agree();
        let out = self.readers.iter().filter(|(_, reader)| reader.incarnation == u64::MAX);
        let out: Vec<SlotId> = out.map(|(slot, _)| *slot).collect();
        for slot in out {
            let incarnation = self.incarnation();
            self.readers.get_mut(&slot).unwrap().incarnation = incarnation;
        }
        again.into_iter().for_each(|slot| self.tell(slot));
        let brought = parts.iter().any(|part| part.brought);
        for (slot, reader) in &mut self.readers {
            let log = self.broker.logs.iter().find(|log| log.of.is(&reader.of, false)).unwrap();
            let fed = parts.iter().any(|part| part.slot == *slot && part.brought);
            let waits = reader.offset < log.end && !fed && !reader.failed && !reader.paused;
            reader.waited = if waits { reader.waited + usize::from(brought) } else { 0 };
        }
        brought
    }

    /// After a response that is certain both sides have the same session.
    fn agree(&self) {
        let State::Open { id, next } = self.session.state else {
            let held = self.session.entries.values().filter(|entry| entry.told.is_some());
            return assert_eq!(held.count(), 0);
        };
        let kept = self.broker.sessions.get(&id).expect("it holds a session that there is not");
        assert_eq!((kept.epoch, kept.ids), (next, self.session.ids));
        let told = |slot: &SlotId| self.session.asked(*slot).cloned();
        let mut ours: Vec<Told> = self.session.entries.keys().filter_map(told).collect();
        assert_eq!(ours.len(), kept.parts.len());
        for cached in &kept.parts {
            let same = |told: &Told| told.of.is(&cached.told.of, kept.ids);
            let at = ours.iter().position(same).expect("a partition that was not told");
            assert!(ours.swap_remove(at).says_the_same(&cached.told));
        }
    }

    fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..20) {
            0 => Fate::Unsent,
            1 => Fate::RequestLost,
            2 => Fate::ResponseLost,
            3 => Fate::Throttled,
            _ => Fate::Arrives,
        }
    }

    /// All is well again, and each log is written to all the time: nobody waits for long.
    fn everybody_gets_something(&mut self) {
        self.broker.logs.iter_mut().for_each(|log| log.broken = false);
        self.supported = true;
        let slots: Vec<SlotId> = self.readers.keys().copied().collect();
        for slot in &slots {
            self.learn(*slot);
            let reader = self.readers.get_mut(slot).unwrap();
            (reader.paused, reader.failed, reader.waited) = (false, false, 0);
            self.tell(*slot);
        }
        let n = slots.len();
        // In turns. Where the broker has no turns, it takes until somebody notices, and somebody goes first then.
        let notices = (4 * self.session.patience as usize + 1) * n;
        let patience = if self.broker.old { notices } else { n + 2 };
        for _ in 0..notices + 4 * n {
            self.broker.logs.iter_mut().for_each(|log| log.end += RECORDS);
            let due = Event::Due { ids: self.ids, supported: true };
            let Action::Send(ask) = self.session.on(due, self.now, &mut self.rng) else { return };
            let mut named = ask.named;
            if ask.full {
                named.sort_by_key(|slot| self.readers[slot].turn);
            }
            let named = named.iter().map(|slot| self.session.asked(*slot).unwrap().clone());
            let named = named.collect();
            let ids = self.ids;
            let request = Request { id: ask.id, epoch: ask.epoch, ids, named, forget: ask.forget };
            let response = self.broker.fetch(&request, false, self.now);
            self.take(&response);
            for slot in &slots {
                let reader = self.readers.get_mut(slot).unwrap();
                assert!(!reader.failed || response.pieces.iter().all(|p| p.error == NONE));
                let (waited, old) = (reader.waited, self.broker.old);
                assert!(waited <= patience, "{slot:?} waits for {waited} of {n}, old {old}");
            }
        }
    }
}

#[test]
fn both_sides_have_the_same_session() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..60 {
                (0..world.rng.random_range(0..3)).for_each(|_| world.something_happens());
                let fate = world.fate();
                world.exchange(fate);
            }
            world.everybody_gets_something();
        });
        if let Err(panic) = run {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const SEEDS: u64 = 5_000;
