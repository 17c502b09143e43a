//! What may happen to members at any time, and what holds whatever does.

use super::*;

impl World {
    pub(super) fn trouble(&mut self) {
        if self.now > self.start + TROUBLES {
            return;
        }
        let next = Duration::from_millis(self.rng.random_range(10..20_000));
        self.after(next, Due::Trouble);
        let all: Vec<Who> = self.sims.keys().copied().collect();
        let who = (!all.is_empty()).then(|| all[self.rng.random_range(0..all.len())]);
        let kind = self.rng.random_range(0..12);
        self.show(|| format!("trouble {kind} {who:?}"));
        match (kind, who) {
            (0, _) => self.broker.move_away(self.now, &mut self.rng),
            (1, Some(who)) => {
                let sim = self.sims.get_mut(&who).unwrap();
                if !sim.frozen {
                    sim.frozen = true;
                    let time = (S * 5 / 2).mul_f64(self.rng.random_range(0.0..1.0));
                    self.after(time, Due::Thaws { who });
                }
            }
            // Killed; a static one comes back.
            (2, Some(who)) => {
                let sim = self.sims.remove(&who).unwrap();
                if sim.settings.instance_id.is_some() {
                    self.put(sim.settings);
                }
            }
            (3, Some(who)) if !self.sims[&who].frozen => {
                let time = Duration::from_millis(self.rng.random_range(0..10_000));
                let (deadline, leave) = (self.now + time, self.rng.random_bool(0.5));
                self.tell(who, Event::Close { deadline, leave });
            }
            (4, Some(who)) => {
                if let Some(found) = self.sims[&who].machine.coordinator.found() {
                    self.tell(who, Event::CoordinatorLost { found });
                }
            }
            (5, Some(who)) => {
                let of: &[&[&str]] = &[&["t"], &["u"], &["t", "u"]];
                let subscription = topics(of[self.rng.random_range(0..3)]);
                self.sims.get_mut(&who).unwrap().subscription = subscription.clone();
                self.tell(who, Event::Subscribed(subscription));
            }
            (6, _) => {
                let n = self.rng.random_range(1..8);
                self.broker.grow(if self.rng.random_bool(0.5) { 't' } else { 'u' }, n);
            }
            (7, Some(who)) => self.tell(who, Event::Asks),
            _ if self.sims.len() < 5 => self.add_member(),
            _ => {}
        }
    }

    pub(super) fn check(&self) {
        let mut readers: BTreeMap<&Part, Who> = BTreeMap::new();
        for (who, sim) in &self.sims {
            for part in sim.machine.owned().filter(|part| sim.hands_out(part, self.now)) {
                if let Some(other) = readers.insert(part, *who) {
                    panic!("{part:?} is read by {other} and {who}");
                }
            }
        }
        for (who, sim) in &self.sims {
            let keeps = |part: &&Part| {
                sim.machine.lease().is_some_and(|lease| lease > self.now)
                    && !sim.hands_out(part, self.now)
            };
            for part in sim.machine.owned().filter(keeps) {
                let reader = readers.get(part);
                let only = reader.is_none_or(|other| other == who);
                assert!(only, "{part:?} is kept by {who} and read by {reader:?}");
            }
        }
    }

    pub(super) fn assert_settled(&self) {
        let mut all: BTreeSet<Part> = BTreeSet::new();
        let mut wanted: BTreeSet<Arc<str>> = BTreeSet::new();
        for sim in self.sims.values() {
            assert!(matches!(sim.machine.state, State::Member), "{:?}", sim.machine);
            assert!(sim.machine.giving.is_none());
            for part in sim.machine.owned() {
                assert!(sim.hands_out(part, self.now), "{:?}", sim.machine);
            }
            all.extend(sim.machine.owned().cloned());
            wanted.extend(sim.subscription.topics.iter().cloned());
        }
        assert_eq!(all.len(), self.broker.count(&wanted), "{all:?}");
    }
}
