//! What the machine wants done, and what comes of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::machine::{self, Request};
use super::{Giving, Member, NAMELESS, News, Of, Part as Owned, Stage, leader};
use crate::caught::caught;
use crate::consumer::buffer::Key;
use crate::consumer::event::Event;
use crate::consumer::fetcher::outlook;
use crate::consumer::group::assignors::{self, Joining};
use crate::consumer::group::calls::{Calls, Failure, Membership, Offer};
use crate::consumer::group::classic;
use crate::consumer::group::events::{self, Action, Outcome, Part, RequestId, Trouble, Why};
use crate::consumer::group::wire::{Assignment, Partitions};
use crate::consumer::{StreamEnd, TopicPartition};
use crate::error::names::{self as code, NONE};
use crate::error::{Error, ErrorKind};
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::spell::Outlook;

impl Member {
    /// Makes a call beside the task, which hears of it once: `lost` of a panic.
    pub(super) fn ask(
        &self,
        lost: impl FnOnce(Error) -> News + Send + 'static,
        call: impl Future<Output = News> + Send + 'static,
    ) {
        let tx = self.tx.clone();
        self.env.spawn(async move {
            let news = caught(call).await.unwrap_or_else(lost);
            // The task may have ended.
            let _ = tx.send(news);
        });
    }

    /// The same for a request of the machine's.
    pub(super) fn request(&self, id: RequestId, call: impl Future<Output = News> + Send + 'static) {
        self.ask(move |e| News::Lost { id, failure: Failure::Lost(e) }, call);
    }

    pub(super) fn act(&mut self, action: Action<Request>, now: Instant) {
        match action {
            Action::FindCoordinator { id } => {
                if let Some(coordinator) = self.choice.coordinator.take() {
                    // It was found a moment ago.
                    let _ = self.tx.send(News::Coordinator { id, found: Ok(coordinator) });
                    return;
                }
                let (pool, group) = (self.pool.clone(), Arc::clone(&self.config.id));
                let lost = move |e| News::Coordinator { id, found: Err(e) };
                self.ask(lost, async move {
                    News::Coordinator { id, found: pool.find_coordinator(&group).await }
                });
            }
            Action::Send { id, timeout, request, .. } => self.send(id, timeout, request),
            Action::Abandon { .. } => {
                if let Some((_, coordinator)) = self.coordinator {
                    self.calls.hang_up(coordinator);
                }
            }
            Action::Plan { join, assign } => self.plan(join, assign),
            Action::Take { parts } => {
                let keys: Vec<Key> = parts.iter().map(key).collect();
                self.takes += 1;
                let stage = Stage::Looking(self.takes);
                for of in &parts {
                    // Classic: a topic is what has the name.
                    let was = match of.topic_id.is_nil() {
                        true => of.topic_id,
                        false => self.id_of(&of.topic),
                    };
                    self.parts.insert(key(of), Owned { topic: of.topic_id, was, stage });
                }
                // They wait for none that the group was not asked about well.
                self.look_at = None;
                if keys.is_empty() {
                    self.buffer.announce(Event::Assigned(Vec::new()));
                }
            }
            Action::GiveUp { round, parts, deadline } => {
                let keys: Vec<Key> = parts.iter().map(key).collect();
                self.buffer.withhold(&keys);
                let told = self.told_of(&keys);
                let event = match told.is_empty() {
                    true => 0,
                    false => {
                        let partitions = named(&told);
                        self.buffer.announce(Event::GivingUp { partitions, deadline })
                    }
                };
                self.givings.push(Giving::new(round, keys, event, now, deadline));
                self.offsets.hurry();
            }
            Action::Drop { parts, why } => {
                let keys: Vec<Key> = parts.iter().map(key).collect();
                let told = self.told_of(&keys);
                self.offsets.dropped(&keys, self.buffer.worked(&keys));
                let end = match why {
                    Why::GivenUp => StreamEnd::GivenUp,
                    Why::Lost => StreamEnd::Lost,
                };
                self.buffer.give_up(&keys, end);
                for key in &keys {
                    self.parts.remove(key);
                }
                self.givings.retain_mut(|giving| {
                    giving.keys.retain(|key| !keys.contains(key));
                    !giving.keys.is_empty()
                });
                if why == Why::Lost && !told.is_empty() {
                    self.buffer.announce(Event::Lost(named(&told)));
                }
            }
            Action::Halt => self.halted = true,
            Action::Resume => self.halted = false,
            Action::Tell(trouble) => self.buffer.fail(self.in_words(trouble)),
            Action::End(trouble) => {
                let error = self.in_words(trouble);
                self.offsets.lost(&error);
                self.buffer.end(error);
                self.ended = true;
            }
            Action::Closed => self.ended = true,
            Action::Resolve { .. } => {
                let within = NAMELESS.min(self.config.max_poll_interval / 4);
                self.nameless_until = Some(now + within);
                self.name_topics(RefreshReason::Stale);
            }
            Action::UseClassic => self.use_classic(),
        }
    }

