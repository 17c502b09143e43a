//! What is to be committed, when, and what of it the group has already. One commit is in flight at a time, and carries what
//! is newest when it is made: so a retry never takes back what a later one has said. No I/O.
//!
//! A commit that the application has asked for is only said to be made if the group has all that was done until then: what
//! has gone with a partition before it could be committed is told once, to who asks for a commit next.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::consumer::buffer::Key;
use crate::consumer::marks::Place;
use crate::error::{Error, ErrorKind, Result};
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
    orders: Vec<Waiting>,
    /// How many there were.
    numbers: u64,
    patience: Duration,
    /// Up to where partitions were worked on that have gone before the group had it.
    gone: BTreeMap<Key, i64>,
    /// Why the last commit had no effect.
    trouble: Option<Error>,
}

struct Flight {
    places: BTreeMap<Key, Had>,
    orders: Vec<Waiting>,
}

/// An order, and until when it waits.
struct Waiting {
    order: Order,
    until: Instant,
    number: u64,
    /// A partition that it names was ours, and is not any more: it is not made again.
    over: Option<Key>,
}

impl Waiting {
    /// Whether it is about one of these.
    fn is_of(&self, keys: &[Key]) -> bool {
        match &self.order.places {
            Some(places) => keys.iter().any(|key| places.contains_key(key)),
            None => true,
        }
    }
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
            numbers: 0,
            patience,
            gone: BTreeMap::new(),
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

    /// These are not this member's any more. `worked`: up to where the application has worked on them, or does still.
    pub(super) fn dropped(&mut self, keys: &[Key], worked: Vec<(Key, i64)>) {
        for (key, at) in worked {
            let had = [&self.known, &self.refused].map(|had| had.get(&key));
            if !had.into_iter().flatten().any(|((of, _), _)| *of >= at) {
                self.gone.insert(key, at);
            }
        }
        // By now it may be somebody else's who goes on behind that.
        let names = |waiting: &Waiting| {
            let places = waiting.order.places.as_ref();
            places.and_then(|places| keys.iter().find(|key| places.contains_key(*key))).cloned()
        };
        for waiting in self.in_flight.iter_mut().flat_map(|flight| &mut flight.orders) {
            waiting.over = waiting.over.take().or_else(|| names(waiting));
        }
        let over: Vec<Waiting> =
            self.orders.extract_if(.., |waiting| names(waiting).is_some()).collect();
        for waiting in over {
            let key = names(&waiting);
            answer(waiting.order, key.map_or(Ok(()), |key| Err(has_gone(&key))));
        }
        for key in keys {
            self.known.remove(key);
            self.refused.remove(key);
        }
    }

    /// What is done is to be committed without a wait.
    pub(super) fn hurry(&mut self) {
        self.urgent = !self.by_hand;
    }

    pub(super) fn order(&mut self, order: Order, now: Instant) {
        self.numbers += 1;
        let (until, number) = (now + self.patience, self.numbers);
        self.orders.push(Waiting { order, until, number, over: None });
    }

    /// The number of the last order that came.
    pub(super) fn last_order(&self) -> u64 {
        self.numbers
    }

    /// Orders that are not answered yet.
    fn pending(&self) -> impl Iterator<Item = &Waiting> {
        self.orders.iter().chain(self.in_flight.iter().flat_map(|flight| &flight.orders))
    }

    /// Whether any is left.
    pub(super) fn has_orders(&self) -> bool {
        self.pending().next().is_some()
    }

    /// Whether any is left about these partitions, of those up to a number.
    pub(super) fn owes(&self, of: &[Key], last: u64) -> bool {
        self.pending().any(|waiting| waiting.number <= last && waiting.is_of(of))
    }

