//! What is to be committed, when, and what of it the group has already. One commit is in flight at a time, and carries what
//! is newest when it is made: so a retry never takes back what a later one has said. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::consumer::buffer::Key;
use crate::consumer::marks::Place;
use crate::error::{Error, Result};
use crate::policy::backoff::Backoff;

/// Places of partitions.
pub(crate) type Places = BTreeMap<Key, Place>;

/// A commit that the application has asked for.
pub(crate) struct Order {
    /// These, instead of what is done; none: what is done.
    pub(crate) places: Option<Places>,
    pub(crate) reply: oneshot::Sender<Result<()>>,
}

/// A place in one incarnation of a partition: in another one the same offset is another record. `None`: as the group had
/// it when the partition came.
type Had = (Place, Option<u64>);

fn is_same(had: Option<&Had>, (place, incarnation): (Place, u64)) -> bool {
    had.is_some_and(|(of, begun)| *of == place && begun.is_none_or(|begun| begun == incarnation))
}

/// See the module.
pub(super) struct Offsets {
    /// What the group has, as far as it is known here.
    known: BTreeMap<Key, Had>,
    /// What it does not take, of partitions that it says that of: not said again.
    refused: BTreeMap<Key, Had>,
    in_flight: Option<Flight>,
    /// Nothing is committed unless it is asked for.
    by_hand: bool,
    interval: Duration,
    /// When the marks are looked at next.
    due: Instant,
    /// Something waits for a commit.
    urgent: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
    /// Each with the time until which it waits.
    orders: Vec<(Order, Instant)>,
    patience: Duration,
    /// Why the last commit had no effect.
    trouble: Option<Error>,
}

struct Flight {
    places: BTreeMap<Key, Had>,
    orders: Vec<(Order, Instant)>,
}

impl Offsets {
    /// `patience`: how long the application waits for a commit that it has asked for.
    pub(super) fn new(
        interval: Duration,
        by_hand: bool,
        patience: Duration,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Self {
        Self {
            known: BTreeMap::new(),
            refused: BTreeMap::new(),
            in_flight: None,
            by_hand,
            interval,
            due: now + jittered(interval, rng),
            urgent: false,
            not_before: None,
            backoff: Backoff::default(),
            orders: Vec::new(),
            patience,
            trouble: None,
        }
    }

    /// What the group has of a partition, as it said.
    pub(super) fn found(&mut self, key: Key, place: Option<Place>) {
        match place {
            Some(place) => drop(self.known.insert(key, (place, None))),
            None => drop(self.known.remove(&key)),
        }
    }

    /// A partition is not this member's any more.
    pub(super) fn forget(&mut self, key: &Key) {
        self.known.remove(key);
        self.refused.remove(key);
    }

    /// What is done is to be committed without a wait.
    pub(super) fn hurry(&mut self) {
        self.urgent = !self.by_hand;
    }

    pub(super) fn order(&mut self, order: Order, now: Instant) {
        self.orders.push((order, now + self.patience));
    }

    /// Those that have waited long enough are told. Whether somebody still waits for them says nothing: who has given up waiting
    /// wanted the commit.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<(Order, Instant)> =
            self.orders.extract_if(.., |(_, until)| *until <= now).collect();
        for (order, _) in over {
            let late = || Error::timeout("a commit", self.patience);
            answer(order, Err(self.trouble.clone().unwrap_or_else(late)));
        }
    }

