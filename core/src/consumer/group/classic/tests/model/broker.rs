//! A coordinator of one classic group, after `GroupMetadataManager` and `ClassicGroup`: what it parks, when it answers, what it
//! forgets when it moves.

use super::*;

type From = (Who, RequestId);

pub(super) struct Reply {
    pub(super) who: Who,
    pub(super) id: RequestId,
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Empty,
    Preparing { until: Instant },
    Completing { until: Instant },
    Stable,
}

#[derive(Clone, Debug)]
struct Member {
    instance: Option<Arc<str>>,
    session: Instant,
    join: Option<From>,
    sync: Option<From>,
    topics: Vec<Arc<str>>,
    owned: Vec<Part>,
    owned_generation: i32,
    assigned: Vec<Part>,
}

/// What a leader plans from.
#[derive(Clone, Debug)]
struct Joined {
    id: Arc<str>,
    topics: Vec<Arc<str>>,
    owned: Vec<Part>,
    owned_generation: i32,
}

pub(super) struct Broker {
    eager: bool,
    pub(super) node: u8,
    loading: Option<Instant>,
    phase: Phase,
    generation: i32,
    leader: Arc<str>,
    members: BTreeMap<Arc<str>, Member>,
    pending: BTreeMap<Arc<str>, Instant>,
    ids: u32,
    /// What is in its log.
    log: (i32, Arc<str>, BTreeMap<Arc<str>, Member>),
    /// What leaders were told, by the JoinGroup.
    told: BTreeMap<From, Vec<Joined>>,
    out: Vec<Reply>,
}

impl Broker {
    pub(super) fn new(now: Instant, eager: bool) -> Self {
        let _ = now;
        Self {
            eager,
            node: 0,
            loading: None,
            phase: Phase::Empty,
            generation: 0,
            leader: Arc::from(""),
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            ids: 0,
            log: (0, Arc::from(""), BTreeMap::new()),
            told: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|member| !member.is_parked());
        let phase = match self.phase {
            Phase::Preparing { until } | Phase::Completing { until } => Some(until),
            Phase::Empty | Phase::Stable => None,
        };
        let times = sessions.map(|member| member.session).chain(self.pending.values().copied());
        times.chain(phase).chain(self.loading).min()
    }

    pub(super) fn tick(&mut self, now: Instant) -> Vec<Reply> {
        if self.loading.is_some_and(|until| until <= now) {
            self.loading = None;
            for member in self.members.values_mut() {
                member.session = now + S;
            }
        }
        if self.loading.is_none() {
            let before = self.pending.len();
            self.pending.retain(|_, until| *until > now);
            let gone: Vec<Arc<str>> = (self.members.iter())
                .filter(|(_, member)| !member.is_parked() && member.session <= now)
                .map(|(id, _)| Arc::clone(id))
                .collect();
            for id in &gone {
                self.remove(id, now);
            }
            match self.phase {
                Phase::Preparing { until } if until <= now => self.complete(true, now),
                Phase::Preparing { .. } if before > self.pending.len() => self.complete(false, now),
                Phase::Completing { until } if until <= now => {
                    let late: Vec<Arc<str>> = (self.members.iter())
                        .filter(|(_, member)| member.sync.is_none())
                        .map(|(id, _)| Arc::clone(id))
                        .collect();
                    for id in &late {
                        self.remove(id, now);
                    }
                    self.prepare(now);
                }
                _ => {}
            }
        }
        std::mem::take(&mut self.out)
    }

    /// The coordinator is another one: it knows what is in the log.
    pub(super) fn move_away(&mut self, now: Instant, rng: &mut StdRng) -> Vec<Reply> {
        for member in std::mem::take(&mut self.members).into_values() {
            self.refuse_parked(member, code::NOT_COORDINATOR);
        }
        self.node = 1 - self.node;
        self.loading = Some(now + Duration::from_millis(rng.random_range(0..4_000)));
        (self.generation, self.leader, self.members) = self.log.clone();
        self.pending.clear();
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
        for member in self.members.values_mut() {
            (member.join, member.sync) = (None, None);
            member.session = now + S * 10;
        }
        std::mem::take(&mut self.out)
    }

