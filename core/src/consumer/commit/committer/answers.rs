//! What becomes of a commit: a code of the group's decides for all that was sent, one of a partition's for that alone.

use super::*;

impl Committer {
    pub(super) fn answered(
        &mut self,
        to: RequestId,
        outcome: Outcome<Vec<(Part, i16)>>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let Some(flight) = self.flight.take_if(|flight| flight.id == to) else { return };
        let codes = match outcome {
            Outcome::Answered(codes) => codes,
            // Whether it was heard or not: the offsets are what they are.
            Outcome::NotSent | Outcome::Cut | Outcome::TimedOut => {
                let after = self.backoff.next(rng);
                self.again(now + after);
                out.push(Action::Lost);
                return;
            }
        };
        let mut trouble = None;
        for (part, (incarnation, version, offset)) in &flight.of {
            let said = codes.iter().find(|(of, _)| of == part);
            // Left out: that is no answer.
            let code = said.map_or(code::UNKNOWN_SERVER_ERROR, |(_, code)| *code);
            let (of, up_to) = (*incarnation, *version);
            match verdict(code) {
                Verdict::Taken => self.committed(part, of, up_to, offset),
                Verdict::Later => self.later(part, of, now, rng),
                Verdict::Refused => self.refused_for_good(part, of, up_to, code, out),
                Verdict::All => {}
            }
            let told = meaning(code) == Meaning::Told;
            if told {
                self.fail_tickets(part, of, up_to, code, out);
            }
            if verdict(code) == Verdict::Later || told {
                self.tell(code, now, out);
            }
            if verdict(code) == Verdict::All {
                trouble = Some(code);
            }
        }
        if codes.iter().any(|(_, code)| *code == code::NONE) {
            let (sent, since) = (flight.identity.clone(), flight.sent);
            out.push(Action::Alive { sent, since });
        }
        let Some(code) = trouble else {
            self.backoff.reset();
            self.slow.reset();
            if codes.iter().all(|(_, code)| *code == code::NONE) {
                self.told.over();
            }
            return;
        };
        match meaning(code) {
            // About the member: it decides. It may be that it has another identity by now.
            Meaning::Behind
            | Meaning::Generation
            | Meaning::Member
            | Meaning::Epoch
            | Meaning::NoGroup => {
                out.push(Action::Refused { code, sent: flight.identity.clone() });
                let until = now + HELD.mul_f64(rng.random_range(0.8..1.2));
                self.held = Some((flight.identity, until));
                self.again(now);
            }
            Meaning::Moved => {
                out.push(Action::Refused { code, sent: flight.identity });
                let after = self.backoff.next(rng);
                self.again(now + after);
            }
            Meaning::Final if code == code::FENCED_INSTANCE_ID => {
                out.push(Action::Refused { code, sent: flight.identity });
                let after = self.backoff.next(rng);
                self.again(now + after);
            }
            Meaning::Told => {
                let later = now + self.slow.next(rng);
                self.again(later);
            }
            _ => {
                self.tell(code, now, out);
                let after = self.backoff.next(rng);
                self.again(now + after);
            }
        }
    }

    /// What is left is sent again, not before.
    pub(super) fn again(&mut self, not_before: Instant) {
        self.not_before = Some(not_before);
        self.due = Some(not_before);
    }

    pub(super) fn tell(&mut self, code: i16, now: Instant, out: &mut Actions) {
        let trouble = Trouble { code, during: "OffsetCommit" };
        if self.told.trouble(trouble, now) {
            out.push(Action::Tell(trouble));
        }
    }

    pub(super) fn committed(
        &mut self,
        part: &Part,
        incarnation: u64,
        version: u64,
        offset: &Offset,
    ) {
        if let Some(entry) = self.entries.get_mut(part)
            && entry.incarnation == incarnation
        {
            entry.committed = Some(offset.clone());
            (entry.tries, entry.retry_at) = (0, None);
        }
        for waits in self.tickets.values_mut() {
            if waits.get(part).is_some_and(|(of, up_to)| *of == incarnation && *up_to <= version) {
                waits.remove(part);
            }
        }
    }

    /// This partition is tried again by itself.
    pub(super) fn later(
        &mut self,
        part: &Part,
        incarnation: u64,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        if let Some(entry) = self.entries.get_mut(part)
            && entry.incarnation == incarnation
        {
            let most = PART_RETRY_MAX.min(PART_RETRY * 2u32.saturating_pow(entry.tries));
            entry.tries = (entry.tries + 1).min(16);
            entry.retry_at = Some(now + most.mul_f64(rng.random_range(0.5..1.0)));
        }
    }

    pub(super) fn refused_for_good(
        &mut self,
        part: &Part,
        incarnation: u64,
        version: u64,
        code: i16,
        out: &mut Actions,
    ) {
        if let Some(entry) = self.entries.get_mut(part)
            && (entry.incarnation, entry.version) == (incarnation, version)
        {
            entry.hopeless = true;
        }
        self.fail_tickets(part, incarnation, version, code, out);
    }

    pub(super) fn fail_tickets(
        &mut self,
        part: &Part,
        incarnation: u64,
        version: u64,
        code: i16,
        out: &mut Actions,
    ) {
        self.tickets.retain(|ticket, waits| {
            let waited = waits.get(part);
            let fails = waited.is_some_and(|(of, up_to)| *of == incarnation && *up_to <= version);
            if fails {
                let result = Err(Failure::Refused { part: part.clone(), code });
                out.push(Action::Done { ticket: *ticket, result });
            }
            !fails
        });
    }
}

/// What a code says of the partition that bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// This one later, the others as they are.
    Later,
    /// Not this offset, ever.
    Refused,
    /// It is about the group, or the broker, and all of them bear it.
    All,
}

fn verdict(of: i16) -> Verdict {
    match of {
        code::NONE => Verdict::Taken,
        code::UNKNOWN_TOPIC_OR_PARTITION
        | code::UNKNOWN_TOPIC_ID
        | code::TOPIC_AUTHORIZATION_FAILED => Verdict::Later,
        code::OFFSET_METADATA_TOO_LARGE
        | code::INVALID_COMMIT_OFFSET_SIZE
        | code::INVALID_REQUEST
        | code::INVALID_GROUP_ID
        | code::UNSUPPORTED_VERSION => Verdict::Refused,
        _ => Verdict::All,
    }
}
