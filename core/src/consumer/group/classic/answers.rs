//! What a member makes of the coordinator's responses. The codes: see `codes`. Those about an id and a generation count
//! only if the member has no others by now.

use super::*;

impl Classic {
    pub(super) fn looked_up(
        &mut self,
        to: RequestId,
        outcome: &Outcome<i16>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let spread = self.heartbeat.interval / 2;
        match self.coordinator.answered(to, outcome, spread, now, rng) {
            Lookup::Stale | Lookup::Failed(None) => {}
            // Sent once the coordinator may be asked: every member has lost it in the same instant.
            Lookup::Found if self.generation >= 0 => self.heartbeat.due = now,
            Lookup::Found => {}
            Lookup::Failed(Some(code)) => match meaning(code) {
                Meaning::Final => self.end(Trouble { code, during: "FindCoordinator" }, out),
                _ => self.trouble(code, "FindCoordinator", now, out),
            },
        }
    }

    pub(super) fn answered(
        &mut self,
        to: RequestId,
        outcome: Outcome<Answer>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let beat = self.heartbeat.flight.filter(|beat| beat.flight.id == to);
        let parked = match self.state {
            State::Joining { flight } | State::Syncing { flight, .. } => Some(flight),
            State::Leaving { flight, .. } => flight,
            _ => None,
        };
        let parked = parked.filter(|flight| flight.id == to);
        if beat.is_none() && parked.is_none() {
            // Of what was once ours: a coordinator, a membership, an attempt that was given up.
            return;
        }
        let Outcome::Answered(answer) = outcome else {
            self.coordinator.is_silent();
            return self.coordinator_lost(now, rng, out);
        };
        if let Some(beat) = beat {
            self.heartbeat.flight = None;
            return self.beat(beat, answer.code(), now, rng, out);
        }
        let Some(flight) = parked else { return };
        match (&self.state, answer) {
            (State::Leaving { .. }, answer) => self.leave_answered(answer.code(), now, rng, out),
            (
                State::Joining { .. },
                Answer::Join { code: code::NONE, member_id, generation, leader, skip_assignment },
            ) => {
                self.served(flight.sent);
                self.member_id = member_id;
                self.generation = generation;
                self.leader = leader;
                if leader {
                    let (join, assign) = (flight.id, !skip_assignment);
                    self.state = State::Planning { join, assign, plan_at: None };
                    out.push(Action::Plan { join, assign });
                } else {
                    self.state = State::ToSync { not_before: now, planned: None };
                }
            }
            (State::Joining { .. }, Answer::Join { code, member_id, .. }) => {
                self.join_refused(code, member_id, now, rng, out);
            }
            (State::Syncing { .. }, Answer::Sync { code: code::NONE, parts }) => {
                self.served(flight.sent);
                self.synced(parts, now, out);
            }
            (State::Syncing { planned, .. }, answer) => {
                let planned = *planned;
                self.sync_refused(answer.code(), planned, now, rng, out);
            }
            _ => {}
        }
    }

    /// The coordinator has answered as it answers a member.
    fn served(&mut self, sent: Instant) {
        self.session.answered(sent);
        self.coordinator.served();
        self.slow.reset();
        self.told.over();
    }

    fn join_refused(
        &mut self,
        code: i16,
        member_id: Arc<str>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let mut not_before = now;
        match meaning(code) {
            // The id that it names is no member yet: it becomes one by joining with it (KIP-394).
            Meaning::IdRequired if self.member_id.is_empty() && !member_id.is_empty() => {
                self.member_id = member_id;
            }
            Meaning::Moved => return self.coordinator_lost(now, rng, out),
            Meaning::Final => return self.end(Trouble { code, during: "JoinGroup" }, out),
            Meaning::Member => {
                self.lose_all(out);
                self.member_id = Arc::from("");
                not_before += self.backoff.next(rng);
            }
            Meaning::Generation => {
                self.lose_all(out);
                not_before += self.backoff.next(rng);
            }
            Meaning::Told => {
                self.trouble(code, "JoinGroup", now, out);
                not_before += self.slow.next(rng);
            }
            Meaning::Loading | Meaning::Behind => not_before += self.backoff.next(rng),
            _ => {
                self.trouble(code, "JoinGroup", now, out);
                not_before += self.backoff.next(rng);
            }
        }
        self.state = State::ToJoin { not_before };
    }

