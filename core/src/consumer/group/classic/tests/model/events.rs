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
            (0, _) => {
                let replies = self.broker.move_away(self.now, &mut self.rng);
                self.deliver(replies);
            }
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
                    let as_new = self.next_who;
                    self.next_who += 1;
                    self.put(as_new, sim.settings);
                }
            }
            (3, Some(who)) if !self.sims[&who].frozen => {
                let time = Duration::from_millis(self.rng.random_range(0..10_000));
                let (deadline, leave) = (self.now + time, self.rng.random_bool(0.5));
                self.tell(who, Event::Close { deadline, leave });
            }
            (4, Some(who)) => {
                let found = self.sims[&who].machine.coordinator.found();
                if let Some(found) = found {
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
                let topic = if self.rng.random_bool(0.5) { "t" } else { "u" };
                let count = self.partitions.get_mut(topic).unwrap();
                *count = n.max(*count);
                for who in all {
                    self.tell(who, Event::TopicsChanged);
                }
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
                    panic!(
                        "{part:?} is read by {other} and {who}: {:#?} {:#?}",
                        self.sims[&other].machine, sim.machine
                    );
                }
            }
        }
        for (who, sim) in &self.sims {
            let keeps = |part: &&Part| {
                sim.machine.lease().is_some_and(|l| l > self.now) && !sim.hands_out(part, self.now)
            };
            for part in sim.machine.owned().filter(keeps) {
                let reader = readers.get(part);
                assert!(
                    reader.is_none_or(|other| other == who),
                    "{part:?} is kept by {who} and read by {reader:?}"
                );
            }
        }
    }

    pub(super) fn assert_settled(&self) {
        let mut all: BTreeSet<Part> = BTreeSet::new();
        let mut wanted: BTreeSet<Arc<str>> = BTreeSet::new();
        for sim in self.sims.values() {
            assert!(matches!(sim.machine.state, State::Stable), "{:?}", sim.machine);
            assert!(sim.machine.giving.is_none());
            for part in sim.machine.owned() {
                assert!(sim.hands_out(part, self.now), "{:?}", sim.machine);
            }
            all.extend(sim.machine.owned().cloned());
            wanted.extend(sim.subscription.topics.iter().cloned());
        }
        let expected: usize = wanted.iter().map(|topic| self.partitions[topic] as usize).sum();
        assert_eq!(all.len(), expected, "{all:?}");
    }
}