    /// Those that the application knows to be its own.
    pub(super) fn told_of(&self, keys: &[Key]) -> Vec<Key> {
        let reads =
            |key: &&Key| self.parts.get(*key).is_some_and(|part| part.stage == Stage::Reading);
        keys.iter().filter(reads).cloned().collect()
    }

    fn in_words(&self, Trouble { code, during }: Trouble) -> Error {
        let what = format!("group '{}': {during}", self.config.id);
        let error = Error::broker(code, what, None);
        match code {
            code::FENCED_INSTANCE_ID => error.advise(
                "another consumer has this instance_id: give each running consumer its own",
            ),
            code::INCONSISTENT_GROUP_PROTOCOL => error.advise(
                "the members of the group have no assignor in common: see what they offer, and set assignors",
            ),
            code::INVALID_REGULAR_EXPRESSION => error.advise(
                "the brokers cannot read the pattern of topics: write it as RE2 has it",
            ),
            code::UNSUPPORTED_ASSIGNOR => error.advise(
                "the brokers have no such assignor (group.consumer.assignors): set remote_assignor to one of theirs, \
                 or leave it out",
            ),
            _ => error,
        }
    }

    fn send(&mut self, id: RequestId, timeout: Duration, request: Request) {
        let Some((_, coordinator)) = self.coordinator else {
            let answer = News::Answer { id, outcome: Outcome::NotSent, joined: None };
            let _ = self.tx.send(answer);
            return;
        };
        let calls = self.calls.within(timeout);
        match request {
            Request::Next(request) => self.beat(id, (coordinator, calls), request),
            Request::Classic(request) => self.send_classic(id, (coordinator, calls), request),
        }
    }

