//! A member in the model: the machine, and what whoever drives it and its application know.

use super::*;

pub(super) struct InHand {
    pub(super) part: Part,
    /// It is to be committed when it is done.
    pub(super) mark: bool,
}

pub(super) struct Sim {
    pub(super) machine: Classic,
    pub(super) settings: Settings,
    pub(super) subscription: Subscription,
    /// Where it believes the coordinator to be.
    pub(super) node: u8,
    /// Requests without an answer.
    pub(super) open: BTreeMap<RequestId, Option<Lane>>,
    pub(super) joined: BTreeSet<RequestId>,
    pub(super) planning: Option<RequestId>,
    pub(super) plans: BTreeMap<RequestId, Plan>,
    pub(super) in_hand: Option<InHand>,
    pub(super) to_commit: Vec<Part>,
    pub(super) committing: bool,
    pub(super) giving: Option<(Round, Vec<Part>)>,
    /// Stopped: what it is told waits.
    pub(super) frozen: bool,
    pub(super) waiting: VecDeque<Event<Answer>>,
}

impl Sim {
    pub(super) fn new(machine: Classic, settings: Settings, subscription: Subscription) -> Self {
        Self {
            machine,
            settings,
            subscription,
            node: 0,
            open: BTreeMap::new(),
            joined: BTreeSet::new(),
            planning: None,
            plans: BTreeMap::new(),
            in_hand: None,
            to_commit: Vec::new(),
            committing: false,
            giving: None,
            frozen: false,
            waiting: VecDeque::new(),
        }
    }

    /// Whether the application would be given records of it.
    pub(super) fn hands_out(&self, part: &Part, now: Instant) -> bool {
        let giving = self.machine.giving.as_ref().is_some_and(|giving| giving.parts.contains(part));
        !giving
            && self.machine.owned.contains(part)
            && self.machine.lease().is_some_and(|lease| lease > now)
    }
}