    fn sync_refused(
        &mut self,
        code: i16,
        planned: Option<RequestId>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        match meaning(code) {
            Meaning::Moved => self.coordinator_lost(now, rng, out),
            Meaning::Final => self.end(Trouble { code, during: "SyncGroup" }, out),
            Meaning::Member => self.lost(true, now, rng, out),
            Meaning::Generation => self.lost(false, now, rng, out),
            Meaning::Loading => {
                let not_before = now + self.backoff.next(rng);
                self.state = State::ToSync { not_before, planned };
            }
            Meaning::Told => {
                self.trouble(code, "SyncGroup", now, out);
                let not_before = now + self.slow.next(rng);
                self.state = State::ToSync { not_before, planned };
            }
            // All that were parked get it in the same instant. Where it is an error of the broker's, the group rebalances
            // as well: the leader's plan could not be written.
            Meaning::Behind => {
                self.state = State::ToJoin { not_before: now + self.backoff.next(rng) };
            }
            _ => {
                self.trouble(code, "SyncGroup", now, out);
                self.state = State::ToJoin { not_before: now + self.backoff.next(rng) };
            }
        }
    }

    /// This is assigned to us.
    fn synced(&mut self, parts: Vec<Part>, now: Instant, out: &mut Actions) {
        self.state = State::Stable;
        self.owned_generation = self.generation;
        self.heartbeat.odd = 0;
        if self.closing.is_some() {
            return;
        }
        let all = parts.len();
        let mut assigned: BTreeSet<Part> = parts.into_iter().collect();
        assigned.retain(|part| self.subscription.topics.contains(&part.topic));
        // It was assigned by a subscription that we have changed.
        self.again |= assigned.len() < all;
        let revoked: BTreeSet<Part> = self.owned.difference(&assigned).cloned().collect();
        let added: Vec<Part> = assigned.difference(&self.owned).cloned().collect();
        self.owned.extend(added.iter().cloned());
        // What comes with it is handed out only if the session is good.
        self.heed_silence(now, out);
        out.push(Action::Take { parts: added });
        if !revoked.is_empty() {
            let within = self.settings.give_up_within(self.heartbeat.interval);
            self.give_up(revoked, now + within, out);
            // For those who are to have it.
            self.again = true;
        }
    }

    /// A heartbeat is answered.
    fn beat(&mut self, beat: Beat, code: i16, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        if beat.generation != self.generation {
            // We have another one since: the next heartbeat says what there is to say.
            self.heartbeat.due = self.heartbeat.due.min(now);
            return;
        }
        match meaning(code) {
            Meaning::Fine | Meaning::Behind => self.served(beat.flight.sent),
            _ => {}
        }
        // What is parked was there before the heartbeat was sent.
        let parked = match self.state {
            State::Joining { flight } | State::Syncing { flight, .. } => {
                flight.sent < beat.flight.sent
            }
            _ => false,
        };
        match (meaning(code), &self.state) {
            (Meaning::Fine, State::Joining { .. }) if parked => self.odd(now, rng, out),
            (Meaning::Fine, State::Stable) => self.backoff.reset(),
            (Meaning::Fine, _) => self.heartbeat.odd = 0,
            (Meaning::Behind, State::Stable) => self.again = true,
            (Meaning::Behind, State::Planning { .. } | State::ToSync { .. }) => {
                self.state = State::ToJoin { not_before: now };
            }
            (Meaning::Behind, State::Syncing { .. }) if parked => self.odd(now, rng, out),
            (Meaning::Behind, _) => self.heartbeat.odd = 0,
            // The group has its next generation, and the response that tells us is on its way.
            (Meaning::Generation, State::Joining { .. }) if self.generation >= 0 => {
                if parked {
                    self.odd(now, rng, out);
                }
            }
            // It has none yet.
            (Meaning::Generation, State::Joining { .. }) => self.heartbeat.odd = 0,
            (Meaning::Member, State::Joining { .. }) => {
                let odd = self.heartbeat.odd;
                if self.generation >= 0 {
                    self.lose_all(out);
                }
                self.heartbeat.odd = odd;
                if parked {
                    self.odd(now, rng, out);
                }
            }
            // The SyncGroup will be told so, too. Until it is, nothing else is sent: a new coordinator may give the same
            // generation a second time, and would take the plan for the first one if that came late.
            (Meaning::Generation | Meaning::Member, State::Syncing { .. }) => {
                if parked {
                    self.odd(now, rng, out);
                }
            }
            // A join before this one has been answered, and we have not heard it: the next one will tell.
            (Meaning::Generation, State::ToJoin { .. }) if self.giving.is_none() => {}
            (Meaning::Generation, _) => self.lost(false, now, rng, out),
            (Meaning::Member, _) => self.lost(true, now, rng, out),
            (Meaning::Moved, _) => self.coordinator_lost(now, rng, out),
            (Meaning::Final, _) => self.end(Trouble { code, during: "Heartbeat" }, out),
            (Meaning::Loading, _) => self.heartbeat.due = now + self.backoff.next(rng),
            (Meaning::Told, _) => {
                self.trouble(code, "Heartbeat", now, out);
                self.heartbeat.due = now + self.slow.next(rng);
            }
            _ => self.trouble(code, "Heartbeat", now, out),
        }
    }