    fn send_classic(
        &mut self,
        id: RequestId,
        (coordinator, calls): (i32, Calls),
        request: classic::Request,
    ) {
        use classic::{Answer, Request};
        match request {
            Request::Join { member_id, topics, owned, owned_generation } => {
                let owned = by_topic(&owned);
                // Who is eager has given up what it had, and tells of it all the same where an assignor asks for it.
                let (held, generation) = match self.is_eager() {
                    true => (&self.history.0, self.history.1),
                    false => (&owned, owned_generation),
                };
                let rack = self.profile.rack.as_ref();
                let joining = Joining { topics: &topics, rack, held, generation };
                let offers = assignors::offers(self.config.assignors(), &joining);
                let offers: Vec<Offer> =
                    offers.into_iter().map(|(name, metadata)| Offer { name, metadata }).collect();
                let times = (self.config.session_timeout(), self.config.max_poll_interval);
                self.request(id, async move {
                    let joined = calls.join(coordinator, &member_id, &offers, times, "joins").await;
                    let refused = |code, named: Option<Arc<str>>| Answer::Join {
                        code,
                        member_id: named.unwrap_or_else(|| Arc::from("")),
                        generation: -1,
                        leader: false,
                        skip_assignment: false,
                    };
                    let (answer, joined) = match joined {
                        Ok(joined) => {
                            let answer = Answer::Join {
                                code: NONE,
                                member_id: Arc::clone(&joined.membership.member),
                                generation: joined.membership.generation,
                                leader: joined.leads,
                                skip_assignment: joined.skip_assignment,
                            };
                            (answer, Some(joined))
                        }
                        Err((Failure::Code(code, _), named)) => (refused(code, named), None),
                        Err((failure, _)) => return News::Lost { id, failure },
                    };
                    let outcome = Outcome::Answered(machine::Answer::Classic(answer));
                    News::Answer { id, outcome, joined }
                });
            }
            Request::Sync { member_id, generation, planned } => {
                let of = Membership { member: member_id, generation };
                let protocol = self.leader.protocol().to_owned();
                let plan = self.leader.plan(planned);
                // Without its plan the whole group would be given nothing.
                if planned.is_some() && plan.is_empty() {
                    let answer = News::Answer { id, outcome: Outcome::NotSent, joined: None };
                    let _ = self.tx.send(answer);
                    return;
                }
                self.request(id, async move {
                    let answer = match calls.sync(coordinator, &of, &protocol, plan).await {
                        Ok(bytes) => match Assignment::decode(&bytes) {
                            Ok(assignment) => {
                                let parts = parts(&assignment.partitions);
                                Answer::Sync { code: NONE, parts }
                            }
                            Err(e) => {
                                let words =
                                    format!("the leader's assignment cannot be read: {}", e.0);
                                let error = Error::new(ErrorKind::Corrupt, words);
                                return News::Lost { id, failure: Failure::Lost(error) };
                            }
                        },
                        Err(Failure::Code(code, _)) => Answer::Sync { code, parts: Vec::new() },
                        Err(failure) => return News::Lost { id, failure },
                    };
                    let outcome = Outcome::Answered(machine::Answer::Classic(answer));
                    News::Answer { id, outcome, joined: None }
                });
            }
            Request::Heartbeat { member_id, generation } => {
                let of = Membership { member: member_id, generation };
                let call = async move { coded(id, calls.heartbeat(coordinator, &of).await) };
                self.request(id, call);
            }
            Request::Leave { member_id } => {
                let reason = if self.closing { "is closed" } else { "max_poll_interval is over" };
                let call =
                    async move { coded(id, calls.leave(coordinator, &member_id, reason).await) };
                self.request(id, call);
            }
        }
    }

    fn is_eager(&self) -> bool {
        !assignors::is_cooperative(self.config.assignors())
    }

