use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn wanted(partition: i32) -> Wanted {
    let name: Arc<str> = Arc::from("t");
    Wanted {
        key: Key { topic: TopicKey::Name(Arc::clone(&name)), partition },
        name: Some(name),
        ask: Ask { offset: 0, fetched_epoch: -1, leader_epoch: -1, max_bytes: 1 },
    }
}

fn told(high_watermark: i64) -> Told {
    Told { high_watermark, log_start: 0, records: false, error: false, always: false }
}

struct Steps {
    cache: SessionCache,
    now: Instant,
}

impl Steps {
    fn new(slots: usize) -> Self {
        Self { cache: SessionCache::new(slots, 7), now: Instant::now() }
    }

    /// A full request of so many partitions; the id of the session that it gets.
    fn open(&mut self, partitions: i32) -> i32 {
        let named: Vec<Wanted> = (0..partitions).map(wanted).collect();
        let (context, list) = self.begin(NO_SESSION, FIRST, named, &[]);
        let tells: Vec<_> = list.iter().map(|wanted| (wanted, told(0))).collect();
        self.cache.finish(context, &tells, self.now).1
    }

    fn begin(
        &mut self,
        session_id: i32,
        epoch: i32,
        named: Vec<Wanted>,
        forgotten: &[Key],
    ) -> (Context, Vec<Wanted>) {
        let request = Request { session_id, epoch, by_ids: false, named, forgotten };
        self.cache.begin(request, self.now, |_| None).expect("not too many")
    }

