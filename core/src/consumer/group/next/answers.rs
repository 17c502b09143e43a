//! What a member makes of the coordinator's answers. The codes: see `codes`. Those about an epoch count only if it is
//! the one that we have.

use super::*;

impl Next {
    pub(super) fn looked_up(
        &mut self,
        to: RequestId,
        outcome: &Outcome<i16>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let spread = self.interval / 2;
        match self.coordinator.answered(to, outcome, spread, now, rng) {
            Lookup::Stale | Lookup::Failed(None) => {}
            // Sent once the coordinator may be asked: every member has lost it in the same instant.
            Lookup::Found if matches!(self.state, State::Member) => self.due = now,
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
        if let State::Leaving { flight: Some(flight), then, .. } = self.state
            && flight.id == to
        {
            return self.leave_answered(flight, outcome, then, now, rng, out);
        }
        let Some(flight) = self.flight.filter(|flight| flight.id == to) else { return };
        let Outcome::Answered(answer) = outcome else {
            // Of one that never left nothing can have been heard.
            let heard = !matches!(outcome, Outcome::NotSent);
            self.failed(flight, heard);
            self.coordinator.is_silent();
            return self.coordinator_lost(now, rng, out);
        };
        self.flight = None;
        if answer.code == code::NONE {
            return self.beaten(flight, answer, now, out);
        }
        self.failed(flight, false);
        match self.state {
            State::Joining => self.join_refused(answer.code, now, rng, out),
            _ => self.beat_refused(answer.code, now, rng, out),
        }
    }

    /// What a heartbeat said was not taken, or nobody knows: the next one says it all.
    fn failed(&mut self, flight: Flight, heard: bool) {
        self.flight = None;
        self.all = true;
        self.tell_owned |= flight.owned;
        self.doubt |= heard && flight.epoch == JOINS;
    }

    /// The coordinator has answered as it answers a member.
    fn beaten(&mut self, flight: Flight, answer: Answer, now: Instant, out: &mut Actions) {
        self.coordinator.served();
        self.backoff.reset();
        self.slow.reset();
        self.told.over();
        if let Ok(interval) = u64::try_from(answer.interval_ms)
            && interval > 0
        {
            self.interval = Duration::from_millis(interval);
            self.session.set_timeout(SESSION.min(self.interval * SESSION_HEARTBEATS));
            self.due = self.due.min(now + self.interval);
        }
        // Of a member that has left, or none of the protocol's.
        if answer.epoch <= 0 {
            self.all = true;
            return;
        }
        let joined = matches!(self.state, State::Joining);
        self.session.answered(flight.sent);
        self.epoch = answer.epoch;
        self.state = State::Member;
        (self.known, self.doubt, self.unreleased) = (true, false, None);
        let assigned = answer.assignment.map(BTreeSet::from_iter);
        if joined {
            // Told *assigned* also of none: something was decided.
            if assigned.as_ref().is_none_or(BTreeSet::is_empty) {
                out.push(Action::Take { parts: Vec::new() });
                self.due = self.due.min(now + ASSIGNED_AFTER);
            }
            self.target = Some(BTreeSet::new());
        }
        if let Some(assigned) = assigned {
            self.target = Some(assigned);
        }
        self.reconcile(now, out);
    }

    fn join_refused(&mut self, code: i16, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        match meaning(code) {
            Meaning::Moved => self.coordinator_lost(now, rng, out),
            Meaning::NoGroup if !self.known => self.use_classic(out),
            Meaning::Final if code == code::UNSUPPORTED_VERSION && !self.known => {
                self.use_classic(out);
            }
            Meaning::Final => {
                self.end(Trouble { code, during: "ConsumerGroupHeartbeat" }, out);
            }
            // It has us already, by a join whose answer we have not got or an epoch that we do not have any more. Up to
            // 4.1.2 it does not take 0 from who has another (KAFKA-19233); leaving it takes from anybody.
            Meaning::Epoch => {
                self.doubt = true;
                self.leave(Then::Join, None, now, out);
            }
            // It may be we ourselves who hold it.
            Meaning::Unreleased if self.doubt => self.leave(Then::Join, None, now, out),
            Meaning::Unreleased => {
                let since = *self.unreleased.get_or_insert(now);
                if now.saturating_duration_since(since) >= SESSION + RELEASE_RESERVE {
                    self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                }
                self.due = now + self.backoff.next(rng);
            }
            Meaning::Told => {
                self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                self.due = now + self.slow.next(rng);
            }
            Meaning::Loading | Meaning::Member => self.due = now + self.backoff.next(rng),
            // The group has become a classic one that takes no others: that may pass.
            Meaning::NoGroup => {
                self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                self.due = now + self.slow.next(rng);
            }
            _ => {
                self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                self.due = now + self.backoff.next(rng);
            }
        }
    }

    fn beat_refused(&mut self, code: i16, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        match meaning(code) {
            Meaning::Moved => self.coordinator_lost(now, rng, out),
            Meaning::Final => self.end(Trouble { code, during: "ConsumerGroupHeartbeat" }, out),
            Meaning::Epoch => self.lost(true, now, rng, out),
            Meaning::Member | Meaning::NoGroup => self.lost(false, now, rng, out),
            Meaning::Loading | Meaning::Behind => self.due = now + self.backoff.next(rng),
            Meaning::Told => {
                self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                self.due = now + self.slow.next(rng);
            }
            _ => {
                self.trouble(code, "ConsumerGroupHeartbeat", now, out);
                self.due = now + self.backoff.next(rng);
            }
        }
    }

    fn leave_answered(
        &mut self,
        sent: Flight,
        outcome: Outcome<Answer>,
        then: Then,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let Outcome::Answered(answer) = outcome else {
            self.coordinator.is_silent();
            return self.coordinator_lost(now, rng, out);
        };
        match meaning(answer.code) {
            Meaning::Moved => return self.coordinator_lost(now, rng, out),
            Meaning::Loading if then != Then::Stay => {
                if let State::Leaving { flight, not_before, .. } = &mut self.state {
                    *flight = None;
                    *not_before = now + self.backoff.next(rng);
                }
                return;
            }
            _ => {}
        }
        // Gone, or never there; or the instance id is somebody else's, who has to be waited for.
        self.doubt = false;
        let pause = if sent.epoch == LEAVES_FOR_NOW && answer.code != code::NONE {
            self.backoff.next(rng)
        } else {
            Duration::ZERO
        };
        self.left(then, now + pause, out);
    }

    /// The coordinator is lost, the membership is not.
    pub(super) fn coordinator_lost(&mut self, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.coordinator.lose(now, rng);
        if let Some(flight) = self.flight {
            self.failed(flight, true);
        }
        self.due = self.due.min(now);
        if let State::Leaving { flight: flight @ Some(_), then, .. } = &mut self.state {
            *flight = None;
            if *then == Then::Stay {
                self.left(Then::Stay, now, out);
            }
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
            // An answer that moved the epoch was lost. The next one tells it.
            Meaning::Behind if ours => {
                self.all = true;
                self.due = self.due.min(now);
            }
            Meaning::Epoch if ours => self.lost(true, now, rng, out),
            Meaning::Member | Meaning::NoGroup if ours => self.lost(false, now, rng, out),
            Meaning::Final if ours && code == code::FENCED_INSTANCE_ID => {
                self.end(Trouble { code, during: "OffsetCommit" }, out);
            }
            _ => {}
        }
    }

    /// The membership is lost; a new one begins. `known`: the coordinator has us at another epoch.
    fn lost(&mut self, known: bool, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.lose_all(out);
        self.doubt = known;
        let not_before = now + self.backoff.next(rng);
        self.join(not_before);
        if self.closing.is_some() {
            self.leave_at_last(now, out);
        }
    }

    fn use_classic(&mut self, out: &mut Actions) {
        self.state = State::Ended;
        out.push(if self.closing.is_some() { Action::Closed } else { Action::UseClassic });
    }

    fn trouble(&mut self, code: i16, during: &'static str, now: Instant, out: &mut Actions) {
        let trouble = Trouble { code, during };
        if self.told.trouble(trouble, now) {
            out.push(Action::Tell(trouble));
        }
    }

    fn end(&mut self, trouble: Trouble, out: &mut Actions) {
        self.lose_all(out);
        self.state = State::Ended;
        if self.closing.is_some() {
            out.extend([Action::Tell(trouble), Action::Closed]);
        } else {
            out.push(Action::End(trouble));
        }
    }
}
