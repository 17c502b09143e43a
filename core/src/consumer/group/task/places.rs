//! Where the group is in each partition: looked up for those that come, and committed for what is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Member, News, Of, Part, Stage, Take, actions};
use crate::cluster::Lookup;
use crate::config::Start;
use crate::consumer::buffer::{Begin, Key};
use crate::consumer::event::Event;
use crate::consumer::group::calls::{Committed, Failure, Found, Membership};
use crate::consumer::group::events::{self, Commits, Identity};
use crate::consumer::group::offsets::Places;
use crate::consumer::marks::Place;
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, describe};

impl Member {
    /// When to ask again where the group was; `None` while nobody can be asked.
    pub(super) fn look_wake(&self) -> Option<Instant> {
        let can = self.coordinator.is_some() && self.machine.identity().is_some();
        let wanted =
            |(key, part): (&Key, &Part)| part.stage != Stage::Reading && !self.is_going(key);
        let wanted = self.parts.iter().any(wanted);
        self.look_at.filter(|_| can && wanted && !self.looking)
    }

    /// Asks where the group was in partitions that came.
    pub(super) fn look_up(&mut self, now: Instant) {
        let Some((found, coordinator)) = self.coordinator else { return };
        if self.looking || self.look_at.is_some_and(|at| at > now) {
            return;
        }
        let looking = |(key, part): (&Key, &Part)| match part.stage {
            Stage::Looking(take) if !self.is_going(key) => Some((key.clone(), take)),
            Stage::Looking(_) | Stage::Reading => None,
        };
        let wanted: Vec<Take> = self.parts.iter().filter_map(looking).collect();
        let Some(sent) = self.machine.identity().filter(|_| !wanted.is_empty()) else { return };
        (self.looking, self.look_at) = (true, None);
        let calls = self.calls.clone();
        let of = Of { sent, found, since: now };
        let lost = {
            let of = of.clone();
            move |e| News::Found { of, found: Err(Failure::Lost(e)) }
        };
        self.ask(lost, async move {
            let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
            let found = calls.committed(coordinator, &keys).await;
            // In the order in which they were asked for.
            let found = found.map(|found| {
                wanted.into_iter().zip(found.into_iter().map(|(_, found)| found)).collect()
            });
            News::Found { of, found }
        });
    }

    /// Gives whether some are to be asked for again.
    pub(super) fn found(&mut self, found: Vec<(Take, Found)>) -> bool {
        let mut begins = Vec::with_capacity(found.len());
        let mut again = false;
        for ((key, take), committed) in found {
            // It goes before it has come: nothing of it is read, and the application hears of neither.
            if self.is_going(&key) {
                continue;
            }
            let part = self.parts.get_mut(&key).filter(|part| part.stage == Stage::Looking(take));
            let Some(part) = part else { continue };
            let committed = match committed {
                Ok(committed) => committed,
                Err(failure) => {
                    again = true;
                    self.refused_part(&key, &failure);
                    continue;
                }
            };
            part.stage = Stage::Reading;
            let id = part.topic;
            let place: Option<Place> = committed.map(|found| (found.offset, found.epoch));
            self.offsets.found(key.clone(), place);
            let reset = self.start;
            let later = self.first_seen.get(&key.0).is_some_and(|first| key.1 >= first.count);
            let begin = match place {
                Some((offset, epoch)) => Begin { start: Start::Offset(offset), epoch, reset, id },
                None if later => Begin { reset, id, ..Start::Earliest.into() },
                None => Begin { id, ..reset.into() },
            };
            begins.push((key, begin));
        }
        let assigned: Vec<Key> = begins.iter().map(|(key, _)| key.clone()).collect();
        self.buffer.take_over(begins);
        // Now, and not before: whoever hears of them may seek and pause.
        if !assigned.is_empty() {
            self.buffer.announce(Event::Assigned(actions::named(&assigned)));
        }
        again
    }

    /// Whether it is being given up.
    fn is_going(&self, key: &Key) -> bool {
        self.givings.iter().any(|giving| giving.keys.contains(key))
    }

    pub(super) fn look_later(&mut self) {
        self.look_at = Some(self.env.now() + self.look_backoff.next(&mut self.rng));
    }

    pub(super) fn offsets_wake(&self) -> Option<Instant> {
        let may = matches!(self.machine.commits(), Commits::As(_));
        (may && !self.holds_commits(self.env.now())).then(|| self.offsets.wake()).flatten()
    }

    /// Whether a commit that the application has asked for would leave out what may still be committed: it waits.
    fn holds_commits(&self, now: Instant) -> bool {
        let is_held =
            || self.is_nameless(now) && !self.givings.is_empty() || self.is_doubted(None, now);
        self.offsets.has_orders() && is_held()
    }