    pub(super) fn request(
        &mut self,
        from: From,
        node: u8,
        request: Request,
        instance: Option<Arc<str>>,
        plan: Option<Plan>,
        now: Instant,
    ) -> Vec<Reply> {
        let refused = if node != self.node {
            code::NOT_COORDINATOR
        } else if self.loading.is_some() {
            code::COORDINATOR_LOAD_IN_PROGRESS
        } else {
            code::NONE
        };
        match request {
            Request::Join { .. } if refused != code::NONE => self.refuse_join(from, refused),
            Request::Sync { .. } if refused != code::NONE => {
                self.answer_sync(from, refused, vec![])
            }
            _ if refused != code::NONE => self.say(from, Answer::Code(refused)),
            Request::Join { member_id, topics, owned, owned_generation } => {
                let member = Member {
                    instance,
                    session: now + S,
                    join: Some(from),
                    sync: None,
                    topics,
                    owned,
                    owned_generation,
                    assigned: vec![],
                };
                self.join(from, member_id, member, now);
            }
            Request::Sync { member_id, generation, .. } => {
                self.sync(from, &member_id, &instance, generation, plan, now);
            }
            Request::Heartbeat { member_id, generation } => {
                let code = self.heartbeat(&member_id, &instance, generation, now);
                self.say(from, Answer::Code(code));
            }
            Request::Leave { member_id } => {
                let known = self.members.contains_key(&member_id);
                self.pending.remove(&member_id);
                self.remove(&member_id, now);
                let code = if known { code::NONE } else { code::UNKNOWN_MEMBER_ID };
                self.say(from, Answer::Code(code));
            }
        }
        std::mem::take(&mut self.out)
    }

    pub(super) fn commit(&mut self, node: u8, part: &Part, sent: &Identity, now: Instant) -> i16 {
        if node != self.node {
            return code::NOT_COORDINATOR;
        }
        if self.loading.is_some() {
            return code::COORDINATOR_LOAD_IN_PROGRESS;
        }
        let known = self.validate(&sent.member_id, &sent.instance_id);
        if known != code::NONE {
            return known;
        }
        if sent.generation != self.generation {
            return code::ILLEGAL_GENERATION;
        }
        if matches!(self.phase, Phase::Completing { .. }) {
            return code::REBALANCE_IN_PROGRESS;
        }
        let Some(member) = self.members.get_mut(&sent.member_id) else {
            return code::UNKNOWN_MEMBER_ID;
        };
        member.session = now + S;
        assert!(
            member.assigned.contains(part) || member.owned.contains(part),
            "{sent:?} commits {part:?}: {member:?}"
        );
        code::NONE
    }

    fn say(&mut self, (who, id): From, answer: Answer) {
        self.out.push(Reply { who, id, answer });
    }

    fn refuse_join(&mut self, from: From, code: i16) {
        let member_id = Arc::from("");
        self.say(
            from,
            Answer::Join { code, member_id, generation: -1, leader: false, skip_assignment: false },
        );
    }

    fn answer_sync(&mut self, from: From, code: i16, parts: Vec<Part>) {
        self.say(from, Answer::Sync { code, parts });
    }

    fn refuse_parked(&mut self, member: Member, code: i16) {
        if let Some(from) = member.join {
            self.refuse_join(from, code);
        }
        if let Some(from) = member.sync {
            self.answer_sync(from, code, vec![]);
        }
    }

    fn validate(&self, id: &Arc<str>, instance: &Option<Arc<str>>) -> i16 {
        if let Some(instance) = instance {
            let of =
                self.members.iter().find(|(_, member)| member.instance.as_ref() == Some(instance));
            if of.is_some_and(|(other, _)| other != id) {
                return code::FENCED_INSTANCE_ID;
            }
        }
        if self.members.contains_key(id) { code::NONE } else { code::UNKNOWN_MEMBER_ID }
    }

    fn new_id(&mut self) -> Arc<str> {
        self.ids += 1;
        Arc::from(format!("m{}", self.ids))
    }

