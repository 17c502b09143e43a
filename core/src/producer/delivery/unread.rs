//! Failures that nobody has looked at. Flush, close, and the end of a producer report them.
//!
//! A batch that fails counts its records here, once, for the producers that sent them. A handle that is read
//! takes its record out again. For a record that is acknowledged nothing is done.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::environment::Environment;
use crate::error::{Error, Result, Undelivered};

/// How many kinds of failures (topic and error) are counted apart. Further kinds are counted with the last one.
const MOST_GROUPS: usize = 64;

/// How long a report waits for tasks that wait for failed records: they were woken at the same time and only have to
/// be polled.
const GRACE: Duration = Duration::from_millis(50);

/// The unread failures of one producer and its clones.
pub(crate) struct Unread {
    tally: Mutex<Tally>,
    /// Tells that a failure was looked at.
    looked: Notify,
    /// Counts what fails after the producer was dropped.
    heir: Option<Arc<Self>>,
}

#[derive(Default)]
struct Tally {
    /// Counts reports: records that failed before a report are not taken out after it.
    report: u64,
    groups: Vec<Group>,
    records: usize,
    /// How many of them are in batches that a task was waiting for.
    awaited: usize,
    gone: bool,
}

struct Group {
    topic: Arc<str>,
    /// The first error of this kind.
    error: Error,
    records: usize,
    /// It counts other topics and errors, too, since there were too many kinds.
    others: bool,
    retriable: bool,
    maybe_written: bool,
}

impl Group {
    fn is_of(&self, topic: &str, error: &Error) -> bool {
        let of = |e: &Error| (e.kind(), e.broker_code(), e.is_retriable(), e.maybe_written());
        &*self.topic == topic && of(&self.error) == of(error)
    }
}

/// Where failed records were counted, so that they can be taken out again.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    by: Arc<Unread>,
    report: u64,
    group: usize,
    awaited: bool,
}

impl Counted {
    /// `records` of these were looked at: they are taken out.
    pub(crate) fn looked_at(&self, records: usize) {
        let mut tally = self.by.lock();
        if tally.report != self.report {
            return;
        }
        tally.groups[self.group].records -= records;
        tally.records -= records;
        if self.awaited {
            tally.awaited -= records;
        }
        if tally.records == 0 {
            tally.begin_anew();
        }
        drop(tally);
        self.by.looked.notify_waiters();
    }

    /// Whether a report has told of them.
    pub(crate) fn is_told(&self) -> bool {
        self.by.lock().report != self.report
    }
}

impl Tally {
    fn begin_anew(&mut self) {
        self.report += 1;
        self.groups.clear();
        (self.records, self.awaited) = (0, 0);
    }

    fn take(&mut self) -> Option<Undelivered> {
        let some = || self.groups.iter().filter(|group| group.records > 0);
        let first = some().next()?.error.clone();
        let mut topics: Vec<Arc<str>> = Vec::new();
        let mut more_topics = false;
        let mut seen = BTreeSet::new();
        for group in some() {
            if seen.insert(Arc::clone(&group.topic)) {
                match topics.len() < Undelivered::MOST_TOPICS {
                    true => topics.push(Arc::clone(&group.topic)),
                    false => more_topics = true,
                }
            }
            more_topics |= group.others;
        }
        let report = Undelivered {
            records: self.records,
            first,
            topics,
            more_topics,
            retriable: some().any(|group| group.retriable),
            maybe_written: some().any(|group| group.maybe_written),
        };
        self.begin_anew();
        Some(report)
    }
}

