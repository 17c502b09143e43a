//! Exchanges that leave the balance as it is, and give members back what they had. In a flow of least cost there is no
//! ring of moves that costs less than nothing (Klein), so all that is found here is used, until there is none.
//!
//! A move of one class from a member costs 1 if that member had it, and gives 1 back if who gets it had it. A ring
//! closes through members alone, or where the last of them has one fewer than the first: then both change places, and
//! the balance is the same. A search follows Bellman and Ford over members, classes, and *steps*: between those who
//! have n and those who have n+1.

use super::Shares;

pub(super) fn restore(shares: &mut Shares) {
    while shares.classes.iter().any(loses) {
        let rings = Search::new(shares).rings();
        if rings.is_empty() {
            return;
        }
        for ring in rings {
            exchange(shares, &ring);
        }
    }
}

fn loses(class: &super::Class) -> bool {
    class.gets.iter().zip(&class.had).any(|(gets, had)| gets < had)
}

/// A move along a ring.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// The member at this place of the class gives one.
    Give { class: usize, place: usize },
    /// It gets one.
    Take { class: usize, place: usize },
    /// The member ends up with one more than it had.
    Rise { member: usize },
    /// With one fewer.
    Fall { member: usize },
}

impl Move {
    /// What the first costs, and how many there are that cost as much.
    fn cost(self, shares: &Shares) -> (i32, u32) {
        match self {
            Self::Give { class, place } => {
                let class = &shares.classes[class];
                let (gets, had) = (class.gets[place], class.had[place]);
                if gets > had { (0, gets - had) } else { (1, gets) }
            }
            Self::Take { class, place } => {
                let class = &shares.classes[class];
                let (gets, had) = (class.gets[place], class.had[place]);
                if gets < had { (-1, had - gets) } else { (0, u32::MAX) }
            }
            Self::Rise { .. } | Self::Fall { .. } => (0, 1),
        }
    }
}

fn exchange(shares: &mut Shares, ring: &[Move]) {
    let amount = ring.iter().map(|step| step.cost(shares).1).min().unwrap_or(0);
    for step in ring {
        match *step {
            Move::Give { class, place } => shares.classes[class].gets[place] -= amount,
            Move::Take { class, place } => shares.classes[class].gets[place] += amount,
            Move::Rise { member } => shares.load[member] += amount,
            Move::Fall { member } => shares.load[member] -= amount,
        }
    }
}

/// Nodes: members, then classes, then steps of load.
struct Search<'a> {
    shares: &'a Shares,
    cost: Vec<i32>,
    /// By which move, from which node, a node is reached for that.
    from: Vec<Option<(usize, Move)>>,
}

impl<'a> Search<'a> {
    fn new(shares: &'a Shares) -> Self {
        let most = shares.load.iter().max().map_or(0, |most| *most as usize);
        let nodes = shares.load.len() + shares.classes.len() + most + 1;
        Self { shares, cost: vec![0; nodes], from: vec![None; nodes] }
    }

    /// Rings that cost less than nothing, with no node in common; none if there is none.
    fn rings(mut self) -> Vec<Vec<Move>> {
        while self.pass() {
            let rings = self.closed();
            if !rings.is_empty() {
                return rings;
            }
        }
        Vec::new()
    }

    /// Looks at each move once.
    fn pass(&mut self) -> bool {
        let shares = self.shares;
        let classes = shares.load.len();
        let steps = classes + shares.classes.len();
        let mut changed = false;
        for (at, class) in shares.classes.iter().enumerate() {
            for (place, member) in class.members.iter().enumerate() {
                if class.gets[place] > 0 {
                    let step = Move::Give { class: at, place };
                    changed |= self.reach(*member as usize, step, classes + at);
                }
            }
            for (place, member) in class.members.iter().enumerate() {
                let step = Move::Take { class: at, place };
                changed |= self.reach(classes + at, step, *member as usize);
            }
        }
        for (member, load) in shares.load.iter().enumerate() {
            changed |= self.reach(member, Move::Rise { member }, steps + *load as usize);
        }
        for (member, load) in shares.load.iter().enumerate().filter(|(_, load)| **load > 0) {
            changed |= self.reach(steps + *load as usize - 1, Move::Fall { member }, member);
        }
        changed
    }

    fn reach(&mut self, from: usize, step: Move, to: usize) -> bool {
        let cost = self.cost[from] + step.cost(self.shares).0;
        let cheaper = cost < self.cost[to];
        if cheaper {
            self.cost[to] = cost;
            self.from[to] = Some((from, step));
        }
        cheaper
    }

    /// Where nodes are reached from one another in a ring, it costs less than nothing.
    fn closed(&self) -> Vec<Vec<Move>> {
        // The search in which a node was seen.
        let mut seen = vec![0; self.from.len()];
        let mut rings = Vec::new();
        for start in 0..self.from.len() {
            let mut at = start;
            while seen[at] == 0 {
                seen[at] = start + 1;
                let Some((from, _)) = self.from[at] else { break };
                at = from;
            }
            if seen[at] != start + 1 || self.from[at].is_none() {
                continue;
            }
            let mut ring = Vec::new();
            let end = at;
            while let Some((from, step)) = self.from[at] {
                ring.push(step);
                at = from;
                if at == end {
                    break;
                }
            }
            rings.push(ring);
        }
        rings
    }
}