    pub(super) fn commit(&mut self, now: Instant) {
        let sent = match self.machine.commits() {
            Commits::As(identity) => identity,
            Commits::Wait => return,
            Commits::Never => {
                self.offsets.lost(&not_a_member(&self.config.id));
                return;
            }
        };
        let Some((found, coordinator)) = self.coordinator else { return };
        if !self.offsets.is_due(now) || self.holds_commits(now) {
            return;
        }
        let committable = self.committable(now);
        let Some(places) = self.offsets.begin(committable, now, &mut self.rng) else {
            return;
        };
        self.tell(events::Event::Committing(true));
        let calls = match self.machine.commit_timeout() {
            Some(timeout) => self.calls.within(timeout),
            None => self.calls.clone(),
        };
        let membership = membership(&sent);
        let of = Of { sent, found, since: now };
        let lost = {
            let of = of.clone();
            move |e| News::Committed { of, answer: Err(Failure::Lost(e)) }
        };
        self.ask(lost, async move {
            let answer = calls.commit(coordinator, &membership, &listed(places)).await;
            News::Committed { of, answer }
        });
    }

    /// What of the marks may be committed. Commits name topics, and the coordinator takes the offset of one that is gone for
    /// its namesake, where it would pass over records.
    pub(super) fn committable(&self, now: Instant) -> Vec<(Key, Place, u64)> {
        let mut committable = self.buffer.committable();
        let withheld: Vec<&Key> = match self.is_nameless(now) {
            true => self.givings.iter().flat_map(|giving| &giving.keys).collect(),
            false => Vec::new(),
        };
        // What the names stand for now, as far as is known here.
        let mut names: BTreeMap<Arc<str>, Uuid> = BTreeMap::new();
        committable.retain(|(key, ..)| {
            if withheld.contains(&key) {
                return false;
            }
            let Some(part) = self.parts.get(key).filter(|part| !part.topic.is_nil()) else {
                return true;
            };
            let now = names.entry(Arc::clone(&key.0)).or_insert_with(|| self.id_of(&key.0));
            // What was known when it came is not newer than what came.
            now.is_nil() || [part.topic, part.was].contains(now)
        });
        committable
    }

    /// The id of the topic that has this name now; nil if that is not known.
    pub(super) fn id_of(&self, topic: &Arc<str>) -> Uuid {
        match self.pool.metadata().lookup(topic) {
            Lookup::Known(meta) => meta.id,
            Lookup::Failed(_) | Lookup::Pending => Uuid::nil(),
        }
    }

    pub(super) fn committed(&mut self, of: Of, answer: Result<Vec<(Key, i16)>, Failure>) {
        let now = self.env.now();
        self.tell(events::Event::Committing(false));
        let codes = match answer {
            Ok(codes) => codes,
            Err(failure) => {
                let (Failure::Code(_, e) | Failure::Unsent(e) | Failure::Lost(e)) = &failure;
                self.offsets.failed(e, now, &mut self.rng);
                return self.refused(&failure, of);
            }
        };
        // What the coordinator says of the member it says of each partition.
        let whole = codes.iter().map(|(_, code)| *code).find(|code| is_members(*code));
        if let Some(code) = whole {
            let what = format!("committing for group '{}'", self.config.id);
            self.offsets.failed(&Error::broker(code, what, None), now, &mut self.rng);
            let Of { sent, found, .. } = of;
            self.tell(events::Event::Refused { code, sent, found });
            return;
        }
        self.is_alive(of);
        let refusal = |key: &Key| {
            let (_, code) = codes.iter().find(|(of, code)| of == key && *code != NONE)?;
            let ((topic, partition), group) = (key, &self.config.id);
            let what =
                format!("committing topic '{topic}' partition {partition} for group '{group}'");
            Some(Error::broker(*code, what, None))
        };
        let first = codes.iter().find_map(|(key, _)| refusal(key));
        let is_mine = |key: &Key| self.parts.contains_key(key);
        self.offsets.answered(is_mine, refusal);
        match first {
            Some(error) => self.tell_of_offsets(error),
            None => self.offsets_told = None,
        }
    }
}

/// Whether a code of a partition in OffsetCommit is about the member, its group or the coordinator.
fn is_members(code: i16) -> bool {
    use crate::error::ErrorScope::{Coordinator, Group};
    matches!(describe(code).scope, Coordinator | Group)
}

fn membership(identity: &Identity) -> Membership {
    Membership { member: Arc::clone(&identity.member_id), generation: identity.generation }
}

fn listed(places: Places) -> Vec<(Key, Committed)> {
    let committed = |(offset, epoch): Place| Committed { offset, epoch, metadata: String::new() };
    places.into_iter().map(|(key, place)| (key, committed(place))).collect()
}

pub(super) fn not_a_member(group: &str) -> Error {
    let words = format!("this consumer is not a member of group '{group}' now");
    Error::new(ErrorKind::Fenced, words)
        .advise("what was not committed is read again by who has the partitions now")
}