    /// Those that have waited long enough are told. Whether somebody still waits for them says nothing: who has given up waiting
    /// wanted the commit.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<Waiting> =
            self.orders.extract_if(.., |waiting| waiting.until <= now).collect();
        for waiting in over {
            let late = || Error::timeout("a commit", self.patience);
            answer(waiting.order, Err(self.trouble.clone().unwrap_or_else(late)));
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
        self.orders.iter().map(|waiting| waiting.until).min()
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
        for waiting in &orders {
            match &waiting.order.places {
                Some(named) => {
                    places.extend(named.iter().map(|(key, place)| (key.clone(), (*place, None))));
                }
                None => mark(&mut places),
            }
        }
        if places.is_empty() {
            self.conclude(orders, |_| None);
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
        for (key, (place, _)) in places.iter().filter(|(key, _)| refusal(key).is_none()) {
            if self.gone.get(key).is_some_and(|at| *at <= place.0) {
                self.gone.remove(key);
            }
        }
        let is_marked = |(key, had): (&Key, &Had)| had.1.is_some().then(|| key.clone());
        let marked: Vec<Key> = places.iter().filter_map(is_marked).collect();
        for (key, had) in places.into_iter().filter(|(key, _)| is_mine(key)) {
            if refusal(&key).is_some() {
                self.refused.insert(key, had);
            } else {
                self.refused.remove(&key);
                self.known.insert(key, had);
            }
        }
        if !self.by_hand && orders.iter().all(|waiting| waiting.order.places.is_some()) {
            // Long ago, for who asks for a commit some day.
            self.gone.clear();
        }
        self.conclude(orders, |named_by| match named_by {
            // Who has named partitions hears of those.
            Some(keys) => keys.keys().find_map(&refusal),
            None => marked.iter().find_map(&refusal),
        });
        self.backoff.reset();
        (self.not_before, self.trouble) = (None, None);
    }

    /// Those that were made are told, unless `refusal` says otherwise of what they name.
    fn conclude(
        &mut self,
        orders: Vec<Waiting>,
        refusal: impl Fn(Option<&Places>) -> Option<Error>,
    ) {
        let (known, gone) = (&self.known, &mut self.gone);
        // Others may have come past it, or this member itself, once it had the partition again.
        gone.retain(|key, at| known.get(key).is_none_or(|((of, _), _)| of < at));
        let lost = gone.keys().next().map(has_gone);
        let mut told = false;
        for Waiting { order, .. } in orders {
            let mut error = refusal(order.places.as_ref());
            if order.places.is_none() {
                told = true;
                error = error.or_else(|| lost.clone());
            }
            answer(order, error.map_or(Ok(()), Err));
        }
        if told {
            self.gone.clear();
        }
    }

    /// Nobody knows of any of it, or it was refused for now: it is tried again with what is newest then.
    pub(super) fn failed(&mut self, error: &Error, now: Instant, rng: &mut impl Rng) {
        let Some(Flight { mut orders, .. }) = self.in_flight.take() else { return };
        for waiting in orders.extract_if(.., |waiting| waiting.over.is_some()) {
            let key = waiting.over;
            answer(waiting.order, key.map_or(Ok(()), |key| Err(has_gone(&key))));
        }
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
        for Waiting { order, .. } in self.orders.drain(..) {
            if order.places.is_none() {
                self.gone.clear();
            }
            answer(order, Err(error.clone()));
        }
    }

    /// Another cluster has taken the place of the old one. What is in flight is never answered, and says nothing of this
    /// one.
    pub(super) fn begin_anew(&mut self, error: &Error) {
        let flight = self.in_flight.take();
        for waiting in flight.into_iter().flat_map(|flight| flight.orders) {
            answer(waiting.order, Err(error.clone()));
        }
        self.lost(error);
        self.gone.clear();
    }

    /// Whether nothing is committed unless it is asked for.
    pub(super) fn is_by_hand(&self) -> bool {
        self.by_hand
    }

    /// Whether the group has what is done of these partitions, as far as it ever will.
    pub(super) fn has(&self, committable: &[(Key, Place, u64)], of: &[Key]) -> bool {
        let is_there = |(key, place, incarnation): &(Key, Place, u64)| {
            let had = [&self.known, &self.refused];
            had.iter().any(|had| is_same(had.get(key), (*place, *incarnation)))
        };
        committable.iter().filter(|(key, ..)| of.contains(key)).all(is_there)
    }
}

fn has_gone((topic, partition): &Key) -> Error {
    let words = format!(
        "topic '{topic}' partition {partition} is not this consumer's any more, and what was done of it was not committed"
    );
    Error::new(ErrorKind::Fenced, words).advise("who has the partition now reads that again")
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
