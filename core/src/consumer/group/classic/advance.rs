//! What a member does of itself: what is due, and what follows from what it was told.

use super::*;

impl Classic {
    /// Does what is due.
    pub(super) fn advance(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        if self.is_there() && self.application.until().is_some_and(|until| until <= now) {
            self.application.give_up();
            self.leave_as_stale(now, out);
        }
        if self.giving.as_ref().is_some_and(|giving| giving.until <= now) {
            self.gave_up(now, out);
        }
        if let State::Leaving { until, .. } = self.state
            && until <= now
        {
            self.left(out);
        }
        if self.again && self.closing.is_none() {
            self.rejoin(now, out);
        }
        if self.needs_coordinator() && self.coordinator.is_due(now) {
            let id = RequestId(self.number());
            self.coordinator.asked(id);
            out.push(Action::FindCoordinator { id });
        }
        self.send_due(now, out);
        if self.coordinator.ready_at().is_some_and(|ready| ready <= now)
            && self.has_heartbeats()
            && self.heartbeat.flight.is_none()
            && self.heartbeat.due <= now
        {
            self.send_heartbeat(now, rng, out);
        }
        self.heed_silence(now, out);
    }

    /// The group is to be joined again, if it is possible now.
    pub(super) fn rejoin(&mut self, now: Instant, out: &mut Actions) {
        if !matches!(self.state, State::Stable) || self.giving.is_some() {
            return;
        }
        let mut parts = self.owned.clone();
        if !self.settings.eager {
            let topics = &self.subscription.topics;
            parts.retain(|part| !topics.contains(&part.topic));
        }
        self.state = State::ToJoin { not_before: now };
        if !parts.is_empty() {
            let within = self.settings.give_up_within(self.heartbeat.interval);
            self.give_up(parts, now + within, out);
        }
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
        if self.closing.is_some() {
            self.leave_at_last(now, out);
        }
    }

    pub(super) fn drop_parts(&mut self, parts: BTreeSet<Part>, why: Why, out: &mut Actions) {
        self.owned.retain(|part| !parts.contains(part));
        if !parts.is_empty() {
            out.push(Action::Drop { parts: parts.into_iter().collect(), why });
        }
    }

    /// Sends what the state waits to send.
    pub(super) fn send_due(&mut self, now: Instant, out: &mut Actions) {
        if let State::Planning { join, assign, plan_at } = &mut self.state
            && plan_at.is_some_and(|at| at <= now)
        {
            *plan_at = None;
            out.push(Action::Plan { join: *join, assign: *assign });
        }
        let Some(ready) = self.coordinator.ready_at() else { return };
        // Who reads on meanwhile is put out of the group if its JoinGroup has not come by then, and would hear of it
        // only with the next heartbeat: one that was lost without a trace is sent again before.
        let parked = if self.owned.is_empty() {
            self.settings.max_poll_interval + PARKED_RESERVE
        } else {
            self.settings.max_poll_interval * 2 / 3
        };
        match &mut self.state {
            State::ToJoin { not_before } if *not_before <= now && ready <= now => {
                if self.giving.is_some() || self.closing.is_some() {
                    return;
                }
                self.again = false;
                self.leader = false;
                let owned = if self.settings.eager { &BTreeSet::new() } else { &self.owned };
                let request = Request::Join {
                    member_id: Arc::clone(&self.member_id),
                    topics: self.subscription.topics.clone(),
                    owned: owned.iter().cloned().collect(),
                    owned_generation: self.owned_generation,
                };
                let flight = self.send(Lane::Group, parked, request, now, out);
                self.heartbeat.odd = 0;
                // A member that has no generation asks whether the coordinator is there once its JoinGroup should be.
                if self.generation < 0 {
                    self.heartbeat.due = now + self.heartbeat.interval;
                }
                self.state = State::Joining { flight };
            }
            State::ToSync { not_before, planned } if *not_before <= now && ready <= now => {
                let planned = *planned;
                let request = Request::Sync {
                    member_id: Arc::clone(&self.member_id),
                    generation: self.generation,
                    planned,
                };
                let flight = self.send(Lane::Group, parked, request, now, out);
                self.heartbeat.odd = 0;
                self.state = State::Syncing { flight, planned };
            }
            State::Leaving { flight: None, not_before, until } if *not_before <= now => {
                // Nobody else is to be spared: this is the last request.
                let (timeout, until) = (until.saturating_duration_since(now), *until);
                let request = Request::Leave { member_id: Arc::clone(&self.member_id) };
                let flight = self.send(Lane::Control, timeout, request, now, out);
                self.state = State::Leaving { flight: Some(flight), not_before: now, until };
            }
            _ => {}
        }
    }

