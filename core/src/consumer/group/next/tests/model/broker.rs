//! A coordinator of one group of the next generation, after `GroupMetadataManager` and `CurrentAssignmentBuilder`. All that it
//! knows is in its log, but for the sessions.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Stable,
    /// It has to give something up first.
    Unrevoked {
        until: Instant,
    },
    /// Something of its own is still another's.
    Unreleased,
}

#[derive(Clone, Debug)]
struct Member {
    instance: Option<Arc<str>>,
    epoch: i32,
    before: i32,
    phase: Phase,
    subscription: Subscription,
    assigned: BTreeSet<Place>,
    pending: BTreeSet<Place>,
    target: BTreeSet<Place>,
    session: Instant,
}

pub(super) struct Broker {
    /// Epoch 0 is refused from a member that has another (KAFKA-19233).
    old: bool,
    pub(super) node: u8,
    loading: Option<Instant>,
    /// Of the group, and of the targets.
    epoch: i32,
    target_epoch: i32,
    members: BTreeMap<Arc<str>, Member>,
    partitions: BTreeMap<char, i32>,
}

impl Broker {
    pub(super) fn new(old: bool) -> Self {
        Self {
            old,
            node: 0,
            loading: None,
            epoch: 0,
            target_epoch: 0,
            members: BTreeMap::new(),
            partitions: [('t', 5), ('u', 3)].into(),
        }
    }

    pub(super) fn count(&self, topics: &BTreeSet<Arc<str>>) -> usize {
        let of = |topic: &Arc<str>| self.partitions[&topic.chars().next().unwrap()] as usize;
        topics.iter().map(of).sum()
    }

    pub(super) fn grow(&mut self, topic: char, n: i32) {
        let count = self.partitions.get_mut(&topic).unwrap();
        if n > *count {
            *count = n;
            self.epoch += 1;
        }
    }

