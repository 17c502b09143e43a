//! What a member does of itself: what is due, and what follows from what it was told.

use super::*;

impl Next {
    /// Does what is due.
    pub(super) fn advance(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        if self.is_there() && self.application.until().is_some_and(|until| until <= now) {
            self.application.give_up();
            self.leave(Then::Stay, Some(now + self.settings.request_timeout), now, out);
        }
        if self.giving.as_ref().is_some_and(|giving| giving.until <= now) {
            self.gave_up(now, out);
        }
        if let State::Leaving { until: Some(until), then, .. } = self.state
            && until <= now
        {
            self.left(then, now, out);
        }
        if self.needs_coordinator() && self.coordinator.is_due(now) {
            let id = RequestId(self.number());
            self.coordinator.asked(id);
            out.push(Action::FindCoordinator { id });
        }
        self.send_due(now, rng, out);
        self.heed_silence(now, out);
    }

    pub(super) fn send_due(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        let Some(ready) = self.coordinator.ready_at() else { return };
        if let State::Leaving { flight: flight @ None, epoch, not_before, until, .. } =
            &mut self.state
            && *not_before <= now
        {
            // Behind a heartbeat that is on its way: the connection keeps the order, and the epoch is not looked at.
            self.numbers += 1;
            let id = RequestId(self.numbers);
            let sends = Flight { id, sent: now, epoch: *epoch, owned: false };
            *flight = Some(sends);
            let timeout = until.map_or(self.settings.request_timeout, |until| {
                until.saturating_duration_since(now)
            });
            let member_id = Arc::clone(&self.member_id);
            let request = Request { member_id, epoch: *epoch, all: None, owned: None };
            out.push(Action::Send { id, lane: Lane::Control, timeout, request });
            return;
        }
        if !self.is_member() || !self.may_beat() || ready > now || self.due > now {
            return;
        }
        let joins = matches!(self.state, State::Joining);
        let epoch = if joins { JOINS } else { self.epoch };
        let all = (joins || self.all).then(|| self.subscription.clone());
        let owned = (all.is_some() || self.tell_owned).then(|| self.places());
        let timeout = self.call_timeout();
        let id = RequestId(self.number());
        self.flight = Some(Flight { id, sent: now, epoch, owned: owned.is_some() });
        let request = Request { member_id: Arc::clone(&self.member_id), epoch, all, owned };
        out.push(Action::Send { id, lane: Lane::Control, timeout, request });
        self.due = now + self.interval.mul_f64(rng.random_range(0.8..1.0));
        // If either changes while this is on its way, it is told again.
        self.tell_owned = false;
        self.all = false;
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.owned.iter().map(|part| (part.topic_id, part.partition)).collect()
    }

    /// Moves towards what the coordinator wants us to have. What lies in a topic whose name is not known is neither taken
    /// nor given up.
    pub(super) fn reconcile(&mut self, now: Instant, out: &mut Actions) {
        let (Some(target), State::Member) = (&self.target, &self.state) else { return };
        if self.closing.is_some() {
            return;
        }
        let mut added = Vec::new();
        let mut unknown = BTreeSet::new();
        for (topic_id, partition) in target {
            match self.names.get(topic_id) {
                Some(topic) => {
                    let (topic, topic_id) = (Arc::clone(topic), *topic_id);
                    added.push(Part { topic, topic_id, partition: *partition });
                }
                None => {
                    unknown.insert(*topic_id);
                }
            }
        }
        // A partition is read by its name. One of a topic that was made anew waits until its namesake is given up.
        let names: BTreeSet<(&str, i32)> =
            self.owned.iter().map(|part| (&*part.topic, part.partition)).collect();
        added.retain(|part| !names.contains(&(&*part.topic, part.partition)));
        let stays = |part: &Part| target.contains(&(part.topic_id, part.partition));
        let revoked: BTreeSet<Part> =
            self.owned.iter().filter(|part| !stays(part)).cloned().collect();
        self.asked.retain(|id| unknown.contains(id));
        let new: Vec<Uuid> = unknown.difference(&self.asked).copied().collect();
        self.asked.extend(new.iter().copied());
        let (target, owned) = (&self.target, &self.owned);
        self.names.retain(|id, _| {
            target.iter().flatten().any(|(of, _)| of == id)
                || owned.iter().any(|part| part.topic_id == *id)
        });
        if !new.is_empty() {
            out.push(Action::Resolve { topics: new });
        }
        if !added.is_empty() {
            self.owned.extend(added.iter().cloned());
            // What comes with it is handed out only if the session is good.
            self.heed_silence(now, out);
            out.push(Action::Take { parts: added });
            self.tell_owned_now(now);
        }
        // What is to go besides waits for what goes.
        if !revoked.is_empty() && self.giving.is_none() {
            let within = self.settings.give_up_within(self.interval);
            self.give_up(revoked, now + within, out);
        }
    }

