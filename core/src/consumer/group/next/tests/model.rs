//! Members, their applications and a coordinator, under random events: requests and answers that are lost, coordinators that
//! move, members that are stopped, killed, closed and started, applications that do not come back, subscriptions and
//! topics that change. What holds after each step is what holds in the model of the classic protocol.

use std::collections::VecDeque;

use rand::RngExt;

use super::*;

mod broker;
mod events;

use broker::Broker;

/// As often the brokers of the model want to hear from members, and for how long they wait.
const BEAT: Duration = Duration::from_secs(1);
const S: Duration = Duration::from_secs(9);
const R: Duration = Duration::from_secs(60);
const TROUBLES: Duration = Duration::from_secs(300);
const SETTLING: Duration = Duration::from_secs(240);
const QUIET: Duration = Duration::from_secs(120);

type Who = usize;

/// What happens at a time.
#[derive(Debug)]
enum Due {
    /// A request reaches a broker.
    Arrives {
        who: Who,
        id: RequestId,
        node: u8,
        request: Request,
        instance: Option<Arc<str>>,
    },
    Commits {
        who: Who,
        part: Part,
        sent: Identity,
        found: RequestId,
        node: u8,
    },
    Committed {
        who: Who,
        part: Part,
        code: Option<i16>,
        sent: Identity,
        found: RequestId,
    },
    /// A member is told.
    Tells {
        who: Who,
        event: Event<Answer>,
    },
    /// The application is done with what it has.
    Done {
        who: Who,
    },
    /// The application looks whether there is something for it.
    Looks {
        who: Who,
    },
    Thaws {
        who: Who,
    },
    Trouble,
}

struct InHand {
    part: Part,
    /// It is to be committed when it is done.
    mark: bool,
}

/// A member, with what whoever drives it and its application know.
struct Sim {
    machine: Next,
    settings: Settings,
    subscription: Subscription,
    node: u8,
    /// Requests without an answer.
    open: BTreeSet<RequestId>,
    in_hand: Option<InHand>,
    to_commit: Vec<Part>,
    committing: bool,
    giving: Option<(Round, Vec<Part>)>,
    /// Stopped: what it is told waits.
    frozen: bool,
    waiting: VecDeque<Event<Answer>>,
    /// One connection: what is sent later comes later.
    last_arrival: Instant,
}

impl Sim {
    /// Whether the application would be given records of it.
    fn hands_out(&self, part: &Part, now: Instant) -> bool {
        let giving = self.machine.giving.as_ref().is_some_and(|giving| giving.parts.contains(part));
        !giving
            && self.machine.owned.contains(part)
            && self.machine.lease().is_some_and(|lease| lease > now)
    }
}

