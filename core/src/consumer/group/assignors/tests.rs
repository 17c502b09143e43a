//! What holds for all assignors, and what other clients do with the same group.

use super::*;

/// A group that is planned for again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
    pub(super) topics: Topics,
}

pub(super) fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

/// `t1-0 t1-1 t2-0`, as tests of other clients write it.
pub(super) fn partitions(list: &str) -> Partitions {
    let mut all: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for part in list.split_whitespace() {
        let (topic, number) = part.rsplit_once('-').expect("topic-number");
        all.entry(text(topic)).or_default().push(number.parse().expect("a number"));
    }
    all.into_iter().collect()
}

pub(super) fn written(partitions: &Partitions) -> String {
    let parts = partitions
        .iter()
        .flat_map(|(topic, numbers)| numbers.iter().map(move |number| format!("{topic}-{number}")));
    parts.collect::<Vec<_>>().join(" ")
}

impl Group {
    pub(super) fn new(topics: &[(&str, usize)]) -> Self {
        let mut group = Self::default();
        for (topic, partitions) in topics {
            group.topics.insert(*topic, *partitions);
        }
        group
    }

    /// `topics`: their names, by spaces.
    pub(super) fn member(mut self, id: &str, topics: &str) -> Self {
        let topics = topics.split_whitespace().map(text).collect();
        let subscription = Subscription { topics, ..Subscription::default() };
        self.members.push(Member { id: text(id), instance_id: None, subscription });
        self
    }

    pub(super) fn last(&mut self) -> &mut Member {
        self.members.last_mut().expect("a member")
    }

    pub(super) fn instance(mut self, instance_id: &str) -> Self {
        self.last().instance_id = Some(text(instance_id));
        self
    }

    pub(super) fn rack(mut self, rack: Option<&str>) -> Self {
        self.last().subscription.rack = rack.map(text);
        self
    }

    /// What the last member claims, to both sticky assignors.
    pub(super) fn had(mut self, list: &str, generation: i32) -> Self {
        says(self.last(), partitions(list), generation);
        self
    }

    pub(super) fn plan(&self, assignor: Assignor) -> Plan {
        assignor.plan(&self.members, &self.topics)
    }

    /// The plan in words, for each member in the order of the group.
    pub(super) fn planned(&self, assignor: Assignor) -> Vec<String> {
        self.plan(assignor).members.iter().map(|(_, partitions)| written(partitions)).collect()
    }

    /// What members say in the next generation: what the plan gave them.
    pub(super) fn follow(&mut self, plan: &Plan, generation: i32) {
        for member in &mut self.members {
            let theirs = plan.members.iter().find(|(id, _)| *id == member.id);
            says(member, theirs.expect("named in the plan").1.clone(), generation);
        }
    }
}

pub(super) fn says(member: &mut Member, partitions: Partitions, generation: i32) {
    let history = History { partitions: partitions.clone(), generation };
    let said = &mut member.subscription;
    (said.owned, said.generation, said.user_data) =
        (partitions, generation, Some(history.encode()));
}