    fn plan(&mut self, join: RequestId, assign: bool) {
        let joined = self.leader.joined.as_ref().filter(|(id, _)| *id == join);
        let Some((_, joined)) = joined.cloned() else {
            self.tell(events::Event::Planned { join, ok: false });
            return;
        };
        let pool = self.pool.clone();
        self.ask(move |e| News::Planned { join, plan: Err(e) }, async move {
            News::Planned { join, plan: leader::plan(&pool, &joined, assign).await }
        });
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Coordinator { id, found } => {
                let outcome = match found {
                    Ok(coordinator) => {
                        self.coordinator = Some((id, coordinator));
                        Outcome::Answered(NONE)
                    }
                    Err(e) => match e.broker_code() {
                        Some(code) => Outcome::Answered(code),
                        None => {
                            self.is_silent(&Failure::Unsent(e));
                            Outcome::NotSent
                        }
                    },
                };
                self.tell(events::Event::Coordinator { to: id, outcome });
            }
            News::Chosen(chosen) => self.chosen(chosen),
            News::Lost { id, failure } => {
                self.is_silent(&failure);
                self.tell(events::Event::Answer { to: id, outcome: lost(&failure) });
            }
            News::Answer { id, outcome, joined } => {
                self.silence.ended();
                if let Some(joined) = joined {
                    self.leader.begins(id, joined);
                }
                if let Outcome::Answered(machine::Answer::Classic(classic::Answer::Sync {
                    code: NONE,
                    parts,
                })) = &outcome
                {
                    let generation = self.machine.identity().map_or(-1, |of| of.generation);
                    self.history = (by_topic(parts), generation);
                }
                self.tell(events::Event::Answer { to: id, outcome });
            }
            News::Planned { join, plan } => {
                let ok = plan.is_ok();
                match plan {
                    Ok(plan) => self.leader.planned(join, plan),
                    Err(e) => self.is_silent(&Failure::Unsent(e)),
                }
                self.tell(events::Event::Planned { join, ok });
            }
            News::Found { of, found } => {
                self.looking = false;
                let failure = match found {
                    Ok(found) => {
                        // It bears no member's id: who is told this may have been given up long ago.
                        self.silence.ended();
                        if self.found(found) {
                            self.look_later();
                        } else {
                            self.look_backoff.reset();
                        }
                        return;
                    }
                    Err(failure) => failure,
                };
                self.look_later();
                self.refused(&failure, of);
            }
            News::Committed { of, answer } => self.committed(of, answer),
            News::Topics { of, seen } => self.looked_at_topics(of, seen),
            News::Names { of, seen } => self.heard_names(of, seen),
        }
    }

    /// A call beside the machine's was answered as a member's is.
    pub(super) fn is_alive(&mut self, Of { sent, since, .. }: Of) {
        self.silence.ended();
        self.tell(events::Event::Alive { sent, since });
    }

    /// The group does not say where it was in a partition. Told, unless it passes by itself soon.
    pub(super) fn refused_part(&mut self, (topic, partition): &Key, failure: &Failure) {
        let (Failure::Code(_, error) | Failure::Unsent(error) | Failure::Lost(error)) = failure;
        if outlook(error) != Outlook::Passing {
            let what = format_args!("topic '{topic}' partition {partition}");
            self.tell_of_offsets(error.clone().context(what));
        }
    }

    /// The same is not told again until all is well.
    pub(super) fn tell_of_offsets(&mut self, error: Error) {
        if self.offsets_told.replace(error.kind()) != Some(error.kind()) {
            self.buffer.fail(error);
        }
    }

    /// A call has no response: told once it has gone on for a while.
    pub(super) fn is_silent(&mut self, failure: &Failure) {
        let (Failure::Code(_, error) | Failure::Unsent(error) | Failure::Lost(error)) = failure;
        if self.silence.failed(outlook(error), self.env.now()) && !self.closing {
            let what = format_args!("the coordinator of group '{}'", self.config.id);
            self.buffer.fail(error.clone().context(what));
        }
    }

    /// A call beside the machine's own has failed as a whole.
    pub(super) fn refused(&mut self, failure: &Failure, Of { sent, found, .. }: Of) {
        match failure {
            Failure::Code(code, _) => {
                self.tell(events::Event::Refused { code: *code, sent, found });
            }
            Failure::Unsent(_) | Failure::Lost(_) => {
                self.is_silent(failure);
                self.tell(events::Event::CoordinatorLost { found });
            }
        }
    }
}

fn coded(id: RequestId, answer: Result<(), Failure>) -> News {
    let code = match answer {
        Ok(()) => NONE,
        Err(Failure::Code(code, _)) => code,
        Err(failure) => return News::Lost { id, failure },
    };
    let outcome = Outcome::Answered(machine::Answer::Classic(classic::Answer::Code(code)));
    News::Answer { id, outcome, joined: None }
}

fn lost<A>(failure: &Failure) -> Outcome<A> {
    match failure {
        Failure::Unsent(_) => Outcome::NotSent,
        Failure::Lost(e) if e.kind() == ErrorKind::Timeout => Outcome::TimedOut,
        Failure::Lost(_) | Failure::Code(..) => Outcome::Cut,
    }
}

fn key(part: &Part) -> Key {
    (Arc::clone(&part.topic), part.partition)
}

pub(super) fn named(keys: &[Key]) -> Vec<TopicPartition> {
    let named = |(topic, partition): &Key| TopicPartition {
        topic: Arc::clone(topic),
        partition: *partition,
    };
    keys.iter().map(named).collect()
}

fn parts(partitions: &Partitions) -> Vec<Part> {
    let of_topic = |(topic, numbers): &(Arc<str>, Vec<i32>)| {
        let topic = Arc::clone(topic);
        numbers.clone().into_iter().map(move |partition| Part {
            topic: Arc::clone(&topic),
            topic_id: uuid::Uuid::nil(),
            partition,
        })
    };
    partitions.iter().flat_map(of_topic).collect()
}

fn by_topic(parts: &[Part]) -> Partitions {
    let mut all = Partitions::new();
    for part in parts {
        match all.iter_mut().find(|(topic, _)| *topic == part.topic) {
            Some((_, numbers)) => numbers.push(part.partition),
            None => all.push((Arc::clone(&part.topic), vec![part.partition])),
        }
    }
    all
}
