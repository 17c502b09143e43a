//! Topics that are subscribed to by a pattern. The coordinator of a classic group knows names only: there each member looks
//! at all topics now and then, and names those that match. Under the next generation the coordinator matches, and what it
//! assigns has ids whose names are looked up.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::machine::Machine;
use super::{FirstSeen, LOOK_AGAIN, Member, News};
use crate::cluster::Lookup;
use crate::cluster::survey::{About, Seen};
use crate::consumer::group::auto::Protocol;
use crate::consumer::group::calls::Failure;
use crate::consumer::group::events::{self, Subscription};
use crate::consumer::group::wish::Wish;
use crate::error::Result;
use crate::policy::backoff::Backoff;
use crate::policy::metadata_refresh::RefreshReason;

/// How often all topics are looked at: as often as Java's client does (`metadata.max.age.ms`).
const PERIOD: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Patterns {
    /// Counts subscriptions: an answer about another one says nothing.
    number: u64,
    /// All topics were looked at for this one.
    looked: bool,
    asking: bool,
    /// Not before.
    at: Option<Instant>,
    backoff: Backoff,
    /// Names of ids are being asked for; not before.
    naming: bool,
    name_at: Option<Instant>,
}

impl Patterns {
    /// What was asked for is not heard.
    pub(super) fn answers_are_lost(&mut self) {
        (self.asking, self.naming, self.name_at) = (false, false, None);
    }

    /// What is being asked is not waited for.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { number: self.number + 1, ..Self::default() };
    }
}

impl Member {
    /// What the machine of a protocol is to say.
    pub(super) fn subscription(&self, protocol: Protocol) -> Subscription {
        match protocol {
            Protocol::Classic => Subscription { topics: self.topics.clone(), pattern: None },
            Protocol::Next => {
                let pattern = self.wish.pattern.as_ref().map(|pattern| Arc::clone(pattern.text()));
                Subscription { topics: self.wish.names.clone(), pattern }
            }
        }
    }

    /// Something else is subscribed to.
    pub(super) fn wants(&mut self, wish: Wish) {
        self.patterns.begin_anew();
        // Names that a pattern has found stay known for as long as they are read.
        self.topics = wish.names.clone();
        self.wish = wish;
        self.topics_in_use();
        self.learn();
        let protocol = match &self.machine {
            // It says so once it has looked.
            Machine::Classic(_) if self.wish.pattern.is_some() => return,
            Machine::Next(_) => Protocol::Next,
            Machine::Classic(_) | Machine::None { .. } => Protocol::Classic,
        };
        let subscription = self.subscription(protocol);
        self.tell(events::Event::Subscribed(subscription));
    }

    /// Those of a pattern's that are read, or were just named, stay among the topics that are looked up.
    fn topics_in_use(&mut self) {
        let read = self.parts.keys().map(|(topic, _)| topic);
        for topic in read {
            if !self.topics.contains(topic) {
                self.topics.push(Arc::clone(topic));
            }
        }
    }

    fn matches_itself(&self) -> bool {
        let classic = matches!(self.machine, Machine::Classic(_))
            || self.choice.fixed == Some(Protocol::Classic);
        self.wish.pattern.is_some() && classic
    }

    /// A classic member has to know the names before it joins.
    pub(super) fn has_to_look(&self) -> bool {
        self.wish.pattern.is_some() && !self.patterns.looked
    }

    /// When all topics are looked at next.
    pub(super) fn patterns_wake(&self) -> Option<Instant> {
        self.patterns.at.filter(|_| self.matches_itself() && !self.patterns.asking)
    }

    pub(super) fn look_at_topics(&mut self, now: Instant) {
        let patterns = &self.patterns;
        if !self.matches_itself() || patterns.asking || patterns.at.is_some_and(|at| at > now) {
            return;
        }
        self.patterns.asking = true;
        let (pool, of) = (self.pool.clone(), self.patterns.number);
        self.ask(move |e| News::Topics { of, seen: Err(e) }, async move {
            News::Topics { of, seen: pool.survey(About::All).await }
        });
    }

    pub(super) fn looked_at_topics(&mut self, of: u64, seen: Result<Vec<Seen>>) {
        if of != self.patterns.number {
            return;
        }
        self.patterns.asking = false;
        let now = self.env.now();
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.patterns.at = Some(now + self.patterns.backoff.next(&mut self.rng));
                return self.is_silent(&Failure::Unsent(error));
            }
        };
        self.silence.ended();
        self.patterns.backoff.reset();
        self.patterns.at = Some(now + PERIOD.mul_f64(self.rng.random_range(0.8..1.0)));
        let Some(pattern) = &self.wish.pattern else { return };
        let mut topics = self.wish.names.clone();
        for seen in seen {
            if !seen.internal && pattern.matches(&seen.name) && !topics.contains(&seen.name) {
                topics.push(seen.name);
            }
        }
        let later = std::mem::replace(&mut self.patterns.looked, true);
        let new = topics.iter().filter(|topic| later && !self.topics.contains(topic));
        // Such a topic is younger than the subscription: all of it is new.
        for topic in new {
            self.first_seen.insert(Arc::clone(topic), FirstSeen::default());
        }
        let changed = !later || topics != self.topics;
        self.topics = topics;
        self.first_seen.retain(|topic, _| self.topics.contains(topic));
        self.learn();
        if changed && matches!(self.machine, Machine::Classic(_)) {
            let subscription = self.subscription(Protocol::Classic);
            self.tell(events::Event::Subscribed(subscription));
        }
    }

    /// Asks for the names of topics that the coordinator knows by their ids.
    pub(super) fn ask_names(&mut self, ids: Vec<Uuid>) {
        let now = self.env.now();
        if self.patterns.naming || self.patterns.name_at.is_some_and(|at| at > now) {
            return;
        }
        (self.patterns.naming, self.patterns.name_at) = (true, Some(now + LOOK_AGAIN));
        let (pool, of) = (self.pool.clone(), self.patterns.number);
        self.ask(move |e| News::Names { of, seen: Err(e) }, async move {
            News::Names { of, seen: pool.survey(About::Ids(&ids)).await }
        });
    }

    pub(super) fn heard_names(&mut self, of: u64, seen: Result<Vec<Seen>>) {
        if of != self.patterns.number {
            return;
        }
        self.patterns.naming = false;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => return self.is_silent(&Failure::Unsent(error)),
        };
        self.silence.ended();
        self.topics = self.wish.names.clone();
        self.topics_in_use();
        let mut topics = Vec::with_capacity(seen.len());
        for Seen { name, id, .. } in seen {
            if !self.topics.contains(&name) {
                self.topics.push(Arc::clone(&name));
            }
            // Whoever reads it has to know the same.
            if let Lookup::Known(meta) = self.pool.metadata().lookup(&name)
                && meta.id != id
            {
                self.pool.metadata().want(&name, RefreshReason::Stale);
            }
            topics.push((id, name));
        }
        self.first_seen.retain(|topic, _| self.topics.contains(topic));
        if !topics.is_empty() {
            self.tell(events::Event::Named { topics });
        }
        self.learn();
    }
}