    pub(super) fn tell_owned_now(&mut self, now: Instant) {
        self.tell_owned = true;
        self.due = self.due.min(now);
    }

    pub(super) fn give_up(&mut self, parts: BTreeSet<Part>, until: Instant, out: &mut Actions) {
        let round = Round(self.number());
        let listed = parts.iter().cloned().collect();
        self.giving = Some(Giving { round, parts, until });
        out.push(Action::GiveUp { round, parts: listed, deadline: until });
    }

    /// What was to be given up is, or its time is up.
    pub(super) fn gave_up(&mut self, now: Instant, out: &mut Actions) {
        let Some(giving) = self.giving.take() else { return };
        self.drop_parts(giving.parts, Why::GivenUp, out);
        self.tell_owned_now(now);
        if self.closing.is_some() {
            self.leave_at_last(now, out);
        } else {
            // It may have been assigned to us again meanwhile.
            self.reconcile(now, out);
        }
    }

    pub(super) fn drop_parts(&mut self, parts: BTreeSet<Part>, why: Why, out: &mut Actions) {
        self.owned.retain(|part| !parts.contains(part));
        if !parts.is_empty() {
            out.push(Action::Drop { parts: parts.into_iter().collect(), why });
        }
    }

    /// Stops handing out when the session may be over, and goes on when it is not.
    pub(super) fn heed_silence(&mut self, now: Instant, out: &mut Actions) {
        let halt = !self.owned.is_empty() && self.session.is_over(now);
        if halt != std::mem::replace(&mut self.session.halted, halt) {
            out.push(if halt { Action::Halt } else { Action::Resume });
        }
    }

    /// The application waits for something.
    pub(super) fn asks(&mut self, now: Instant) {
        self.application.asks();
        if self.closing.is_some() {
            return;
        }
        match &mut self.state {
            State::Idle => self.join(now),
            // The join has to come behind it.
            State::Leaving { then, until, .. } => {
                *then = Then::Join;
                *until = None;
            }
            State::Joining | State::Member | State::Ended => {}
        }
    }

    pub(super) fn join(&mut self, not_before: Instant) {
        self.state = State::Joining;
        self.due = not_before;
    }

    /// The membership is over, and whatever was ours may be somebody else's.
    pub(super) fn lose_all(&mut self, out: &mut Actions) {
        self.giving = None;
        let owned = self.owned.clone();
        self.drop_parts(owned, Why::Lost, out);
        self.epoch = 0;
        self.target = None;
        self.asked.clear();
        self.names.clear();
        self.flight = None;
        self.all = true;
        self.tell_owned = false;
        self.session.end();
    }

    /// Leaves, and goes on so. Static members that will be back keep what they have.
    pub(super) fn leave(
        &mut self,
        then: Then,
        until: Option<Instant>,
        now: Instant,
        out: &mut Actions,
    ) {
        let may_be_known = self.epoch > 0 || self.doubt || self.flight.is_some();
        self.lose_all(out);
        let fixed = self.settings.instance_id.is_some();
        let for_good = self.closing.is_some_and(|closing| closing.leave);
        let epoch = if fixed && !for_good { LEAVES_FOR_NOW } else { LEAVES };
        let is_late = until.is_some_and(|until| until <= now);
        let is_of_use = then != Then::Stay || self.coordinator.found().is_some();
        if !may_be_known || is_late || !is_of_use {
            return self.left(then, now, out);
        }
        self.state = State::Leaving { flight: None, epoch, not_before: now, until, then };
    }

    /// The end of [`State::Leaving`].
    pub(super) fn left(&mut self, then: Then, now: Instant, out: &mut Actions) {
        match then {
            Then::Join => self.join(now),
            Then::Stay => self.state = State::Idle,
            Then::End => {
                self.state = State::Ended;
                out.push(Action::Closed);
            }
        }
    }

    pub(super) fn close(
        &mut self,
        deadline: Instant,
        leave: bool,
        now: Instant,
        out: &mut Actions,
    ) {
        if self.closing.is_some() || matches!(self.state, State::Ended) {
            return;
        }
        self.closing = Some(Closing { deadline, leave });
        if self.owned.is_empty() {
            self.leave_at_last(now, out);
            return;
        }
        let left = deadline.saturating_duration_since(now);
        let until = deadline - LEAVE_MOST.min(left / LEAVE_SHARE);
        self.give_up(self.owned.clone(), until, out);
    }

    /// All is given up: the last thing is to leave.
    pub(super) fn leave_at_last(&mut self, now: Instant, out: &mut Actions) {
        let Some(closing) = self.closing else { return };
        if let State::Leaving { until, then, .. } = &mut self.state {
            (*until, *then) = (Some(closing.deadline), Then::End);
        } else {
            self.leave(Then::End, Some(closing.deadline), now, out);
        }
    }
}