struct World {
    start: Instant,
    now: Instant,
    rng: StdRng,
    queue: BTreeMap<(Instant, u64), Due>,
    numbers: u64,
    broker: Broker,
    sims: BTreeMap<Who, Sim>,
    next_who: Who,
    /// Chance that something on the way is lost.
    loss: f64,
    joins: u32,
    lookups: u32,
    requests: u32,
    shows: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let old = rng.random_bool(0.5);
        Self {
            start,
            now: start,
            queue: BTreeMap::new(),
            numbers: 0,
            broker: Broker::new(old),
            sims: BTreeMap::new(),
            next_who: 0,
            loss: if rng.random_bool(0.7) { 0.03 } else { 0.0 },
            joins: 0,
            lookups: 0,
            requests: 0,
            shows: std::env::var("OTTLA_SHOW").is_ok(),
            rng,
        }
    }

    fn show(&self, what: impl Fn() -> String) {
        if self.shows {
            eprintln!("{:.3} {}", (self.now - self.start).as_secs_f64(), what());
        }
    }

    fn after(&mut self, delay: Duration, due: Due) {
        self.numbers += 1;
        self.queue.insert((self.now + delay, self.numbers), due);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(200..40_000))
    }

    /// On the member's one connection.
    fn in_order(&mut self, who: Who) -> Duration {
        let at = self.now + self.delay();
        let sim = self.sims.get_mut(&who).unwrap();
        sim.last_arrival = sim.last_arrival.max(at) + Duration::from_micros(1);
        sim.last_arrival - self.now
    }

    fn add_member(&mut self) {
        let who = self.next_who;
        let fixed = self.rng.random_bool(0.3);
        let settings = Settings {
            instance_id: fixed.then(|| Arc::from(format!("i{who}"))),
            session_timeout: S,
            max_poll_interval: R,
            eager: false,
            request_timeout: Duration::from_secs(5),
        };
        self.put(settings);
    }

    fn put(&mut self, settings: Settings) {
        let who = self.next_who;
        self.next_who += 1;
        let subscription = topics(&["t", "u"]);
        let machine = Next::new(settings.clone(), subscription.clone(), self.now, &mut self.rng);
        let sim = Sim {
            machine,
            settings,
            subscription,
            node: 0,
            open: BTreeSet::new(),
            in_hand: None,
            to_commit: Vec::new(),
            committing: false,
            giving: None,
            frozen: false,
            waiting: VecDeque::new(),
            last_arrival: self.now,
        };
        self.sims.insert(who, sim);
        let delay = self.delay();
        self.after(delay, Due::Looks { who });
        self.tell(who, Event::Asks);
    }

    /// Hands a member an event now, unless it is stopped.
    fn tell(&mut self, who: Who, event: Event<Answer>) {
        let Some(sim) = self.sims.get_mut(&who) else { return };
        if sim.frozen {
            sim.waiting.push_back(event);
            return;
        }
        if let Event::Answer { to, .. } = &event {
            sim.open.remove(to);
        }
        let shown = self.shows.then(|| format!("{event:?}"));
        let actions = sim.machine.on(event, self.now, &mut self.rng);
        if let Some(shown) = shown {
            let at = (self.now - self.start).as_secs_f64();
            eprintln!("{at:.3} {who}: {shown} -> {actions:?} {:?}", sim.machine.state);
        }
        let wake = sim.machine.next_wake();
        assert!(wake.is_none_or(|wake| wake > self.now), "{wake:?}: {:?}", sim.machine);
        self.execute(who, actions);
        let Some(sim) = self.sims.get(&who) else { return };
        let waits = wake.is_some() || !sim.open.is_empty() || sim.committing;
        let idle = matches!(sim.machine.state, State::Idle | State::Ended);
        assert!(waits || idle, "stuck: {:?}", sim.machine);
    }

    fn execute(&mut self, who: Who, actions: Actions) {
        for action in actions {
            match action {
                Action::FindCoordinator { id } => {
                    self.lookups += 1;
                    let right = self.loss == 0.0 || self.rng.random_bool(0.9);
                    let node = if right { self.broker.node } else { 1 - self.broker.node };
                    let outcome = match self.rng.random_bool(self.loss) {
                        true => Outcome::TimedOut,
                        false => Outcome::Answered(code::NONE),
                    };
                    let sim = self.sims.get_mut(&who).unwrap();
                    sim.node = node;
                    sim.open.insert(id);
                    let delay = self.delay();
                    let event = Event::Coordinator { to: id, outcome };
                    self.after(delay, Due::Tells { who, event });
                }
                Action::Send { id, lane: _, timeout, request } => {
                    self.send(who, id, timeout, request);
                }
                Action::Resolve { topics } => {
                    let name = |id: Uuid| {
                        let letter = char::from_u32(id.as_u128() as u32).unwrap();
                        (id, Arc::from(letter.to_string()))
                    };
                    let topics = topics.into_iter().map(name).collect();
                    let delay = self.delay() * 20;
                    self.after(delay, Due::Tells { who, event: Event::Named { topics } });
                }
                Action::GiveUp { round, parts, .. } => {
                    let sim = self.sims.get_mut(&who).unwrap();
                    sim.giving = Some((round, parts));
                    self.try_give_up(who);
                }
                Action::Drop { parts, .. } => {
                    let sim = self.sims.get_mut(&who).unwrap();
                    sim.to_commit.retain(|part| !parts.contains(part));
                    if let Some(InHand { part, mark }) = &mut sim.in_hand {
                        *mark &= !parts.contains(part);
                    }
                    let left = |(_, giving): &(Round, Vec<Part>)| {
                        giving.iter().any(|part| !parts.contains(part))
                    };
                    sim.giving = sim.giving.take().filter(left);
                }
                Action::Take { .. } | Action::Halt | Action::Resume | Action::Tell(_) => {}
                Action::Closed => {
                    self.sims.remove(&who);
                    return;
                }
                Action::End(_)
                | Action::UseClassic
                | Action::Abandon { .. }
                | Action::Plan { .. } => panic!("{action:?}: {:?}", self.sims[&who].machine),
            }
        }
    }

    fn send(&mut self, who: Who, id: RequestId, timeout: Duration, request: Request) {
        self.requests += 1;
        self.joins += u32::from(request.epoch == 0);
        let sim = self.sims.get_mut(&who).unwrap();
        assert!(!sim.committing || request.epoch < 0, "a commit is on its way");
        sim.open.insert(id);
        let node = sim.node;
        let instance = sim.settings.instance_id.clone();
        let delay = self.in_order(who);
        // Lost on its way there: found out at once, or never.
        if self.rng.random_bool(self.loss) {
            let (outcome, delay) = match self.rng.random_range(0..3) {
                0 => (Outcome::TimedOut, timeout),
                1 => (Outcome::NotSent, delay),
                _ => (Outcome::Cut, delay),
            };
            self.after(delay, Due::Tells { who, event: Event::Answer { to: id, outcome } });
            return;
        }
        let outcome = Outcome::TimedOut;
        let late = Due::Tells { who, event: Event::Answer { to: id, outcome } };
        self.after(timeout.max(delay + Duration::from_millis(1)), late);
        self.after(delay, Due::Arrives { who, id, node, request, instance });
    }

    fn step(&mut self, end: Instant) {
        let wake = |sim: &Sim| sim.machine.next_wake().filter(|_| !sim.frozen);
        let first = self.sims.iter().filter_map(|(who, sim)| Some((wake(sim)?, *who))).min();
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let broker = self.broker.next_wake();
        let next = [first.map(|(at, _)| at), queued, broker].into_iter().flatten().min();
        // All may be gone.
        self.now = next.unwrap_or(end).max(self.now);
        if let Some((at, who)) = first
            && at <= self.now
        {
            self.tell(who, Event::Tick);
        }
        self.broker.tick(self.now);
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let due = entry.remove();
            self.happen(due);
        }
        self.check();
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrives { who, id, node, request, instance } => {
                let answer = self.broker.heartbeat(node, request, &instance, self.now);
                let mut delay = self.delay();
                let mut outcome = Outcome::Answered(answer);
                if self.rng.random_bool(self.loss) {
                    outcome = Outcome::Cut;
                    delay += Duration::from_millis(self.rng.random_range(0..2_000));
                }
                self.after(delay, Due::Tells { who, event: Event::Answer { to: id, outcome } });
            }
            Due::Commits { who, part, sent, found, node } => {
                let code = self.broker.commit(node, &part, &sent);
                if code == code::NONE {
                    for (other, sim) in &self.sims {
                        let reads = *other != who && sim.hands_out(&part, self.now);
                        assert!(!reads, "{who} commits what {other} reads");
                    }
                }
                let code = (!self.rng.random_bool(self.loss)).then_some(code);
                let delay = self.delay();
                self.after(delay, Due::Committed { who, part, code, sent, found });
            }
            Due::Committed { who, part, code, sent, found } => {
                let Some(sim) = self.sims.get_mut(&who) else { return };
                if sim.frozen {
                    let later = Due::Committed { who, part, code, sent, found };
                    return self.after(Duration::from_millis(100), later);
                }
                sim.committing = false;
                if code == Some(code::NONE) {
                    sim.to_commit.retain(|other| *other != part);
                }
                self.tell(who, Event::Committing(false));
                match code {
                    Some(code::NONE) => {}
                    Some(code) => self.tell(who, Event::Refused { code, sent, found }),
                    None => self.tell(who, Event::CoordinatorLost { found }),
                }
                self.try_give_up(who);
            }
            Due::Tells { who, event } => {
                let Some(sim) = self.sims.get_mut(&who) else { return };
                match &event {
                    // It was answered before, or nobody waits.
                    Event::Answer { to, .. } if !sim.open.contains(to) => return,
                    Event::Coordinator { to, .. } => {
                        sim.open.remove(to);
                    }
                    _ => {}
                }
                self.tell(who, event);
                self.try_give_up(who);
            }
            Due::Done { who } => {
                let Some(sim) = self.sims.get_mut(&who) else { return };
                let Some(InHand { part, mark }) = sim.in_hand.take() else { return };
                if mark && !sim.to_commit.contains(&part) {
                    sim.to_commit.push(part);
                }
                self.tell(who, Event::Asks);
                self.try_give_up(who);
                let delay = self.delay();
                self.after(delay, Due::Looks { who });
            }
            Due::Looks { who } => self.look(who),
            Due::Thaws { who } => {
                let Some(sim) = self.sims.get_mut(&who) else { return };
                sim.frozen = false;
                let waiting = std::mem::take(&mut sim.waiting);
                for event in waiting {
                    self.tell(who, event);
                }
                self.tell(who, Event::Tick);
                let delay = self.delay();
                self.after(delay, Due::Looks { who });
            }
            Due::Trouble => self.trouble(),
        }
    }

    /// The application takes a batch, if there is one for it.
    fn look(&mut self, who: Who) {
        self.try_give_up(who);
        let Some(sim) = self.sims.get_mut(&who) else { return };
        if sim.frozen || sim.in_hand.is_some() {
            return;
        }
        let now = self.now;
        let ready: Vec<Part> =
            sim.machine.owned().filter(|part| sim.hands_out(part, now)).cloned().collect();
        if ready.is_empty() {
            self.after(Duration::from_secs(2), Due::Looks { who });
            return;
        }
        let part = ready[self.rng.random_range(0..ready.len())].clone();
        sim.in_hand = Some(InHand { part, mark: true });
        let slow = self.loss > 0.0 && self.rng.random_bool(0.005);
        let most = if slow { R * 3 / 2 } else { Duration::from_secs(6) };
        let work = most.mul_f64(self.rng.random_range(0.0..1.0));
        self.after(work, Due::Done { who });
        self.tell(who, Event::Away { since: self.now });
    }

    fn commit(&mut self, who: Who) {
        let Some(sim) = self.sims.get_mut(&who) else { return };
        if sim.frozen || sim.committing {
            return;
        }
        let (Commits::As(sent), Some(part)) = (sim.machine.commits(), sim.to_commit.first()) else {
            return;
        };
        assert!(sim.machine.owned.contains(part), "a commit of what is not ours");
        let (part, node) = (part.clone(), sim.node);
        let found = sim.machine.coordinator.found().unwrap();
        sim.committing = true;
        self.tell(who, Event::Committing(true));
        let delay = self.in_order(who);
        self.after(delay, Due::Commits { who, part, sent, found, node });
    }

    /// Commits what can be, and tells that partitions are given up if they are.
    fn try_give_up(&mut self, who: Who) {
        self.commit(who);
        let Some(sim) = self.sims.get_mut(&who) else { return };
        let Some((round, parts)) = &sim.giving else { return };
        let held = sim.in_hand.as_ref().is_some_and(|hand| parts.contains(&hand.part));
        if sim.frozen || held || sim.to_commit.iter().any(|part| parts.contains(part)) {
            return;
        }
        let round = *round;
        sim.giving = None;
        self.after(Duration::ZERO, Due::Tells { who, event: Event::GaveUp { round } });
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.add_member();
    }
    world.after(Duration::from_secs(1), Due::Trouble);
    world.run(TROUBLES);
    let limit = 40 * world.next_who as u32 * (TROUBLES.as_secs() as u32 / 60);
    assert!(world.joins < limit, "{} joins", world.joins);
    assert!(world.lookups < limit, "{} lookups", world.lookups);
    world.loss = 0.0;
    // Those that close are gone by then.
    world.run(Duration::from_secs(15));
    if world.sims.is_empty() {
        world.add_member();
    }
    world.run(SETTLING);
    world.assert_settled();
    let (joins, lookups, requests) = (world.joins, world.lookups, world.requests);
    world.run(QUIET);
    assert_eq!((world.joins, world.lookups), (joins, lookups), "nobody joins without a reason");
    let each = (world.requests - requests) as f64 / world.sims.len() as f64;
    let least = QUIET.as_secs_f64() / BEAT.as_secs_f64();
    assert!(each > least * 0.9 && each < least * 1.4, "{each} heartbeats");
    world.assert_settled();
}

#[test]
fn troubles_of_many_kinds() {
    for seed in seeds(0..60) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// `OTTLA_SEEDS=0..5000` for a longer search.
fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let chosen = std::env::var("OTTLA_SEEDS").ok();
    let range = chosen.as_deref().and_then(|range| range.split_once(".."));
    range.map_or(default, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}