    fn join(&mut self, from: From, id: Arc<str>, member: Member, now: Instant) {
        if id.is_empty() {
            let Some(instance) = &member.instance else {
                let id = self.new_id();
                self.pending.insert(Arc::clone(&id), now + S);
                let (code, generation) = (code::MEMBER_ID_REQUIRED, -1);
                return self.say(
                    from,
                    Answer::Join {
                        code,
                        member_id: id,
                        generation,
                        leader: false,
                        skip_assignment: false,
                    },
                );
            };
            let mut all = self.members.iter();
            let same = all.find(|(_, other)| other.instance.as_ref() == Some(instance));
            let same = same.map(|(id, _)| Arc::clone(id));
            let new = self.new_id();
            if let Some(old) = same {
                return self.replace(from, old, new, member, now);
            }
            self.members.insert(new, member);
            return self.prepare(now);
        }
        if self.pending.remove(&id).is_some() {
            self.members.insert(id, member);
            return self.prepare(now);
        }
        let known = self.validate(&id, &member.instance);
        if known != code::NONE {
            return self.refuse_join(from, known);
        }
        let is_leader = self.leader == id;
        let old = self.members.get_mut(&id).unwrap();
        let changed = (&old.topics, &old.owned, old.owned_generation)
            != (&member.topics, &member.owned, member.owned_generation);
        let rebalances = match self.phase {
            Phase::Preparing { .. } => true,
            Phase::Completing { .. } => changed,
            Phase::Stable | Phase::Empty => changed || is_leader,
        };
        let assigned = std::mem::take(&mut old.assigned);
        let sync = old.sync.take();
        *old = Member { assigned, ..member };
        if rebalances {
            let sync = sync.filter(|_| matches!(self.phase, Phase::Completing { .. }));
            if let Some(sync) = sync {
                self.answer_sync(sync, code::REBALANCE_IN_PROGRESS, vec![]);
            }
            self.prepare(now);
        } else {
            self.members.get_mut(&id).unwrap().join = None;
            self.answer_join(from, id, false);
        }
    }

    /// A static member is there again under another id.
    fn replace(&mut self, from: From, old: Arc<str>, new: Arc<str>, member: Member, now: Instant) {
        let mut before = self.members.remove(&old).unwrap();
        let assigned = std::mem::take(&mut before.assigned);
        let same_topics = before.topics == member.topics;
        self.refuse_parked(before, code::FENCED_INSTANCE_ID);
        self.members.insert(Arc::clone(&new), Member { assigned, ..member });
        let was_leader = self.leader == old;
        if was_leader {
            self.leader = Arc::clone(&new);
        }
        if self.phase == Phase::Stable && same_topics {
            self.members.get_mut(&new).unwrap().join = None;
            self.write();
            self.answer_join(from, new, true);
        } else {
            self.prepare(now);
        }
    }

    fn answer_join(&mut self, from: From, id: Arc<str>, skip: bool) {
        let leader = self.leader == id;
        if leader {
            let all = self.members.iter().map(|(id, member)| Joined {
                id: Arc::clone(id),
                topics: member.topics.clone(),
                owned: member.owned.clone(),
                owned_generation: member.owned_generation,
            });
            self.told.insert(from, all.collect());
        }
        let (generation, skip_assignment) = (self.generation, skip && leader);
        self.say(
            from,
            Answer::Join { code: code::NONE, member_id: id, generation, leader, skip_assignment },
        );
    }

