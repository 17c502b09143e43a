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

/// See the module.
pub(super) struct Offsets {
    /// What the group has, as far as it is known here.
    known: Places,
    /// What it does not take, of partitions that it says that of: not said again.
    refused: Places,
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
    orders: Vec<Order>,
}

struct Flight {
    places: Places,
    orders: Vec<Order>,
}

impl Offsets {
    pub(super) fn new(interval: Duration, by_hand: bool, now: Instant, rng: &mut impl Rng) -> Self {
        Self {
            known: Places::new(),
            refused: Places::new(),
            in_flight: None,
            by_hand,
            interval,
            due: now + jittered(interval, rng),
            urgent: false,
            not_before: None,
            backoff: Backoff::default(),
            orders: Vec::new(),
        }
    }

    /// What the group has of a partition, as it said.
    pub(super) fn found(&mut self, key: Key, place: Option<Place>) {
        match place {
            Some(place) => drop(self.known.insert(key, place)),
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

    pub(super) fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// Whether something is to be committed now, if there is anything.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let wanted = self.urgent || !self.orders.is_empty() || !self.by_hand && self.due <= now;
        self.in_flight.is_none() && wanted && self.not_before.is_none_or(|at| at <= now)
    }

    /// When to look again.
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

    /// The next commit, of what can be; `None`: the group has all of it.
    pub(super) fn begin(
        &mut self,
        committable: Vec<(Key, Place)>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Places> {
        self.due = now + jittered(self.interval, rng);
        self.urgent = false;
        let orders = std::mem::take(&mut self.orders);
        let marks = !self.by_hand || orders.iter().any(|order| order.places.is_none());
        let mut places: Places = match marks {
            true => committable.into_iter().collect(),
            false => Places::new(),
        };
        for order in orders.iter().filter_map(|order| order.places.as_ref()) {
            places.extend(order.iter().map(|(key, place)| (key.clone(), *place)));
        }
        // Who asks for it by hand hears what the group says to it now.
        let by_hand = !orders.is_empty();
        let (known, refused) = (&self.known, &self.refused);
        places.retain(|key, place| {
            known.get(key) != Some(place) && (by_hand || refused.get(key) != Some(place))
        });
        if places.is_empty() {
            orders.into_iter().for_each(|order| answer(order, Ok(())));
            return None;
        }
        let flight = Flight { places: places.clone(), orders };
        self.in_flight = Some(flight);
        Some(places)
    }

    /// The commit was answered: which of its partitions were taken, and the first error.
    pub(super) fn answered(&mut self, taken: impl Fn(&Key) -> bool, error: Option<&Error>) {
        let Some(Flight { places, orders }) = self.in_flight.take() else { return };
        for (key, place) in places {
            if taken(&key) {
                self.refused.remove(&key);
                self.known.insert(key, place);
            } else {
                self.refused.insert(key, place);
            }
        }
        self.backoff.reset();
        self.not_before = None;
        for order in orders {
            answer(order, error.map_or(Ok(()), |e| Err(e.clone())));
        }
    }

    /// Nobody knows of any of it, or it was refused for now: it is tried again with what is newest then.
    pub(super) fn failed(&mut self, now: Instant, rng: &mut impl Rng) {
        let Some(Flight { orders, .. }) = self.in_flight.take() else { return };
        self.orders.splice(0..0, orders);
        self.urgent = !self.by_hand;
        self.not_before = Some(now + self.backoff.next(rng));
    }

    /// There is no membership that anything could be committed for.
    pub(super) fn lost(&mut self, error: &Error) {
        self.known.clear();
        self.refused.clear();
        self.urgent = false;
        self.not_before = None;
        for order in self.orders.drain(..) {
            answer(order, Err(error.clone()));
        }
    }

    /// Whether the group has what is done of these partitions, as far as it ever will.
    pub(super) fn has(&self, committable: &[(Key, Place)], of: &[Key]) -> bool {
        let is_there = |(key, place): &(Key, Place)| {
            [&self.known, &self.refused].iter().any(|of| of.get(key) == Some(place))
        };
        self.by_hand || committable.iter().filter(|(key, _)| of.contains(key)).all(is_there)
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