impl Unread {
    /// For a new producer; `heir` counts what fails after that was dropped.
    pub(crate) fn new(heir: Option<&Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { tally: Mutex::default(), looked: Notify::new(), heir: heir.cloned() })
    }

    /// A number that identifies it as long as anything refers to it.
    #[inline]
    pub(crate) fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts failed records. `awaited`: a task waits for some of them and will be woken now.
    pub(crate) fn failed(
        self: &Arc<Self>,
        topic: &Arc<str>,
        error: &Error,
        records: usize,
        awaited: bool,
    ) -> Counted {
        let mut tally = self.lock();
        if let (true, Some(heir)) = (tally.gone, &self.heir) {
            drop(tally);
            return heir.failed(topic, error, records, awaited);
        }
        let known = tally.groups.iter().position(|group| group.is_of(topic, error));
        let group = known.unwrap_or_else(|| {
            if tally.groups.len() < MOST_GROUPS {
                tally.groups.push(Group {
                    topic: Arc::clone(topic),
                    error: error.clone(),
                    records: 0,
                    others: false,
                    retriable: false,
                    maybe_written: false,
                });
            } else if let Some(last) = tally.groups.last_mut() {
                last.others = true;
            }
            tally.groups.len() - 1
        });
        let there = &mut tally.groups[group];
        there.records += records;
        there.retriable |= error.is_retriable();
        there.maybe_written |= error.maybe_written();
        tally.records += records;
        if awaited {
            tally.awaited += records;
        }
        Counted { by: Arc::clone(self), report: tally.report, group, awaited }
    }

    /// Takes the report of the failures since the last one that nobody has looked at.
    pub(crate) fn take(&self) -> Option<Undelivered> {
        self.lock().take()
    }

    /// The same, after tasks that wait for failed records had a chance to look at them.
    pub(crate) async fn take_later(&self, env: &Environment) -> Option<Undelivered> {
        if self.lock().awaited > 0 {
            let looked = async {
                loop {
                    let looked = self.looked.notified();
                    tokio::pin!(looked);
                    looked.as_mut().enable();
                    if self.lock().awaited == 0 {
                        return;
                    }
                    looked.await;
                }
            };
            let sleep = env.sleep(GRACE);
            tokio::select! {
                biased;
                () = looked => {}
                () = sleep => {}
            }
        }
        self.take()
    }

    /// The same as the result of a flush.
    pub(crate) async fn report(&self, env: &Environment) -> Result<()> {
        self.take_later(env).await.map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// The producer was dropped: takes the last report. Later failures are counted by the heir.
    pub(crate) fn gone(&self) -> Option<Undelivered> {
        let mut tally = self.lock();
        tally.gone = true;
        tally.take()
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("records", &self.lock().records).finish_non_exhaustive()
    }
}

/// Which producer sent which records of a batch, in their order. `None` for records whose results are told in another
/// way (those of bindings).
#[derive(Debug, Default)]
pub(crate) struct Producers {
    first: Option<Arc<Unread>>,
    /// The producers after the first, each with the index of its first record.
    later: Vec<(u32, Option<Arc<Unread>>)>,
}

/// Where the failed records of a batch are counted, from index `first` up to the next entry's.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(in crate::producer) first: u32,
    pub(super) counted: Option<Counted>,
}

