//! A group whose members are of several clients, and what is done to it: each step ends when every partition has one owner,
//! all have their share, and each partition is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla::{Client, NewTopic};

use crate::events::{Event, now_ms};
use crate::history::{Entry, History, What};
use crate::judge::{self, Layout, Owners};
use crate::member::Member;
use crate::programs::{Kind, Place, Programs, Protocol};

/// A session, a rebalance and a machine that has other things to do.
const SETTLE: Duration = Duration::from_secs(75);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Which group, and where.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The brokers.
    pub bootstrap: String,
    /// The topic and the group.
    pub name: String,
    /// What members speak.
    pub protocol: Protocol,
    /// Of the topic.
    pub partitions: i32,
    /// Copies of each.
    pub replicas: i16,
    /// Records a second.
    pub rate: u32,
}

/// A group at work, and somebody who writes.
#[derive(Debug)]
pub struct Group {
    setting: Setting,
    programs: Programs,
    history: History,
    written: History,
    producer: Option<Member>,
    members: Vec<(Kind, Member)>,
    frozen: BTreeSet<Arc<str>>,
    started: usize,
    layout: Layout,
    follow: Follow,
    moved: (usize, usize),
    steps: Vec<String>,
}

/// Who has what now, and when what was read last.
#[derive(Debug, Default)]
struct Follow {
    seen: usize,
    owners: Owners,
    read: BTreeMap<i32, (u64, Arc<str>)>,
}

impl Follow {
    fn catch_up(&mut self, history: &History) {
        history.with(|all| {
            for entry in &all[self.seen..] {
                self.owners.follow(entry);
                self.note(entry);
            }
            self.seen = all.len();
        });
    }

    fn note(&mut self, entry: &Entry) {
        if let What::Said(Event::RecordsConsumed { partitions, .. }) = &entry.what {
            for part in partitions {
                self.read.insert(part.partition, (entry.at, Arc::clone(&entry.member)));
            }
        }
    }
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Partitions that changed hands from one step to the next, and the fewest possible.
    pub moved: (usize, usize),
    /// Records that were acknowledged.
    pub records: i64,
    /// Records that were handled more than once.
    pub twice: u64,
    /// How often a member handed out what was somebody else's after it woke up.
    pub read_asleep: BTreeMap<Arc<str>, usize>,
    /// Partitions that were another member's before the one who had them knew that it was out.
    pub lapsed: Vec<String>,
    /// What was done, with how long it took until all was well.
    pub steps: Vec<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        let (moved, fewest) = self.moved;
        write!(
            f,
            "  {} records, {} twice; {moved} moves, {fewest} at least",
            self.records, self.twice
        )?;
        if !self.lapsed.is_empty() {
            write!(f, "; sessions ended: {}", self.lapsed.join("; "))?;
        }
        for (member, times) in &self.read_asleep {
            write!(f, "; {member} read what it had lost, {times} times")?;
        }
        Ok(())
    }
}

