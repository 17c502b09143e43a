//! Which protocol a member speaks, and what only one of the next generation needs.

use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::machine::{Answer, Machine};
use super::{Member, News};
use crate::cluster::Lookup;
use crate::consumer::group::auto::Protocol;
use crate::consumer::group::calls::{Calls, Failure};
use crate::consumer::group::events::{self, Outcome, RequestId};
use crate::consumer::group::next::{Answer as Beaten, Request};
use crate::consumer::group::settings::GroupProtocol;
use crate::error::names::UNSUPPORTED_VERSION;
use crate::error::{Error, ErrorKind};
use crate::policy::backoff::Backoff;
use crate::policy::metadata_refresh::RefreshReason;

/// How the protocol is found.
#[derive(Default)]
pub(super) struct Choice {
    /// Somebody is being asked.
    asking: bool,
    /// Not before.
    at: Option<Instant>,
    backoff: Backoff,
    /// Known once and for all, for as long as this cluster is there.
    pub(super) fixed: Option<Protocol>,
    /// Who was the coordinator then: the first to be asked.
    pub(super) coordinator: Option<i32>,
}

impl Member {
    /// When the group is to be looked at again.
    pub(super) fn choice_wake(&self) -> Option<Instant> {
        let waits = matches!(self.machine, Machine::None { wanted: true }) && !self.choice.asking;
        self.choice.at.filter(|_| waits)
    }

    /// Becomes a member of either protocol, once the application wants one.
    pub(super) fn choose(&mut self, now: Instant) {
        let wanted = matches!(self.machine, Machine::None { wanted: true });
        if !wanted || self.choice.asking || self.choice.at.is_some_and(|at| at > now) {
            return;
        }
        if let Some(fixed) = self.choice.fixed {
            return self.become_one(fixed);
        }
        match self.config.protocol {
            GroupProtocol::Classic => return self.become_one(Protocol::Classic),
            GroupProtocol::Next => return self.become_one(Protocol::Next),
            GroupProtocol::Auto => {}
        }
        self.choice.asking = true;
        let (pool, group) = (self.pool.clone(), Arc::clone(&self.config.id));
        let (calls, classic_only) = (self.calls.clone(), self.config.is_classic_only());
        self.ask(|e| News::Chosen(Err(Failure::Lost(e))), async move {
            let coordinator = match pool.find_coordinator(&group).await {
                Ok(coordinator) => coordinator,
                Err(e) => return News::Chosen(Err(Failure::Unsent(e))),
            };
            let chosen = calls.choose(coordinator, classic_only).await;
            News::Chosen(chosen.map(|protocol| (protocol, coordinator)))
        });
    }

    pub(super) fn chosen(&mut self, chosen: Result<(Protocol, i32), Failure>) {
        self.choice.asking = false;
        match chosen {
            Ok((protocol, coordinator)) => {
                self.silence.ended();
                self.choice.coordinator = Some(coordinator);
                self.choice.at = None;
                self.become_one(protocol);
            }
            Err(failure) => {
                self.choice.at = Some(self.env.now() + self.choice.backoff.next(&mut self.rng));
                self.is_silent(&failure);
            }
        }
    }

    fn become_one(&mut self, protocol: Protocol) {
        if protocol == Protocol::Classic && self.has_to_look() {
            // It joins once it knows what.
            (self.choice.fixed, self.choice.at) = (Some(protocol), None);
            if !matches!(self.machine, Machine::None { .. }) {
                self.replace(Machine::None { wanted: true });
            }
            return self.look_at_topics(self.env.now());
        }
        let (now, settings) = (self.env.now(), self.settings.clone());
        let subscription = self.subscription(protocol);
        let rng: &mut StdRng = &mut self.rng;
        let machine = match protocol {
            Protocol::Classic => Machine::classic(settings, subscription, now),
            Protocol::Next => Machine::next(settings, subscription, now, rng),
        };
        self.replace(machine);
        self.tell(events::Event::Asks);
        self.tell_absence(now);
    }

    /// Answers that are under way have numbers of the machine before.
    pub(super) fn replace(&mut self, machine: Machine) {
        self.machine = machine;
        self.patterns.answers_are_lost();
        (self.tx, self.rx) = mpsc::unbounded_channel();
    }

    /// The coordinator does not take members of the next generation into this group.
    pub(super) fn use_classic(&mut self) {
        if self.config.protocol == GroupProtocol::Auto {
            return self.become_one(Protocol::Classic);
        }
        let words = format!(
            "group '{}' takes no members of the next generation: the brokers do not know it (or no patterns of \
             topics), or the group is a classic one that may not be converted",
            self.config.id
        );
        let error = Error::new(ErrorKind::UnsupportedVersion, words)
            .advise("set group_protocol to auto or classic");
        self.offsets.lost(&error);
        self.buffer.end(error);
        self.ended = true;
    }

    /// Tells the machine the names of topics that it knows by their ids, and has those looked up that are still unknown.
    pub(super) fn name_topics(&mut self, why: RefreshReason) {
        let Machine::Next(machine) = &self.machine else { return };
        let mut unknown: Vec<Uuid> = machine.unnamed().collect();
        if unknown.is_empty() {
            return;
        }
        let mut named = Vec::new();
        for topic in &self.topics {
            if let Lookup::Known(meta) = self.pool.metadata().lookup(topic)
                && let Some(at) = unknown.iter().position(|id| *id == meta.id)
            {
                named.push((unknown.swap_remove(at), Arc::clone(topic)));
            }
        }
        // A topic made anew, or one that was not there: what is known of the names is old.
        if !unknown.is_empty() {
            for topic in &self.wish.names {
                self.pool.metadata().want(topic, why);
            }
            if self.wish.pattern.is_some() {
                self.ask_names(unknown);
            }
        }
        if !named.is_empty() {
            self.tell(events::Event::Named { topics: named });
        }
    }

    pub(super) fn beat(
        &mut self,
        id: RequestId,
        (coordinator, calls): (i32, Calls),
        request: Request,
    ) {
        let (profile, turn) = (self.profile.clone(), self.turns.next());
        self.request(id, async move {
            let answer = match calls.beat(coordinator, request, &profile, turn).await {
                Ok(answer) => answer,
                // It does not know this request at all.
                Err(Failure::Unsent(e)) if e.kind() == ErrorKind::UnsupportedVersion => Beaten {
                    code: UNSUPPORTED_VERSION,
                    epoch: -1,
                    interval_ms: 0,
                    assignment: None,
                },
                Err(failure) => return News::Lost { id, failure },
            };
            News::Answer { id, outcome: Outcome::Answered(Answer::Next(answer)), joined: None }
        });
    }
}