fn same(a: Option<&Arc<Unread>>, b: Option<&Arc<Unread>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

impl Producers {
    /// Records from this index on are this producer's.
    pub(crate) fn add(&mut self, index: u32, producer: Option<&Arc<Unread>>) {
        if index == 0 {
            self.first = producer.cloned();
        } else if !same(self.last(), producer) {
            self.later.push((index, producer.cloned()));
        }
    }

    fn last(&self) -> Option<&Arc<Unread>> {
        match self.later.last() {
            Some((_, last)) => last.as_ref(),
            None => self.first.as_ref(),
        }
    }

    /// The producer that sent the record with this index.
    pub(crate) fn of(&self, index: u32) -> Option<&Arc<Unread>> {
        match self.later.partition_point(|(first, _)| *first <= index) {
            0 => self.first.as_ref(),
            n => self.later[n - 1].1.as_ref(),
        }
    }

    /// All records of the batch failed: counts them for the producers that sent them.
    pub(crate) fn failed(
        &self,
        topic: &Arc<str>,
        error: &Error,
        records: u32,
        awaited: bool,
    ) -> Vec<Owed> {
        let first = std::iter::once((0, self.first.as_ref()));
        let runs =
            first.chain(self.later.iter().map(|(first, producer)| (*first, producer.as_ref())));
        let ends = self.later.iter().map(|(first, _)| *first).chain([records]);
        let owed = |((first, producer), end): ((u32, Option<&Arc<Unread>>), u32)| {
            let some = end.saturating_sub(first) as usize;
            let counted = producer
                .filter(|_| some > 0)
                .map(|producer| producer.failed(topic, error, some, awaited));
            Owed { first, counted }
        };
        let owed: Vec<_> = runs.zip(ends).map(owed).collect();
        match owed.iter().all(|owed| owed.counted.is_none()) {
            true => Vec::new(),
            false => owed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn topic(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn refused() -> Error {
        Error::broker(29, "topic 'a'", None)
    }

    fn in_doubt() -> Error {
        Error::closed("client").with_maybe_written(true)
    }

    #[test]
    fn what_was_looked_at_or_told_is_not_told_again() {
        let unread = Unread::new(None);
        assert!(unread.take().is_none());
        let first = unread.failed(&topic("a"), &refused(), 3, false);
        let other = unread.failed(&topic("b"), &in_doubt(), 2, false);
        first.looked_at(3);
        let told = unread.take().expect("two are left");
        assert_eq!((told.records(), told.first_error().kind()), (2, ErrorKind::Closed));
        assert_eq!(told.topics().collect::<Vec<_>>(), ["b"]);
        assert!(unread.take().is_none());
        other.looked_at(2);
        let again = unread.failed(&topic("a"), &refused(), 1, false);
        other.looked_at(2);
        let error = Error::from(unread.take().expect("what failed after the report"));
        assert_eq!(error.kind(), ErrorKind::Undelivered);
        assert!(!error.maybe_written() && !error.is_retriable() && !error.is_fatal());
        again.looked_at(1);
        assert!(unread.take().is_none());
    }

    /// Any of them: whoever sends all again must know of one that may be there.
    #[test]
    fn one_that_may_be_written_makes_all_of_them_so() {
        let unread = Unread::new(None);
        let _refused = unread.failed(&topic("a"), &refused(), 1, false);
        let timeout = Error::timeout("record", Duration::from_secs(1)).with_maybe_written(true);
        let late = unread.failed(&topic("b"), &timeout, 1, false);
        let error = Error::from(unread.take().unwrap());
        assert!(error.maybe_written() && error.is_retriable());
        assert_eq!(error.undelivered().unwrap().first_error().broker_code(), Some(29));
        late.looked_at(1);
    }

    #[test]
    fn a_million_topics_are_a_few_groups() {
        let unread = Unread::new(None);
        for i in 0..1_000 {
            drop(unread.failed(&topic(&format!("t{i}")), &refused(), 2, false));
        }
        assert_eq!(unread.lock().groups.len(), MOST_GROUPS);
        let told = unread.take().unwrap();
        assert_eq!((told.records(), told.topics().count()), (2_000, Undelivered::MOST_TOPICS));
        assert!(told.to_string().contains("and others"), "{told}");
    }

    #[test]
    fn an_heir_hears_of_what_fails_later() {
        let heir = Unread::new(None);
        let unread = Unread::new(Some(&heir));
        drop(unread.failed(&topic("a"), &refused(), 1, false));
        assert_eq!(unread.gone().unwrap().records(), 1);
        let late = unread.failed(&topic("a"), &refused(), 5, false);
        late.looked_at(1);
        assert!(unread.take().is_none());
        assert_eq!(heir.take().unwrap().records(), 4);
    }

    #[test]
    fn records_are_their_senders() {
        let (one, two) = (Unread::new(None), Unread::new(None));
        let mut producers = Producers::default();
        let order = [Some(&one), Some(&one), None, Some(&two), Some(&two), Some(&one)];
        for (index, producer) in (0..).zip(order) {
            producers.add(index, producer);
        }
        for (index, producer) in (0..).zip(order) {
            assert!(same(producers.of(index), producer), "record {index}");
        }
        let owed = producers.failed(&topic("a"), &refused(), 6, false);
        assert_eq!(owed.iter().map(|owed| owed.first).collect::<Vec<_>>(), [0, 2, 3, 5]);
        assert_eq!((one.take().unwrap().records(), two.take().unwrap().records()), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_waits_for_who_is_about_to_look() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let unread = Unread::new(None);
        let counted = unread.failed(&topic("a"), &refused(), 2, true);
        let looks = tokio::spawn(async move { counted.looked_at(2) });
        assert!(unread.report(&env).await.is_ok());
        looks.await.unwrap();
        // Whoever has given up does not look, ever.
        let _given_up = unread.failed(&topic("a"), &refused(), 2, true);
        assert_eq!(unread.report(&env).await.unwrap_err().undelivered().unwrap().records(), 2);
    }
}
