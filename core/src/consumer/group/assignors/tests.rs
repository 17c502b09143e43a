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

    /// A topic whose replicas go round these racks, by spaces: partition n begins at rack n. `-`: not known.
    pub(super) fn racked(
        mut self,
        topic: &str,
        partitions: usize,
        replicas: usize,
        racks: &str,
    ) -> Self {
        let racks: Vec<&str> = racks.split_whitespace().collect();
        let replica = |at: usize| racks[at % racks.len()];
        let of = |partition: usize| -> Vec<Arc<str>> {
            let all = (partition..partition + replicas).map(replica);
            all.filter(|rack| *rack != "-").map(text).collect()
        };
        self.topics.insert_with_racks(topic, (0..partitions).map(of).collect());
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

const ALL: [Assignor; 4] = Assignor::ALL;

#[test]
fn names() {
    let names = ["range", "roundrobin", "sticky", "cooperative-sticky"];
    assert_eq!(ALL.map(Assignor::name), names);
    assert_eq!(names.map(Assignor::from_name), ALL.map(Some));
    assert_eq!(Assignor::from_name("uniform"), None);
    assert_eq!(DEFAULT.map(Assignor::name), ["range", "cooperative-sticky"]);
}

#[test]
fn every_member_is_named() {
    for assignor in ALL {
        let group = Group::new(&[("t", 1)])
            .member("b", "t")
            .member("nothing", "")
            .member("elsewhere", "u")
            .member("a", "t");
        let plan = group.plan(assignor);
        let names: Vec<&str> = plan.members.iter().map(|(id, _)| &**id).collect();
        assert_eq!(names, ["b", "nothing", "elsewhere", "a"], "as they came");
        assert_eq!(group.planned(assignor), ["", "", "", "t-0"]);
        let sync: Vec<_> = plan.encode().collect();
        assert_eq!(sync.len(), 4);
        assert_eq!(sync[1], (text("nothing"), Assignment::default().encode()));
        let read = Assignment::decode(&sync[3].1).expect("an assignment");
        assert_eq!((read.partitions, read.user_data), (partitions("t-0"), None));

        assert_eq!(Group::default().planned(assignor), [""; 0]);
        assert_eq!(Group::new(&[]).member("a", "t").planned(assignor), [""]);
        assert_eq!(Group::new(&[("t", 0)]).member("a", "t").planned(assignor), [""]);
    }
}

/// A coordinator that names a member twice; a second entry of the plan would take the place of the first.
#[test]
fn a_member_that_is_named_twice_is_one() {
    for assignor in ALL {
        let group = Group::new(&[("t", 4)]).member("a", "t").member("b", "t").member("a", "t");
        let plan = group.plan(assignor);
        let counts: Vec<_> = plan.members.iter().map(|(id, p)| (&**id, p[0].1.len())).collect();
        assert_eq!(counts, [("a", 2), ("b", 2)]);
    }
}

/// Java's MemberInfo: static members by instance id, then dynamic ones by member id.
#[test]
fn the_order_of_members() {
    for assignor in ALL {
        let group = Group::new(&[("t", 4)])
            .member("1", "t")
            .member("0", "t")
            .member("9", "t")
            .instance("x")
            .member("8", "t")
            .instance("y");
        assert_eq!(group.planned(assignor), ["t-3", "t-2", "t-0", "t-1"], "{assignor:?}");
    }
}

#[test]
fn what_a_member_offers() {
    let topics = [text("t")];
    let rack = text("a");
    let held = partitions("t-3");
    let joining = Joining { topics: &topics, rack: Some(&rack), held: &held, generation: 7 };
    let read = |assignors: &[Assignor]| -> Vec<(&str, Subscription)> {
        let offers = offers(assignors, &joining);
        let read = |(name, bytes): &(&'static str, Bytes)| {
            (*name, Subscription::decode(bytes).expect("a subscription"))
        };
        offers.iter().map(read).collect()
    };
    let common = Subscription {
        topics: topics.to_vec(),
        user_data: None,
        owned: Vec::new(),
        generation: 7,
        rack: Some(rack.clone()),
    };
    let four_bytes = Some(Bytes::from_static(&[0, 0, 0, 7]));
    // One eager assignor, and nothing is owned in any of them.
    let cooperative = Subscription { user_data: four_bytes.clone(), ..common.clone() };
    assert_eq!(
        read(&DEFAULT),
        [("range", common.clone()), ("cooperative-sticky", cooperative.clone())]
    );
    assert!(!is_cooperative(&DEFAULT));
    let history = History { partitions: held.clone(), generation: 7 }.encode();
    let sticky = Subscription { user_data: Some(history), ..common.clone() };
    assert_eq!(
        read(&[Assignor::Sticky, Assignor::RoundRobin]),
        [("sticky", sticky), ("roundrobin", common)]
    );
    let owning = Subscription { owned: held.clone(), ..cooperative };
    assert_eq!(read(&[Assignor::CooperativeSticky]), [("cooperative-sticky", owning)]);
    assert!(is_cooperative(&[Assignor::CooperativeSticky]));
    assert!(!is_cooperative(&[]));
}

#[test]
fn a_first_join_has_no_history() {
    let topics = [text("t")];
    let joining =
        Joining { topics: &topics, rack: None, held: &Vec::new(), generation: NO_GENERATION };
    let offered = offers(&[Assignor::Sticky, Assignor::CooperativeSticky], &joining);
    let data = |at: usize| Subscription::decode(&offered[at].1).expect("readable").user_data;
    assert_eq!(data(0), None);
    assert_eq!(data(1), Some(Bytes::from_static(&[0xff; 4])));
}

/// Java's consumer looks at the field and franz-go at the user data, as each of them reads the other.
#[test]
fn generations_stand_in_both_places() {
    let topics = [text("t")];
    let held = partitions("t-0");
    let joining = Joining { topics: &topics, rack: None, held: &held, generation: 3 };
    for (_, bytes) in offers(&[Assignor::Sticky], &joining) {
        let said = Subscription::decode(&bytes).expect("readable");
        assert_eq!(said.generation, 3);
        assert_eq!(History::decode(said.user_data.as_deref()).generation, 3);
    }
}