    /// The answer to a heartbeat cannot be while a request is parked. It may have been sent as the other one was answered;
    /// twice in a row it was not.
    fn odd(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.heartbeat.odd += 1;
        if self.heartbeat.odd >= 2 {
            self.heartbeat.odd = 0;
            self.abandon(out);
            self.state = State::ToJoin { not_before: now + self.backoff.next(rng) };
        }
    }

    /// A request of somebody else's was refused by a coordinator.
    pub(super) fn refused(
        &mut self,
        code: i16,
        sent: &Identity,
        found: RequestId,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        if self.coordinator.found() != Some(found) {
            return;
        }
        let ours = self.identity().as_ref() == Some(sent);
        match meaning(code) {
            Meaning::Moved => self.coordinator_lost(now, rng, out),
            // While we join, the group may have its next generation, and until we hear of it we are refused.
            Meaning::Generation | Meaning::Member
                if matches!(self.state, State::Joining { .. }) => {}
            Meaning::Generation
                if matches!(self.state, State::ToJoin { .. }) && self.giving.is_none() => {}
            Meaning::Generation if ours => self.lost(false, now, rng, out),
            Meaning::Member if ours => self.lost(true, now, rng, out),
            Meaning::Final if ours && code == code::FENCED_INSTANCE_ID => {
                self.end(Trouble { code, during: "OffsetCommit" }, out);
            }
            _ => {}
        }
    }

    pub(super) fn planned(&mut self, join: RequestId, ok: bool, now: Instant, rng: &mut impl Rng) {
        let State::Planning { join: of, assign, plan_at } = &mut self.state else { return };
        if *of != join {
            return;
        }
        if ok {
            let planned = assign.then_some(join);
            self.state = State::ToSync { not_before: now, planned };
        } else {
            *plan_at = Some(now + self.backoff.next(rng));
        }
    }

    fn leave_answered(&mut self, code: i16, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        match meaning(code) {
            Meaning::Moved => self.coordinator_lost(now, rng, out),
            Meaning::Loading => {
                if let State::Leaving { flight, not_before, .. } = &mut self.state {
                    *flight = None;
                    *not_before = now + self.backoff.next(rng);
                }
            }
            // Whatever else it says: we are none, or shall be none after the session.
            _ => self.left(out),
        }
    }

    /// The coordinator is lost, the membership is not.
    pub(super) fn coordinator_lost(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.coordinator.lose(now, rng);
        self.heartbeat.flight = None;
        self.abandon(out);
        match &mut self.state {
            State::Joining { .. } => self.state = State::ToJoin { not_before: now },
            State::Syncing { planned, .. } => {
                self.state = State::ToSync { not_before: now, planned: *planned };
            }
            State::Leaving { flight, .. } if flight.is_some() => {
                if self.closing.is_some() {
                    *flight = None;
                } else {
                    self.left(out);
                }
            }
            _ => {}
        }
    }

    /// The membership is lost; a new one begins.
    fn lost(&mut self, id_too: bool, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.abandon(out);
        self.lose_all(out);
        if id_too {
            self.member_id = Arc::from("");
        }
        self.state = State::ToJoin { not_before: now + self.backoff.next(rng) };
        if self.closing.is_some() {
            self.leave_at_last(now, out);
        }
    }

    fn trouble(&mut self, code: i16, during: &'static str, now: Instant, out: &mut Actions) {
        let trouble = Trouble { code, during };
        if self.told.trouble(trouble, now) {
            out.push(Action::Tell(trouble));
        }
    }

    fn end(&mut self, trouble: Trouble, out: &mut Actions) {
        self.abandon(out);
        self.lose_all(out);
        self.state = State::Ended;
        if self.closing.is_some() {
            out.extend([Action::Tell(trouble), Action::Closed]);
        } else {
            out.push(Action::End(trouble));
        }
    }
}
