//! Topics that are subscribed to by a pattern. The coordinator of a classic group knows names only: there each member looks
//! at all topics now and then, and names those that match. Under the next generation the coordinator matches, and what it
//! assigns has ids whose names are looked up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::machine::Machine;
use super::{LOOK_AGAIN, Member, News};
use crate::cluster::Lookup;
use crate::cluster::survey::{About, Seen};
use crate::consumer::fetcher::outlook;
use crate::consumer::group::auto::Protocol;
use crate::consumer::group::events::{self, Subscription};
use crate::consumer::group::look::Look;
use crate::consumer::group::wish::Wish;
use crate::environment::earlier;
use crate::error::{Error, Result};
use crate::policy::backoff::Backoff;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::spell::Spell;

/// How often all topics are looked at: as often as Java's client does (`metadata.max.age.ms`).
const PERIOD: Duration = Duration::from_secs(300);

/// A broker may be behind. What it leaves out is looked for once more, at another one, after so long.
const ONCE_MORE: Duration = Duration::from_secs(5);

/// Names of ids that nobody tells are asked for less and less often.
const NAMES: (Duration, Duration) = (LOOK_AGAIN, Duration::from_secs(300));

/// So many topics that were seen before are remembered.
const REMEMBERED: usize = 10_000;

pub(super) struct Patterns {
    /// Counts subscriptions: an answer about another one says nothing.
    number: u64,
    look: Look,
    asking: bool,
    /// Not before.
    at: Option<Instant>,
    backoff: Backoff,
    /// Names of ids are being asked for; not before.
    naming: bool,
    name_at: Option<Instant>,
    name_backoff: Backoff,
    /// Topics cannot be looked at.
    trouble: Spell,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            number: 0,
            look: Look::default(),
            asking: false,
            at: None,
            backoff: Backoff::default(),
            naming: false,
            name_at: None,
            name_backoff: Backoff::new(NAMES.0, NAMES.1),
            trouble: Spell::default(),
        }
    }
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
        self.topics = self.in_use(&wish);
        self.wish = wish;
        self.forget_others();
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

    /// Those that are named, and those of a pattern's that are read.
    fn in_use(&self, wish: &Wish) -> Vec<Arc<str>> {
        let read = self.parts.keys().map(|(topic, _)| topic).filter(|_| wish.pattern.is_some());
        let all: BTreeSet<&Arc<str>> = wish.names.iter().chain(read).collect();
        all.into_iter().cloned().collect()
    }

    /// What is known of topics that are not subscribed to any more goes in time.
    fn forget_others(&mut self) {
        let topics: BTreeSet<&Arc<str>> = self.topics.iter().collect();
        self.told.retain(|topic, _| topics.contains(topic));
        if self.first_seen.len() > REMEMBERED {
            self.first_seen.retain(|topic, _| topics.contains(topic));
        }
    }

    /// Topics that matched a pattern are not there any more. Of a classic group's the next look tells the machine.
    pub(super) fn are_gone(&mut self, gone: &[Arc<str>]) {
        if matches!(self.machine, Machine::Next(_)) && !gone.is_empty() {
            self.topics.retain(|topic| !gone.contains(topic));
        }
    }

    /// Topics cannot be looked at: told once that has lasted.
    fn is_blind(&mut self, error: Error) {
        let now = self.env.now();
        if self.patterns.trouble.failed(outlook(&error), now) && !self.closing {
            let what = format_args!("the topics that match for group '{}'", self.config.id);
            self.buffer.fail(error.context(what));
        }
    }

    fn matches_itself(&self) -> bool {
        let classic = matches!(self.machine, Machine::Classic(_))
            || self.choice.fixed == Some(Protocol::Classic);
        self.wish.pattern.is_some() && classic
    }

    /// A classic member has to know the names before it joins.
    pub(super) fn has_to_look(&self) -> bool {
        self.wish.pattern.is_some() && !self.patterns.look.done
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
        let not = self.patterns.look.not();
        self.ask(move |e| News::Topics { of, seen: Err(e) }, async move {
            News::Topics { of, seen: pool.survey(About::All, not).await }
        });
    }

    pub(super) fn looked_at_topics(&mut self, of: u64, seen: Result<(i32, Vec<Seen>)>) {
        if of != self.patterns.number {
            return;
        }
        self.patterns.asking = false;
        let now = self.env.now();
        let (by, seen) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.patterns.at = Some(now + self.patterns.backoff.next(&mut self.rng));
                return self.is_blind(error);
            }
        };
        let Some(pattern) = &self.wish.pattern else { return };
        let patterns = &mut self.patterns;
        let found = patterns.look.at(&self.wish, pattern, &self.topics, by, seen);
        // Such a topic is younger than the subscription: all of it is new.
        for topic in found.new {
            self.first_seen.entry(topic).or_default();
        }
        let period = if found.in_doubt { ONCE_MORE } else { PERIOD };
        patterns.at = Some(now + period.mul_f64(self.rng.random_range(0.8..1.0)));
        patterns.backoff.reset();
        patterns.trouble.ended();
        self.topics = found.topics;
        self.forget_others();
        self.learn();
        if found.changed && matches!(self.machine, Machine::Classic(_)) {
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
        let pause = self.patterns.name_backoff.next(&mut self.rng).max(LOOK_AGAIN);
        (self.patterns.naming, self.patterns.name_at) = (true, Some(now + pause));
        let (pool, of) = (self.pool.clone(), self.patterns.number);
        self.ask(move |e| News::Names { of, seen: Err(e) }, async move {
            let seen = pool.survey(About::Ids(&ids), None).await;
            News::Names { of, seen: seen.map(|(_, seen)| seen) }
        });
    }

    pub(super) fn heard_names(&mut self, of: u64, seen: Result<Vec<Seen>>) {
        if of != self.patterns.number {
            return;
        }
        self.patterns.naming = false;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.learn_at =
                    earlier(self.patterns.name_at, Some(self.learn_at)).unwrap_or(self.learn_at);
                return self.is_blind(error);
            }
        };
        self.patterns.trouble.ended();
        if !seen.is_empty() {
            self.patterns.name_backoff.reset();
        }
        let mut known: BTreeSet<Arc<str>> = self.in_use(&self.wish).into_iter().collect();
        let mut topics = Vec::with_capacity(seen.len());
        for Seen { name, id, .. } in seen {
            known.insert(Arc::clone(&name));
            // Whoever reads it has to know the same.
            if let Lookup::Known(meta) = self.pool.metadata().lookup(&name)
                && meta.id != id
            {
                self.pool.metadata().want(&name, RefreshReason::Stale);
            }
            topics.push((id, name));
        }
        self.topics = known.into_iter().collect();
        self.forget_others();
        if !topics.is_empty() {
            self.tell(events::Event::Named { topics });
        }
        self.learn();
    }
}