    pub(super) fn send(
        &mut self,
        lane: Lane,
        timeout: Duration,
        request: Request,
        now: Instant,
        out: &mut Actions,
    ) -> Flight {
        let id = RequestId(self.number());
        out.push(Action::Send { id, lane, timeout, request });
        Flight { id, sent: now }
    }

    pub(super) fn send_heartbeat(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        let request = Request::Heartbeat {
            member_id: Arc::clone(&self.member_id),
            generation: self.generation,
        };
        // Time is left in the session for another coordinator.
        let timeout = self.settings.request_timeout.min(self.settings.session_timeout / 2);
        let flight = self.send(Lane::Control, timeout, request, now, out);
        self.heartbeat.flight = Some(Beat { flight, generation: self.generation });
        self.heartbeat.due = now + self.heartbeat.interval.mul_f64(rng.random_range(0.8..1.0));
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
        if matches!(self.state, State::Idle | State::Leaving { .. }) {
            self.state = State::ToJoin { not_before: now };
        }
    }

    /// The application has not come back: others are to have what it does not work on. A static member's partitions are
    /// kept for it until the session ends, as if it had crashed.
    pub(super) fn leave_as_stale(&mut self, now: Instant, out: &mut Actions) {
        self.abandon(out);
        let id = Arc::clone(&self.member_id);
        self.lose_all(out);
        self.again = false;
        self.state = State::Idle;
        if self.settings.instance_id.is_some() {
            return;
        }
        self.member_id = Arc::from("");
        if !id.is_empty() && self.coordinator.ready_at().is_some() {
            let timeout = self.settings.request_timeout;
            let flight =
                self.send(Lane::Control, timeout, Request::Leave { member_id: id }, now, out);
            let until = now + timeout;
            self.state = State::Leaving { flight: Some(flight), not_before: now, until };
        }
    }

    /// The membership is over, and whatever was ours may be somebody else's.
    pub(super) fn lose_all(&mut self, out: &mut Actions) {
        self.giving = None;
        let owned = self.owned.clone();
        self.drop_parts(owned, Why::Lost, out);
        self.generation = -1;
        self.owned_generation = -1;
        self.leader = false;
        self.heartbeat.flight = None;
        self.heartbeat.odd = 0;
        self.session.end();
    }

    /// Nobody waits for what is parked any more.
    pub(super) fn abandon(&mut self, out: &mut Actions) {
        if let State::Joining { flight } | State::Syncing { flight, .. } = self.state {
            out.push(Action::Abandon { id: flight.id });
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
        self.again = false;
        if !self.is_member() || self.owned.is_empty() {
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
        self.abandon(out);
        let id = Arc::clone(&self.member_id);
        self.lose_all(out);
        let stays = self.settings.instance_id.is_some() && !closing.leave;
        if stays || id.is_empty() || closing.deadline <= now {
            self.left(out);
            return;
        }
        self.state = State::Leaving { flight: None, not_before: now, until: closing.deadline };
    }

    /// The end of [`State::Leaving`].
    pub(super) fn left(&mut self, out: &mut Actions) {
        self.state = State::Idle;
        self.member_id = Arc::from("");
        if self.closing.is_some() {
            self.state = State::Ended;
            out.push(Action::Closed);
        }
    }
}