impl Group {
    /// Makes the topic and begins to write to it.
    ///
    /// # Errors
    /// The cluster's, in words.
    pub fn start(setting: Setting, programs: Programs) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let made = runtime.map_err(|e| e.to_string())?.block_on(async {
            let client = Client::connect(&setting.bootstrap).await?;
            let topic = NewTopic::new(&setting.name, setting.partitions, setting.replicas);
            client.admin().create_topic(topic).await
        });
        made.map_err(|e| format!("making {}: {e}", setting.name))?;
        let written = History::default();
        let command = programs.producer(&setting.bootstrap, &setting.name, setting.rate);
        let producer = Some(Member::start("writer", command, &written)?);
        Ok(Self {
            setting,
            programs,
            history: History::default(),
            written,
            producer,
            members: Vec::new(),
            frozen: BTreeSet::new(),
            started: 0,
            layout: Layout::new(),
            follow: Follow::default(),
            moved: (0, 0),
            steps: Vec::new(),
        })
    }

    /// Who is there.
    pub fn members(&self) -> Vec<(Kind, Arc<str>)> {
        self.members.iter().map(|(kind, member)| (*kind, Arc::clone(member.name()))).collect()
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.setting.name
    }

    /// SIGTERM; the group may be empty then.
    ///
    /// # Errors
    /// It does not end well.
    pub fn dismiss(&mut self, name: &str) -> Result<(), String> {
        let member = self.take(name)?;
        member.tell_to_leave()?;
        member.wait()
    }

    /// All that was said and done.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What the one who writes was told so far.
    pub fn written(&self) -> Vec<Entry> {
        self.written.sorted()
    }

    /// Ends it without looking: all members are killed.
    pub fn abandon(self) {}

    /// Starts a member, and does not wait.
    ///
    /// # Errors
    /// There is no such program.
    pub fn begin(&mut self, kind: Kind, instance: Option<&str>) -> Result<Arc<str>, String> {
        self.started += 1;
        let name = format!("{}-{}", kind.name(), self.started);
        let place = Place {
            bootstrap: &self.setting.bootstrap,
            topic: &self.setting.name,
            group: &self.setting.name,
            protocol: self.setting.protocol,
        };
        let command = self.programs.member(kind, &place, instance)?;
        let member = Member::start(&name, command, &self.history)?;
        let name = Arc::clone(member.name());
        self.members.push((kind, member));
        Ok(name)
    }

    /// A member comes.
    ///
    /// # Errors
    /// It cannot be started, or the group does not come to rest.
    pub fn join(&mut self, kind: Kind, instance: Option<&str>) -> Result<Arc<str>, String> {
        let name = self.begin(kind, instance)?;
        self.settle(&format!("{name} joins"))?;
        Ok(name)
    }

    fn take(&mut self, name: &str) -> Result<Member, String> {
        let at = self.members.iter().position(|(_, member)| &**member.name() == name);
        let at = at.ok_or_else(|| format!("there is no member {name}"))?;
        Ok(self.members.remove(at).1)
    }

    /// SIGKILL, and no waiting.
    ///
    /// # Errors
    /// There is no such member.
    pub fn kill(&mut self, name: &str) -> Result<(), String> {
        self.take(name)?.kill()
    }

    /// SIGTERM: it leaves.
    ///
    /// # Errors
    /// It does not end well, or the group does not come to rest.
    pub fn leave(&mut self, name: &str) -> Result<(), String> {
        self.dismiss(name)?;
        self.settle(&format!("{name} leaves")).map(drop)
    }

    /// SIGSTOP, and no waiting: the group goes on without it.
    ///
    /// # Errors
    /// There is no such member.
    pub fn freeze(&mut self, name: &str) -> Result<(), String> {
        let found = self.members.iter().find(|(_, member)| &**member.name() == name);
        let (_, member) = found.ok_or_else(|| format!("there is no member {name}"))?;
        member.freeze()?;
        self.frozen.insert(Arc::clone(member.name()));
        Ok(())
    }

    /// SIGCONT, and no waiting: it finds out by itself what it has lost.
    ///
    /// # Errors
    /// There is no such member.
    pub fn thaw(&mut self, name: &str) -> Result<(), String> {
        let found = self.members.iter().find(|(_, member)| &**member.name() == name);
        let (_, member) = found.ok_or_else(|| format!("there is no member {name}"))?;
        self.frozen.remove(name);
        member.thaw()
    }

    /// A static member ends and comes again under its name within its session: it has what it had, and the others notice
    /// nothing.
    ///
    /// # Errors
    /// It is not so.
    pub fn restart(&mut self, name: &str, kind: Kind, instance: &str) -> Result<Arc<str>, String> {
        let before = self.layout.clone();
        let others = |history: &History, new: &str| {
            let is_change = |entry: &&Entry| match &entry.what {
                What::Said(
                    Event::PartitionsAssigned { partitions }
                    | Event::PartitionsRevoked { partitions },
                ) => !partitions.is_empty() && &*entry.member != name && &*entry.member != new,
                _ => false,
            };
            history.with(|all| all.iter().filter(is_change).count())
        };
        let changes = others(&self.history, name);
        self.dismiss(name)?;
        let new = self.begin(kind, Some(instance))?;
        // What moves from the old process to the new one has not moved.
        for owner in self.layout.values_mut().filter(|owner| &***owner == name) {
            *owner = Arc::clone(&new);
        }
        let expected = self.layout.clone();
        self.settle(&format!("{name} restarts as {new}"))?;
        if self.layout != expected {
            return Err(format!("{name} restarted: {before:?} became {:?}", self.layout));
        }
        let more = others(&self.history, &new) - changes;
        // Under the eager protocol who has all again after a rebalance has noticed it.
        if more > 0 {
            return Err(format!("{name} restarted, and others noticed: {more} changes"));
        }
        Ok(new)
    }

    /// Waits until all is well: every partition has one owner, all have their share, and each partition is read.
    ///
    /// # Errors
    /// That does not happen in time, or a member has ended.
    ///
    /// Gives how many partitions have moved, and how many had to.
    pub fn settle(&mut self, what: &str) -> Result<(usize, usize), String> {
        let begun = Instant::now();
        let mut settled: Option<(Layout, u64)> = None;
        let layout = loop {
            self.follow.catch_up(&self.history);
            match (self.even(), &settled) {
                (Some(layout), Some((known, since))) if layout == *known => {
                    let is_read = |(partition, owner): (&i32, &Arc<str>)| {
                        let read = self.follow.read.get(partition);
                        read.is_some_and(|(at, by)| at > since && by == owner)
                    };
                    if layout.iter().all(is_read) {
                        break layout;
                    }
                }
                (Some(layout), _) => settled = Some((layout, now_ms())),
                (None, _) => settled = None,
            }
            for (_, member) in &mut self.members {
                if let Some(how) = member.has_ended() {
                    return Err(format!("{what}: {how}"));
                }
            }
            if begun.elapsed() > SETTLE {
                let last = |(p, (at, by)): (&i32, &(u64, Arc<str>))| {
                    format!("{p} {by} {} ms ago", now_ms().saturating_sub(*at))
                };
                let read: Vec<_> = self.follow.read.iter().map(last).collect();
                let of = &self.follow.owners;
                let kept = self.keep(&self.history.sorted());
                return Err(format!(
                    "{what}: {kept}: no rest in {SETTLE:?}: {of:?}, read: {}",
                    read.join("; ")
                ));
            }
            std::thread::sleep(LOOK);
        };
        let names: Vec<_> = self.awake().cloned().collect();
        let (moved, fewest) = judge::moves(&self.layout, &layout, &names);
        self.moved = (self.moved.0 + moved, self.moved.1 + fewest);
        self.layout = layout;
        let seconds = begun.elapsed().as_secs_f64();
        self.steps.push(format!(
            "{what}: at rest after {seconds:.1} s, {moved} moved of {fewest} at least"
        ));
        Ok((moved, fewest))
    }

    fn awake(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.members.iter().map(|(_, member)| member.name());
        all.filter(|name| !self.frozen.contains(*name))
    }

    /// The layout, if each partition has one owner and all have as many as the others, give or take one.
    fn even(&self) -> Option<Layout> {
        let names: BTreeSet<_> = self.awake().cloned().collect();
        let partitions = usize::try_from(self.setting.partitions).ok()?;
        let mut layout = Layout::new();
        let mut counts: BTreeMap<&Arc<str>, usize> = names.iter().map(|name| (name, 0)).collect();
        for (partition, owners) in self.follow.owners.all() {
            let mut owners = owners.iter();
            let (Some(owner), None) = (owners.next(), owners.next()) else { return None };
            *counts.get_mut(owner)? += 1;
            layout.insert(*partition, Arc::clone(owner));
        }
        let each = partitions / names.len().max(1);
        let is_fair = |count: &usize| *count == each || *count == each + 1;
        (layout.len() == partitions && counts.values().all(is_fair)).then_some(layout)
    }

    /// Ends it: what was written is handled and committed, the tools of Kafka agree, all leave, and the judge has nothing to say.
    ///
    /// # Errors
    /// What is wrong.
    pub fn finish(mut self) -> Result<Verdict, String> {
        let producer = self.producer.take().ok_or("nobody writes")?;
        producer.tell_to_leave()?;
        producer.wait()?;
        let ends = self.written.with(acknowledged)?;
        // sarama says nothing of its commits.
        let tells = self.members.iter().all(|(kind, _)| *kind != Kind::Sarama);
        let begun = Instant::now();
        loop {
            let all = self.history.sorted();
            let missing = judge::missing(&all, &ends);
            if missing.is_empty() && (!tells || judge::committed(&all) == ends) {
                break;
            }
            if begun.elapsed() > SETTLE {
                let committed = judge::committed(&all);
                return Err(format!("missing {missing:?}, committed {committed:?} of {ends:?}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        if tells {
            self.check_lag(&ends)?;
        }
        for (_, member) in &self.members {
            member.tell_to_leave()?;
        }
        for (_, member) in self.members.drain(..) {
            member.wait()?;
        }
        self.judge(&ends)
    }

    /// Kafka's tool says that the group is at the ends.
    fn check_lag(&self, ends: &BTreeMap<i32, i64>) -> Result<(), String> {
        let name = &self.setting.name;
        let Some(mut describe) = self.programs.describe(&self.setting.bootstrap, name) else {
            return Ok(());
        };
        let told = describe.output().map_err(|e| format!("describing {name}: {e}"))?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let mut lags = BTreeMap::new();
        for line in told.lines() {
            // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID ...
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [group, topic, partition, current, end, lag, ..] = words[..]
                && group == name
                && topic == name
            {
                let number = |word: &str| word.parse::<i64>().map_err(|_| told.clone());
                let partition = i32::try_from(number(partition)?).map_err(|_| told.clone())?;
                lags.insert(partition, (number(current)?, number(end)?, number(lag)?));
            }
        }
        let expected = ends.iter().map(|(partition, end)| (*partition, (*end, *end, 0)));
        if lags == expected.collect() { Ok(()) } else { Err(format!("{ends:?} is not\n{told}")) }
    }

    /// Writes down what happened, for who has to find out why.
    fn keep(&self, all: &[Entry]) -> String {
        let path = std::env::temp_dir().join(format!("{}.history", self.setting.name));
        let line = |entry: &Entry| format!("{} {} {:?}\n", entry.at, entry.member, entry.what);
        let text: String = all.iter().map(line).collect();
        match std::fs::write(&path, text) {
            Ok(()) => format!("all of it in {}", path.display()),
            Err(e) => format!("{}: {e}", path.display()),
        }
    }

    fn judge(mut self, ends: &BTreeMap<i32, i64>) -> Result<Verdict, String> {
        let all = self.history.sorted();
        let (owned_twice, lapsed) = judge::owned_twice(&all);
        let without_reason = judge::twice_without_reason(&all);
        let read_asleep = judge::read_asleep(&all);
        let records = ends.values().sum::<i64>();
        let verdict = Verdict {
            moved: self.moved,
            records,
            twice: judge::handled(&all).saturating_sub(records.unsigned_abs()),
            read_asleep,
            lapsed,
            steps: std::mem::take(&mut self.steps),
        };
        let mut wrong = Vec::new();
        wrong.extend(owned_twice.iter().take(5).map(|w| format!("owned twice: {w}")));
        wrong.extend(without_reason.iter().take(5).map(|w| format!("read twice: {w}")));
        for (member, times) in &verdict.read_asleep {
            // It may have had a batch in hand when it fell asleep, and nothing more.
            if member.starts_with(Kind::Ours.name()) && *times > 1 {
                wrong.push(format!("{member} woke up and read {times} times what it had lost"));
            }
        }
        let (moved, fewest) = verdict.moved;
        // Who was thought dead has its partitions again, or others do: that is nobody's plan.
        let is_quiet = verdict.lapsed.is_empty();
        // A tenth more, and two: others lead as well, and few partitions make a tenth small.
        if self.setting.protocol.is_sticky() && is_quiet && moved * 10 > fewest * 11 + 20 {
            wrong.push(format!("{moved} moves, where {fewest} do"));
        }
        if wrong.is_empty() {
            return Ok(verdict);
        }
        let kept = self.keep(&all);
        Err(format!("{}, {kept}:\n{}\n{verdict}", self.setting.name, wrong.join("\n")))
    }
}

/// Where each partition ends, as the one who wrote was told.
fn acknowledged(all: &[Entry]) -> Result<BTreeMap<i32, i64>, String> {
    let mut ends = BTreeMap::new();
    for entry in all {
        match &entry.what {
            What::Said(Event::ProducerSendSuccess { partition, offset, .. }) => {
                let end = ends.entry(*partition).or_insert(0);
                *end = (*end).max(offset + 1);
            }
            What::Said(Event::ProducerSendError { message, .. }) => {
                return Err(format!("a record could not be written: {message}"));
            }
            _ => {}
        }
    }
    Ok(ends)
}