    /// A request that changes nothing; its error.
    fn touch(&mut self, id: i32, epoch: i32) -> i16 {
        let (context, _) = self.begin(id, epoch, vec![], &[]);
        self.cache.finish(context, &[], self.now).0
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ids(&self) -> Vec<i32> {
        self.cache.infos().iter().map(|info| info.id).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn epochs_run_to_the_end_and_begin_again_at_one() {
    assert_eq!(next_epoch(0), 1);
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(-1), -1);
    let mut steps = Steps::new(1);
    let id = steps.open(1);
    lock(&steps.cache.sessions[&id]).epoch = i32::MAX;
    assert_eq!(steps.touch(id, i32::MAX), code::NONE);
    assert_eq!(steps.touch(id, 0), code::NONE, "this one opens another session");
    assert_eq!(steps.touch(id, 1), code::FETCH_SESSION_ID_NOT_FOUND);
}

/// Two slots; what may go for whom.
#[tokio::test(start_paused = true)]
async fn who_has_to_go_when_there_is_no_slot() {
    // Nobody, in the first two minutes, whatever the sizes.
    let mut steps = Steps::new(2);
    let (small, large) = (steps.open(1), steps.open(5));
    assert_eq!(steps.open(9), NO_SESSION);
    // What was not used for more than two minutes.
    steps.pass(2 * MINUTE);
    assert_eq!(steps.open(9), NO_SESSION, "two minutes are not more than two minutes");
    steps.pass(Duration::from_millis(1));
    assert_eq!(steps.touch(large, 1), code::NONE);
    let third = steps.open(1);
    assert_ne!(third, NO_SESSION);
    assert_eq!(steps.touch(small, 1), code::FETCH_SESSION_ID_NOT_FOUND);
    // Both are used: the one that is there for long is smaller than a sixth partition makes.
    assert_eq!(steps.open(5), NO_SESSION, "as large is not larger");
    assert_ne!(steps.open(6), NO_SESSION);
    assert_eq!(steps.touch(large, 2), code::FETCH_SESSION_ID_NOT_FOUND);
    assert_eq!(steps.ids().len(), 2);
    assert!(steps.ids().contains(&third), "it is young");
}

#[tokio::test(start_paused = true)]
async fn of_those_that_are_there_for_long_the_smallest_goes() {
    let mut steps = Steps::new(3);
    let ids = [steps.open(3), steps.open(2), steps.open(4)];
    steps.pass(2 * MINUTE + Duration::from_secs(1));
    for id in ids {
        steps.touch(id, 1);
    }
    steps.open(5);
    assert_eq!(steps.touch(ids[1], 2), code::FETCH_SESSION_ID_NOT_FOUND);
    assert_eq!(steps.touch(ids[0], 2), code::NONE);
    // A session that is not touched is as large, and as old, as it was when it was used last.
    let key = |partition| wanted(partition).key;
    let (context, _) = steps.begin(ids[2], 2, vec![], &[key(0), key(1), key(2)]);
    steps.cache.finish(context, &[], steps.now);
    steps.open(2);
    assert_eq!(steps.touch(ids[2], 3), code::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn partitions_are_counted_as_they_come_and_go() {
    let mut steps = Steps::new(2);
    let id = steps.open(3);
    steps.open(4);
    assert_eq!(steps.cache.partitions, 7);
    steps.begin(id, 1, vec![wanted(7), wanted(8)], &[wanted(0).key]);
    assert_eq!(steps.cache.partitions, 8);
    steps.begin(id, 0, vec![], &[]);
    assert_eq!(steps.cache.partitions, 4);
    steps.cache.clear();
    assert_eq!(steps.cache.partitions, 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_of_too_many_partitions_are_not_given_and_do_not_grow() {
    let mut steps = Steps::new(3);
    let id = steps.open(1);
    steps.cache.partitions = MAX_PARTITIONS - 1;
    assert_eq!(steps.open(2), NO_SESSION);
    let named = vec![wanted(1), wanted(2)];
    let request = Request { session_id: id, epoch: 1, by_ids: false, named, forgotten: &[] };
    assert!(steps.cache.begin(request, steps.now, |_| None).is_err());
}

/// What is told first, what is told then, and whether the second answer has it.
#[tokio::test(start_paused = true)]
async fn what_an_answer_leaves_out() {
    let base = told(0);
    let error = Told { high_watermark: -1, log_start: -1, error: true, ..base };
    for (first, then, sent) in [
        (base, base, false),
        (base, told(6), true),
        (base, Told { log_start: 1, ..base }, true),
        (base, Told { records: true, ..base }, true),
        (base, Told { always: true, ..base }, true),
        (base, error, true),
        (error, error, true),
        (error, base, true),
    ] {
        let mut steps = Steps::new(1);
        let id = steps.open(1);
        let mut answered = false;
        for (epoch, told) in [(1, first), (2, then)] {
            let (context, list) = steps.begin(id, epoch, vec![], &[]);
            let (code, same, sent) = steps.cache.finish(context, &[(&list[0], told)], steps.now);
            assert_eq!((code, same), (0, id));
            answered = sent[0];
        }
        assert_eq!(answered, sent, "{first:?}, {then:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_brings_records_is_read_last_from_then_on() {
    let mut steps = Steps::new(1);
    let id = steps.open(4);
    let mut order = |epoch, brings: &[i32]| {
        let (context, list) = steps.begin(id, epoch, vec![], &[]);
        let tells: Vec<_> = list
            .iter()
            .map(|wanted| {
                let records = brings.contains(&wanted.key.partition);
                (wanted, Told { records, ..told(0) })
            })
            .collect();
        steps.cache.finish(context, &tells, steps.now);
        list.iter().map(|wanted| wanted.key.partition).collect::<Vec<_>>()
    };
    assert_eq!(order(1, &[1]), [0, 1, 2, 3]);
    assert_eq!(order(2, &[0, 2]), [0, 2, 3, 1]);
    assert_eq!(order(3, &[]), [3, 1, 0, 2]);
    // What is named again stays where it is.
    steps.begin(id, 4, vec![wanted(1), wanted(9)], &[]);
    let (_, list) = steps.begin(id, 5, vec![], &[]);
    let order: Vec<i32> = list.iter().map(|wanted| wanted.key.partition).collect();
    assert_eq!(order, [3, 1, 0, 2, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_second_request_makes_the_first_ones_answer_an_error() {
    let mut steps = Steps::new(1);
    let id = steps.open(1);
    let (first, list) = steps.begin(id, 1, vec![], &[]);
    let (second, _) = steps.begin(id, 2, vec![], &[]);
    let tells = [(&list[0], told(9))];
    assert_eq!(first.throttled(), (code::INVALID_FETCH_SESSION_EPOCH, id));
    let answer = steps.cache.finish(first, &tells, steps.now);
    assert_eq!(answer, (code::INVALID_FETCH_SESSION_EPOCH, id, vec![false]));
    assert_eq!(steps.cache.finish(second, &tells, steps.now), (code::NONE, id, vec![true]));
}

#[derive(Debug, Clone)]
enum Step {
    Open(i32),
    /// Which session, by how much its epoch is off, what is named and forgotten, and what of the answer
    /// has records; `None`: the answer is lost.
    Ask(usize, i32, Vec<i32>, Vec<i32>, Option<Vec<i32>>),
    Close(usize),
    Pass(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let few = || prop::collection::vec(0..6, 0..4);
    let off = prop_oneof![9 => Just(0), 1 => -2..3];
    prop_oneof![
        3 => (0..6).prop_map(Step::Open),
        9 => (0..4usize, off, few(), few(), prop::option::weighted(0.8, few()))
            .prop_map(|(which, off, named, gone, told)| Step::Ask(which, off, named, gone, told)),
        1 => (0..4usize).prop_map(Step::Close),
        2 => (1..90u64).prop_map(Step::Pass),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever comes: never more sessions than slots, the count of partitions is right, each partition
    /// has one place, and a session is where its last right request left it.
    #[test]
    fn whatever_comes_the_books_are_right(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let _context = runtime.enter();
        let mut cluster = Steps::new(3);
        // Ids, and the partitions that their sessions hold, in any order.
        let mut known: Vec<(i32, i32, Vec<i32>)> = Vec::new();
        for step in steps {
            match step {
                Step::Open(partitions) => {
                    let id = cluster.open(partitions);
                    if id != NO_SESSION {
                        known.push((id, 1, (0..partitions).collect()));
                    }
                }
                Step::Ask(which, off, named, gone, told) => {
                    let Some((id, epoch, holds)) = known.get_mut(which) else { continue };
                    let list = named.iter().map(|index| wanted(*index)).collect();
                    let forgotten: Vec<Key> = gone.iter().map(|index| wanted(*index).key).collect();
                    let alive = cluster.ids().contains(id);
                    let asked = *epoch + off;
                    let (context, list) = cluster.begin(*id, asked, list, &forgotten);
                    if asked == FIRST || asked == FINAL {
                        // A full request: the session ends, and another one may begin.
                        known.remove(which);
                        continue;
                    }
                    match context {
                        Context::Error(error) => {
                            prop_assert_eq!(error == code::FETCH_SESSION_ID_NOT_FOUND, !alive);
                            prop_assert_eq!(error == code::INVALID_FETCH_SESSION_EPOCH, alive && off != 0);
                            prop_assert!(list.is_empty());
                        }
                        context => {
                            prop_assert_eq!((alive, off), (true, 0));
                            holds.extend(named);
                            holds.retain(|index| !gone.contains(index));
                            holds.sort_unstable();
                            holds.dedup();
                            if matches!(context, Context::Incremental { .. }) {
                                let mut read: Vec<i32> =
                                    list.iter().map(|wanted| wanted.key.partition).collect();
                                read.sort_unstable();
                                prop_assert_eq!(&read, &*holds);
                                *epoch += 1;
                            } else {
                                prop_assert!(holds.is_empty());
                            }
                            let quiet = super::tests::told(0);
                            if let Some(records) = told {
                                let tells: Vec<_> = list
                                    .iter()
                                    .map(|wanted| {
                                        let records = records.contains(&wanted.key.partition);
                                        (wanted, Told { records, ..quiet })
                                    })
                                    .collect();
                                let now = cluster.now;
                                cluster.cache.finish(context, &tells, now);
                            }
                        }
                    }
                }
                Step::Close(which) => {
                    if which < known.len() {
                        let (id, ..) = known.remove(which);
                        cluster.begin(id, FINAL, vec![], &[]);
                        prop_assert!(!cluster.ids().contains(&id));
                    }
                }
                Step::Pass(secs) => cluster.pass(Duration::from_secs(secs)),
                Step::Clear => cluster.cache.clear(),
            }
            let cache = &cluster.cache;
            prop_assert!(cache.sessions.len() <= cache.slots);
            let mut partitions = 0;
            for session in cache.sessions.values() {
                let session = lock(session);
                prop_assert_eq!(session.size, session.parts.len());
                prop_assert_eq!(session.places.len(), session.parts.len());
                for (place, cached) in &session.parts {
                    prop_assert_eq!(session.places.get(&cached.wanted.key), Some(place));
                }
                partitions += session.size;
            }
            prop_assert_eq!(partitions, cache.partitions);
        }
    }
}