    pub(super) fn forget(&mut self, id: &Arc<str>) {
        if self.members.remove(id).is_some() {
            self.epoch += 1;
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let times = self.members.values().flat_map(|member| {
            let until = match member.phase {
                Phase::Unrevoked { until } => Some(until),
                Phase::Stable | Phase::Unreleased => None,
            };
            until.into_iter().chain([member.session])
        });
        match self.loading {
            Some(until) => Some(until),
            None => times.min(),
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.loading.is_some_and(|until| until <= now) {
            self.loading = None;
            for member in self.members.values_mut() {
                member.session = now + S;
                if let Phase::Unrevoked { until } = &mut member.phase {
                    *until = now + R;
                }
            }
        }
        if self.loading.is_some() {
            return;
        }
        let before = self.members.len();
        self.members.retain(|_, member| {
            let late = matches!(member.phase, Phase::Unrevoked { until } if until <= now);
            !late && member.session > now
        });
        self.epoch += i32::from(before > self.members.len());
    }

    pub(super) fn move_away(&mut self, now: Instant, rng: &mut StdRng) {
        self.node = 1 - self.node;
        self.loading = Some(now + Duration::from_millis(rng.random_range(1..4_000)));
    }

    fn reachable(&self, node: u8) -> i16 {
        match (node == self.node, self.loading) {
            (false, _) => code::NOT_COORDINATOR,
            (true, Some(_)) => code::COORDINATOR_LOAD_IN_PROGRESS,
            (true, None) => code::NONE,
        }
    }

    pub(super) fn commit(&mut self, node: u8, part: &Part, sent: &Identity) -> i16 {
        let refused = self.reachable(node);
        if refused != code::NONE {
            return refused;
        }
        let Some(member) = self.members.get(&sent.member_id) else {
            return code::UNKNOWN_MEMBER_ID;
        };
        if member.epoch != sent.generation {
            return code::STALE_MEMBER_EPOCH;
        }
        let place = (part.topic_id, part.partition);
        let owns = member.assigned.contains(&place) || member.pending.contains(&place);
        assert!(owns, "{sent:?} commits {part:?}: {member:?}");
        code::NONE
    }

    pub(super) fn heartbeat(
        &mut self,
        node: u8,
        request: Request,
        instance: &Option<Arc<str>>,
        now: Instant,
    ) -> Answer {
        let refused = self.reachable(node);
        let answered = match refused {
            code::NONE if request.epoch < 0 => self.leave(&request, instance, now),
            code::NONE => self.beat(request, instance, now),
            refused => Err(refused),
        };
        answered.unwrap_or_else(|code| Answer { code, epoch: 0, interval_ms: 0, assignment: None })
    }

    fn same_instance(&self, instance: &Option<Arc<str>>) -> Option<Arc<str>> {
        let instance = instance.as_ref()?;
        let mut all = self.members.iter();
        let same = all.find(|(_, member)| member.instance.as_ref() == Some(instance));
        same.map(|(id, _)| Arc::clone(id))
    }

    fn leave(
        &mut self,
        request: &Request,
        instance: &Option<Arc<str>>,
        now: Instant,
    ) -> Result<Answer, i16> {
        let id = &request.member_id;
        if instance.is_some() && self.same_instance(instance).is_some_and(|other| other != *id) {
            return Err(code::FENCED_INSTANCE_ID);
        }
        let member = self.members.get_mut(id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        if request.epoch == -2 {
            member.epoch = -2;
            member.pending.clear();
            member.phase = Phase::Stable;
            member.session = member.session.max(now);
        } else {
            self.forget(id);
        }
        Ok(Answer { code: 0, epoch: request.epoch, interval_ms: 0, assignment: None })
    }

    fn beat(
        &mut self,
        request: Request,
        instance: &Option<Arc<str>>,
        now: Instant,
    ) -> Result<Answer, i16> {
        let id = request.member_id;
        let owned: Option<BTreeSet<Place>> = request.owned.map(BTreeSet::from_iter);
        let same = self.same_instance(instance);
        if request.epoch == 0 {
            assert!(request.all.is_some() && owned.as_ref().is_some_and(BTreeSet::is_empty));
            if let Some(same) = same {
                let old = &self.members[&same];
                if old.epoch != -2 {
                    return Err(code::UNRELEASED_INSTANCE_ID);
                }
                let old = self.members.remove(&same).unwrap();
                self.members.insert(Arc::clone(&id), Member { epoch: 0, before: 0, ..old });
            } else if let Some(member) = self.members.get(&id) {
                let again = member.before == 0 && member.epoch > 0 || member.epoch == 0;
                if self.old && !again {
                    return Err(code::FENCED_MEMBER_EPOCH);
                }
            } else {
                let member = Member {
                    instance: instance.clone(),
                    epoch: 0,
                    before: 0,
                    phase: Phase::Stable,
                    subscription: Subscription::default(),
                    assigned: BTreeSet::new(),
                    pending: BTreeSet::new(),
                    target: BTreeSet::new(),
                    session: now + S,
                };
                self.members.insert(Arc::clone(&id), member);
                self.epoch += 1;
            }
        } else {
            if instance.is_some() {
                let same = same.ok_or(code::UNKNOWN_MEMBER_ID)?;
                if same != id {
                    return Err(code::FENCED_INSTANCE_ID);
                }
            }
            let member = self.members.get(&id).ok_or(code::UNKNOWN_MEMBER_ID)?;
            let subset = owned.as_ref().is_some_and(|owned| owned.is_subset(&member.assigned));
            let previous = request.epoch == member.before && subset;
            if request.epoch != member.epoch && !previous {
                return Err(code::FENCED_MEMBER_EPOCH);
            }
        }
        let full = request.epoch == 0 || request.all.is_some() && owned.is_some();
        if let Some(all) = request.all
            && self.members[&id].subscription != all
        {
            self.members.get_mut(&id).unwrap().subscription = all;
            self.epoch += 1;
        }
        if self.epoch > self.target_epoch {
            self.assign();
            self.target_epoch = self.epoch;
        }
        let before = self.members[&id].assigned.clone();
        self.reconcile(&id, owned.as_ref(), now);
        let member = self.members.get_mut(&id).unwrap();
        member.session = now + S;
        let changed = member.assigned != before;
        Ok(Answer {
            code: code::NONE,
            epoch: member.epoch,
            interval_ms: BEAT.as_millis() as i32,
            assignment: (full || changed).then(|| member.assigned.iter().copied().collect()),
        })
    }

    /// A target for each: what it had, if that is no more than its share.
    fn assign(&mut self) {
        let mut free = Vec::new();
        let mut new: BTreeMap<Arc<str>, BTreeSet<Place>> =
            self.members.keys().map(|id| (Arc::clone(id), BTreeSet::new())).collect();
        let most = self.partitions.values().sum::<i32>() as usize / self.members.len().max(1) + 1;
        for (topic, n) in &self.partitions {
            for place in (0..*n).map(|n| (id(*topic), n)) {
                let keeps = self.members.iter().find(|(id, member)| {
                    member.target.contains(&place)
                        && wants(&member.subscription, *topic)
                        && new[*id].len() < most
                });
                match keeps {
                    Some((id, _)) => {
                        new.get_mut(id).unwrap().insert(place);
                    }
                    None => free.push((*topic, place)),
                }
            }
        }
        for (topic, place) in free {
            let takes = self.members.iter().filter(|(_, m)| wants(&m.subscription, topic));
            let least = takes.map(|(id, _)| id).min_by_key(|id| new[*id].len()).cloned();
            if let Some(id) = least {
                new.get_mut(&id).unwrap().insert(place);
            }
        }
        for (id, target) in new {
            self.members.get_mut(&id).unwrap().target = target;
        }
    }

    /// As `CurrentAssignmentBuilder` does it.
    fn reconcile(&mut self, id: &Arc<str>, owned: Option<&BTreeSet<Place>>, now: Instant) {
        let member = &self.members[id];
        let owns_any = |of: &BTreeSet<Place>| {
            owned.is_none_or(|owned| owned.iter().any(|place| of.contains(place)))
        };
        let (epoch, had) = match member.phase {
            Phase::Stable if member.epoch != self.target_epoch => (member.epoch, &member.assigned),
            Phase::Stable => return,
            Phase::Unrevoked { .. } if owns_any(&member.pending) => return,
            Phase::Unrevoked { .. } => (member.epoch + 1, &member.assigned),
            Phase::Unreleased => (member.epoch, &member.assigned),
        };
        let keeps: BTreeSet<Place> = had.intersection(&member.target).copied().collect();
        let pending: BTreeSet<Place> = had.difference(&keeps).copied().collect();
        let taken = |place: &Place| {
            let others = self.members.iter().filter(|(other, _)| *other != id);
            others.into_iter().any(|(_, m)| m.assigned.contains(place) || m.pending.contains(place))
        };
        let mut new: BTreeSet<Place> = member.target.difference(&keeps).copied().collect();
        let all = new.len();
        new.retain(|place| !taken(place));
        let waits = new.len() < all;
        let target_epoch = self.target_epoch;
        let member = self.members.get_mut(id).unwrap();
        let was = member.epoch;
        if !pending.is_empty() && owns_any(&pending) {
            (member.epoch, member.assigned, member.pending) = (epoch, keeps, pending);
            member.phase = Phase::Unrevoked { until: now + R };
        } else {
            member.assigned = keeps.union(&new).copied().collect();
            member.pending.clear();
            member.epoch = target_epoch;
            member.phase = if waits { Phase::Unreleased } else { Phase::Stable };
        }
        if member.epoch != was {
            member.before = was;
        }
    }
}

fn wants(subscription: &Subscription, topic: char) -> bool {
    subscription.topics.iter().any(|name| name.starts_with(topic))
}