    fn prepare(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Preparing { .. }) {
            let syncs: Vec<From> =
                self.members.values_mut().filter_map(|member| member.sync.take()).collect();
            for sync in syncs {
                self.answer_sync(sync, code::REBALANCE_IN_PROGRESS, vec![]);
            }
            self.phase = Phase::Preparing { until: now + R };
        }
        self.complete(false, now);
    }

    fn complete(&mut self, late: bool, now: Instant) {
        if !late
            && (self.members.values().any(|member| member.join.is_none())
                || !self.pending.is_empty())
        {
            return;
        }
        self.members.retain(|_, member| member.join.is_some() || member.instance.is_some());
        self.generation += 1;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader = Arc::from("");
            self.write();
            return;
        }
        if self.members.values().all(|member| member.join.is_none()) {
            // Static members only, none of which is there: it waits on.
            self.phase = Phase::Preparing { until: now + R };
            return;
        }
        if self.members.get(&self.leader).is_none_or(|member| member.join.is_none()) {
            let first = self.members.iter().find(|(_, member)| member.join.is_some());
            self.leader = Arc::clone(first.unwrap().0);
        }
        self.phase = Phase::Completing { until: now + R };
        let mut joins = Vec::new();
        for (id, member) in &mut self.members {
            member.session = now + S;
            joins.extend(member.join.take().map(|from| (from, Arc::clone(id))));
        }
        for (from, id) in joins {
            self.answer_join(from, id, false);
        }
    }

    fn sync(
        &mut self,
        from: From,
        id: &Arc<str>,
        instance: &Option<Arc<str>>,
        generation: i32,
        plan: Option<Plan>,
        now: Instant,
    ) {
        let known = self.validate(id, instance);
        if known != code::NONE {
            return self.answer_sync(from, known, vec![]);
        }
        if generation != self.generation {
            return self.answer_sync(from, code::ILLEGAL_GENERATION, vec![]);
        }
        match self.phase {
            Phase::Empty => self.answer_sync(from, code::UNKNOWN_MEMBER_ID, vec![]),
            Phase::Preparing { .. } => self.answer_sync(from, code::REBALANCE_IN_PROGRESS, vec![]),
            Phase::Completing { .. } => {
                self.members.get_mut(id).unwrap().sync = Some(from);
                if self.leader == *id {
                    let plan = plan.expect("the leader has a plan");
                    for (id, member) in &mut self.members {
                        member.assigned = plan.get(id).cloned().unwrap_or_default();
                    }
                    self.phase = Phase::Stable;
                    self.write();
                    let mut syncs = Vec::new();
                    for member in self.members.values_mut() {
                        member.session = now + S;
                        syncs
                            .extend(member.sync.take().map(|from| (from, member.assigned.clone())));
                    }
                    for (from, parts) in syncs {
                        self.answer_sync(from, code::NONE, parts);
                    }
                }
            }
            Phase::Stable => {
                let member = self.members.get_mut(id).unwrap();
                member.session = now + S;
                let parts = member.assigned.clone();
                self.answer_sync(from, code::NONE, parts);
            }
        }
    }

    fn heartbeat(
        &mut self,
        id: &Arc<str>,
        instance: &Option<Arc<str>>,
        generation: i32,
        now: Instant,
    ) -> i16 {
        let known = self.validate(id, instance);
        if known != code::NONE {
            return known;
        }
        if generation != self.generation {
            return code::ILLEGAL_GENERATION;
        }
        self.members.get_mut(id).unwrap().session = now + S;
        match self.phase {
            Phase::Preparing { .. } => code::REBALANCE_IN_PROGRESS,
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => code::NONE,
        }
    }

    fn remove(&mut self, id: &Arc<str>, now: Instant) {
        let Some(member) = self.members.remove(id) else { return };
        self.refuse_parked(member, code::UNKNOWN_MEMBER_ID);
        self.prepare(now);
    }

    fn write(&mut self) {
        self.log = (self.generation, Arc::clone(&self.leader), self.members.clone());
    }

    /// What the leader makes of what it was told.
    pub(super) fn plan(
        &self,
        join: RequestId,
        who: Who,
        partitions: &BTreeMap<Arc<str>, i32>,
    ) -> Option<Plan> {
        let joined = self.told.get(&(who, join))?;
        let part = |topic: &Arc<str>, n| Part {
            topic: Arc::clone(topic),
            topic_id: uuid::Uuid::nil(),
            partition: n,
        };
        let all = partitions.iter().flat_map(|(topic, n)| (0..*n).map(move |n| part(topic, n)));
        let mut plan: Plan =
            joined.iter().map(|member| (Arc::clone(&member.id), Vec::new())).collect();
        let most = partitions.values().sum::<i32>() as usize / joined.len() + 1;
        for part in all {
            let claims = |member: &&Joined| member.owned.contains(&part);
            let claimants: Vec<&Joined> = joined.iter().filter(claims).collect();
            let last = claimants.iter().map(|member| member.owned_generation).max();
            let mut owners =
                claimants.iter().filter(|member| Some(member.owned_generation) == last);
            let owner = owners.next().filter(|_| owners.next().is_none());
            let wants = |member: &&Joined| member.topics.contains(&part.topic);
            let keeps = owner.filter(|owner| wants(owner) && plan[&owner.id].len() < most);
            let to = match keeps {
                Some(owner) => Some(*owner),
                None => joined.iter().filter(wants).min_by_key(|member| plan[&member.id].len()),
            };
            let Some(to) = to else { continue };
            // What another one claims waits for the next round.
            if self.eager || claimants.iter().all(|other| other.id == to.id) || keeps.is_some() {
                plan.get_mut(&to.id).unwrap().push(part);
            }
        }
        Some(plan)
    }
}

impl Member {
    fn is_parked(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }
}