    /// Whether something is to be committed now, if there is anything.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let wanted = self.urgent || !self.orders.is_empty() || !self.by_hand && self.due <= now;
        self.in_flight.is_none() && wanted && self.not_before.is_none_or(|at| at <= now)
    }

    /// When to look again, if anything may be committed.
    pub(super) fn wake(&self) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = (!self.by_hand).then_some(self.due);
        match (self.urgent || !self.orders.is_empty(), self.not_before) {
            (true, Some(at)) => Some(at),
            (true, None) => due,
            (false, at) => due.map(|due| at.map_or(due, |at| at.max(due))),
        }
    }

    /// When the first of those who wait for a commit has waited long enough.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.orders.iter().map(|(_, until)| *until).min()
    }

    /// The next commit, of what can be; `None`: the group has all of it.
    pub(super) fn begin(
        &mut self,
        committable: Vec<(Key, Place, u64)>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Places> {
        self.due = now + jittered(self.interval, rng);
        self.urgent = false;
        let orders = std::mem::take(&mut self.orders);
        // Who asks for it by hand hears what the group says to it now.
        let by_hand = !orders.is_empty();
        let mut places: BTreeMap<Key, Had> = BTreeMap::new();
        let mark = |places: &mut BTreeMap<Key, Had>| {
            for (key, place, incarnation) in &committable {
                let new = (*place, *incarnation);
                let has = is_same(self.known.get(key), new);
                let is_told = !by_hand && is_same(self.refused.get(key), new);
                // It may have been put elsewhere by an order that came before.
                if places.contains_key(key) || !has && !is_told {
                    places.insert(key.clone(), (*place, Some(*incarnation)));
                }
            }
        };
        if !self.by_hand {
            mark(&mut places);
        }
        // In the order in which they were given: the last word about a partition counts.
        for (order, _) in &orders {
            match &order.places {
                Some(named) => {
                    places.extend(named.iter().map(|(key, place)| (key.clone(), (*place, None))));
                }
                None => mark(&mut places),
            }
        }
        if places.is_empty() {
            orders.into_iter().for_each(|(order, _)| answer(order, Ok(())));
            return None;
        }
        let sent = places.iter().map(|(key, (place, _))| (key.clone(), *place)).collect();
        self.in_flight = Some(Flight { places, orders });
        Some(sent)
    }

    /// The commit was answered: what each partition was refused for.
    pub(super) fn answered(
        &mut self,
        is_mine: impl Fn(&Key) -> bool,
        refusal: impl Fn(&Key) -> Option<Error>,
    ) {
        let Some(Flight { places, orders }) = self.in_flight.take() else { return };
        for (order, _) in orders {
            // Who has named partitions hears of those.
            let first = match &order.places {
                Some(named) => named.keys().find_map(&refusal),
                None => places.keys().find_map(&refusal),
            };
            answer(order, first.map_or(Ok(()), Err));
        }
        for (key, had) in places.into_iter().filter(|(key, _)| is_mine(key)) {
            if refusal(&key).is_some() {
                self.refused.insert(key, had);
            } else {
                self.refused.remove(&key);
                self.known.insert(key, had);
            }
        }
        self.backoff.reset();
        (self.not_before, self.trouble) = (None, None);
    }

    /// Nobody knows of any of it, or it was refused for now: it is tried again with what is newest then.
    pub(super) fn failed(&mut self, error: &Error, now: Instant, rng: &mut impl Rng) {
        let Some(Flight { orders, .. }) = self.in_flight.take() else { return };
        self.orders.splice(0..0, orders);
        self.urgent = !self.by_hand;
        self.not_before = Some(now + self.backoff.next(rng));
        self.trouble = Some(error.clone());
    }

    /// There is no membership that anything could be committed for.
    pub(super) fn lost(&mut self, error: &Error) {
        self.known.clear();
        self.refused.clear();
        self.urgent = false;
        self.not_before = None;
        for (order, _) in self.orders.drain(..) {
            answer(order, Err(error.clone()));
        }
    }

    /// Another cluster has taken the place of the old one. What is in flight is never answered, and says nothing of this
    /// one.
    pub(super) fn begin_anew(&mut self, error: &Error) {
        let flight = self.in_flight.take();
        for (order, _) in flight.into_iter().flat_map(|flight| flight.orders) {
            answer(order, Err(error.clone()));
        }
        self.lost(error);
    }

    /// Whether the group has what is done of these partitions, as far as it ever will.
    pub(super) fn has(&self, committable: &[(Key, Place, u64)], of: &[Key]) -> bool {
        let is_there = |(key, place, incarnation): &(Key, Place, u64)| {
            let had = [&self.known, &self.refused];
            had.iter().any(|had| is_same(had.get(key), (*place, *incarnation)))
        };
        self.by_hand || committable.iter().filter(|(key, ..)| of.contains(key)).all(is_there)
    }
}

fn answer(order: Order, result: Result<()>) {
    // Nobody may wait any more.
    let _ = order.reply.send(result);
}

/// Members of a group, and groups of a cluster, do not commit together.
fn jittered(interval: Duration, rng: &mut impl Rng) -> Duration {
    interval.mul_f64(rng.random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::error::ErrorKind;

    /// Its answer would come through a channel that is gone.
    #[test]
    fn what_is_in_flight_as_another_cluster_takes_over_holds_nothing_up() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut offsets =
            Offsets::new(Duration::from_secs(5), false, Duration::from_secs(30), now, &mut rng);
        let key: Key = (Arc::from("t"), 0);
        let (reply, mut told) = oneshot::channel();
        offsets.order(Order { places: None, reply }, now);
        assert!(offsets.begin(vec![(key.clone(), (5, 0), 1)], now, &mut rng).is_some());
        offsets.begin_anew(&Error::new(ErrorKind::Fenced, "another cluster"));
        assert_eq!(told.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Fenced);
        offsets.hurry();
        assert!(offsets.is_due(now));
        assert!(offsets.begin(vec![(key, (5, 0), 1)], now, &mut rng).is_some());
    }

    /// Who commits by hand what was done, after it has put the group somewhere else, wants the former.
    #[test]
    fn the_last_word_about_a_partition_counts() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let patience = Duration::from_secs(30);
        let mut offsets = Offsets::new(Duration::from_secs(5), true, patience, now, &mut rng);
        let (t, u): (Key, Key) = ((Arc::from("t"), 0), (Arc::from("u"), 0));
        let named = |key: &Key, at| Some(Places::from([(key.clone(), (at, -1))]));
        let done = || vec![(t.clone(), (20, 0), 1)];
        let order = |offsets: &mut Offsets, places| {
            let (reply, told) = oneshot::channel();
            offsets.order(Order { places, reply }, now);
            told
        };
        let mut told = vec![
            order(&mut offsets, named(&t, 5)),
            order(&mut offsets, named(&u, 3)),
            order(&mut offsets, None),
        ];
        let sent = offsets.begin(done(), now, &mut rng).unwrap();
        assert_eq!(sent, Places::from([(t.clone(), (20, 0)), (u.clone(), (3, -1))]));
        // The same when it is made again, with one that was asked for meanwhile.
        offsets.failed(&Error::timeout("a commit", patience), now, &mut rng);
        told.push(order(&mut offsets, named(&t, 6)));
        let sent = offsets.begin(done(), now, &mut rng).unwrap();
        assert_eq!(sent, Places::from([(t.clone(), (6, -1)), (u.clone(), (3, -1))]));
        told.push(order(&mut offsets, None));
        offsets.answered(|_| true, |_| None);
        assert!(told[..4].iter_mut().all(|told| told.try_recv().unwrap().is_ok()));
        let sent = offsets.begin(done(), now, &mut rng).unwrap();
        assert_eq!(sent, Places::from([(t.clone(), (20, 0))]));
    }

    /// What was asked for is done, or told as failed, whether somebody listens or not.
    #[test]
    fn a_commit_that_nobody_waits_for_any_more_is_made_all_the_same() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let patience = Duration::from_secs(30);
        let mut offsets = Offsets::new(Duration::from_secs(5), true, patience, now, &mut rng);
        let key: Key = (Arc::from("t"), 0);
        let (reply, told) = oneshot::channel();
        offsets.order(Order { places: Some(Places::from([(key.clone(), (5, -1))])), reply }, now);
        drop(told);
        offsets.expire(now + patience / 2);
        assert!(offsets.is_due(now));
        let sent = offsets.begin(Vec::new(), now, &mut rng).unwrap();
        assert_eq!(sent, Places::from([(key, (5, -1))]));
        offsets.failed(&Error::timeout("a commit", patience), now, &mut rng);
        // Not for ever.
        offsets.expire(now + patience);
        assert_eq!(offsets.expires(), None);
    }
}
