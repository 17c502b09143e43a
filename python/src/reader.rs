//! What threads that read one consumer share; and, of a group's consumer, what each of them has in hand.
//!
//! What a thread was given is finished when the same thread asks for the next. The usual case costs a record nothing but a
//! store: one thread takes record after record of the first batch, and the core is told which it has *reached*. All else
//! is kept as *holds*, each of one thread: a batch as a whole, a record of a batch that several threads
//! take from, a record that is not of the first batch. They are no part of what another one has reached.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use ottla::bindings::{self, Departure, Hold, reached};
use ottla::{Event, Standing, TopicPartition};

use crate::batch::{Batch, Cursor, Record};
use crate::exclusive::{Exclusive, lock};

/// Partitions, and the offsets up to which they are read.
pub(crate) type Ends = Vec<(TopicPartition, i64)>;

/// Of two locks that are held together the consumer's is taken first. Who steers takes neither across anything that
/// lasts.
pub(crate) struct Reader {
    /// Locked while it is looked whether there is a batch, and while that is opened. Never across a
    /// wait.
    consumer: Mutex<ottla::Consumer>,
    pub(crate) control: ottla::ConsumerControl,
    hand: Mutex<Hand>,
    /// Whether asking for the next says that what who asks had is finished.
    pub(crate) marks: bool,
    pub(crate) departure: Departure,
    pub(crate) exclusive: Exclusive,
    pub(crate) pid: u32,
}

/// See [`Reader::waits`].
pub(crate) struct Waits<'a>(&'a Reader);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waits_no_more();
    }
}

/// What was fetched and is not handed out yet, and what threads have in hand.
#[derive(Default)]
struct Hand {
    /// The batches that records are taken from, in order. More than one only after a signal handler
    /// read while its thread waited for a batch, and where partitions are paused in the middle of one.
    current: VecDeque<Cursor>,
    /// The thread that has the last record that was taken of the first batch, and has finished those before; 0: nobody.
    alone: u64,
    /// Gone when that thread is.
    alone_alive: Weak<()>,
    /// What else threads have.
    holds: Vec<Held>,
}

/// What a thread has.
struct Held {
    whose: u64,
    /// Gone when the thread is: nobody will finish it then, and it is not kept.
    alive: Weak<()>,
    hold: Hold,
}

/// Who asks.
#[derive(Clone, Default)]
pub(crate) struct Asks {
    /// 0: asking says nothing.
    pub(crate) number: u64,
    /// Gone when who asks is.
    pub(crate) alive: Weak<()>,
}

/// A number of this thread's own, which no later one has.
fn this_thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static HERE: Cell<u64> = const { Cell::new(0) };
    }
    HERE.with(|here| {
        if here.get() == 0 {
            here.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        here.get()
    })
}

/// Gone when this thread is.
pub(crate) fn this_thread_alive() -> Weak<()> {
    thread_local! {
        static ALIVE: Arc<()> = Arc::new(());
    }
    // What a thread takes that is ending already nobody will finish.
    ALIVE.try_with(Arc::downgrade).unwrap_or_default()
}

impl Hand {
    /// A thread asks for the next: it has finished what it was given.
    fn asks(&mut self, who: u64) {
        if who == 0 {
            // What was handed on is waited for until it is acknowledged.
            return self.put_aside();
        }
        let alone = std::mem::take(&mut self.alone);
        if let Some(first) = self.current.front().filter(|_| alone != 0) {
            if alone == who {
                first.finish();
            } else {
                let alive = std::mem::take(&mut self.alone_alive);
                let hold = first.hold_last(&alive);
                self.holds.extend(hold.map(|hold| Held { whose: alone, alive, hold }));
            }
            if first.is_empty() {
                self.current.pop_front();
            }
        }
        self.holds.retain(|held| {
            if held.whose == who {
                held.hold.done();
            }
            held.whose != who && held.alive.strong_count() > 0 && !held.hold.is_left()
        });
        self.put_aside();
    }

    /// What a pause holds back in the middle of a batch is in nobody's hand.
    fn put_aside(&mut self) {
        for cursor in &mut self.current {
            if cursor.standing() == Standing::Paused {
                cursor.put_aside(true);
            }
        }
    }

    /// The first that may be handed out. Those of partitions that are paused wait in their places; what a seek has left
    /// behind since goes.
    fn first_current(&mut self) -> Option<usize> {
        let mut at = 0;
        while let Some(cursor) = self.current.get(at) {
            match cursor.standing() {
                Standing::Current => return Some(at),
                Standing::Paused => at += 1,
                Standing::Left => {
                    drop(self.current.remove(at));
                    if at == 0 {
                        self.alone = 0;
                    }
                }
            }
        }
        None
    }

    fn record(&mut self, who: u64, alive: impl Fn() -> Weak<()>) -> Option<Record> {
        if who != 0
            && who == self.alone
            && let Some(first) = self.current.front_mut()
            && first.standing() == Standing::Current
            && let Some(record) = first.hand_on_alone()
        {
            return Some(record);
        }
        self.asks(who);
        loop {
            let at = self.first_current()?;
            let cursor = self.current.get_mut(at)?;
            cursor.put_aside(false);
            if who == 0 {
                if let Some(record) = cursor.hand_on() {
                    return Some(record);
                }
            } else if at == 0 {
                if let Some(record) = cursor.hand_on_alone() {
                    let alive = alive();
                    cursor.held_by(&alive);
                    (self.alone, self.alone_alive) = (who, alive);
                    return Some(record);
                }
            } else {
                let alive = alive();
                if let Some((record, hold)) = cursor.hand_on_apart(&alive) {
                    self.holds.extend(hold.map(|hold| Held { whose: who, alive, hold }));
                    return Some(record);
                }
            }
            self.current.remove(at);
        }
    }

    fn batch(&mut self, who: u64, alive: impl Fn() -> Weak<()>) -> Option<Batch> {
        self.asks(who);
        loop {
            let at = self.first_current()?;
            let mut cursor = self.current.remove(at)?;
            cursor.put_aside(false);
            if let Some(batch) = cursor.into_batch() {
                if who != 0 {
                    let alive = alive();
                    let hold = batch.hold(&alive);
                    self.holds.extend(hold.map(|hold| Held { whose: who, alive, hold }));
                }
                return Some(batch);
            }
        }
    }

    /// What nobody wants any more.
    fn take_left(&mut self) -> VecDeque<Cursor> {
        let is_left = |cursor: &Cursor| cursor.standing() == Standing::Left;
        if self.current.front().is_some_and(is_left) {
            self.alone = 0;
        }
        let (left, kept) = self.current.drain(..).partition(is_left);
        self.current = kept;
        left
    }
}

/// What came of a look for the next batch.
pub(crate) enum Looked {
    /// There is something to take.
    Found,
    /// The group says something.
    Event(Event),
    /// The partitions that were named are where they were to come to.
    Reached,
    /// The consumer is at its end.
    End,
}

impl Reader {
    pub(crate) fn new(mut consumer: ottla::Consumer) -> Self {
        let marks = bindings::leave_marks_to_host(&mut consumer);
        Self {
            control: consumer.control(),
            departure: Departure::of(&consumer),
            consumer: Mutex::new(consumer),
            hand: Mutex::default(),
            marks,
            exclusive: Exclusive::default(),
            pid: std::process::id(),
        }
    }

    /// Puts the next batch behind the current ones.
    pub(crate) fn poll(
        &self,
        ends: &[(TopicPartition, i64)],
        context: &mut Context<'_>,
    ) -> Poll<ottla::Result<Looked>> {
        let mut consumer = lock(&self.consumer);
        // What a pause holds back in the middle of a batch was not handed out yet, though its partition's position is
        // behind it.
        let ends = if self.holds_back(ends) { &[] } else { ends };
        match consumer.poll_next_until(ends, context) {
            // Or somebody has resumed what is in hand since it was looked for.
            Poll::Pending if self.has_current() => Poll::Ready(Ok(Looked::Found)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if reached(&self.control, ends) => Poll::Ready(Ok(Looked::Reached)),
            Poll::Ready(None) => Poll::Ready(Ok(Looked::End)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(Ok(self.takes(batch))),
        }
    }

    /// The same, or what the group says.
    pub(crate) fn poll_event(&self, context: &mut Context<'_>) -> Poll<ottla::Result<Looked>> {
        let mut consumer = lock(&self.consumer);
        match consumer.poll_next_event(context) {
            Poll::Pending if self.has_current() => Poll::Ready(Ok(Looked::Found)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(Looked::End)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(Event::Batch(batch)))) => Poll::Ready(Ok(self.takes(batch))),
            Poll::Ready(Some(Ok(event))) => Poll::Ready(Ok(Looked::Event(event))),
        }
    }

    /// A thread waits as long as this is there. After it, a member of a group has to come back within the max poll interval.
    pub(crate) fn waits(&self) -> Waits<'_> {
        Waits(self)
    }

    fn takes(&self, batch: ottla::Batch) -> Looked {
        lock(&self.hand).current.push_back(Cursor::new(batch));
        Looked::Found
    }

    fn holds_back(&self, ends: &[(TopicPartition, i64)]) -> bool {
        let hand = lock(&self.hand);
        ends.iter().any(|(of, end)| hand.current.iter().any(|cursor| cursor.is_short_of(of, *end)))
    }

    /// Whether something in hand may be handed out.
    pub(crate) fn has_current(&self) -> bool {
        let is_there = |c: &Cursor| c.standing() == Standing::Current && !c.is_empty();
        lock(&self.hand).current.iter().any(is_there)
    }

    /// The thread that asks, if that says anything.
    #[inline]
    fn thread(&self) -> u64 {
        if self.marks { this_thread() } else { 0 }
    }

    /// The next record of what is in hand.
    pub(crate) fn record(&self) -> Option<Record> {
        lock(&self.hand).record(self.thread(), this_thread_alive)
    }

    /// The same for who is no thread.
    pub(crate) fn record_for(&self, who: &Asks) -> Option<Record> {
        lock(&self.hand).record(who.number, || Weak::clone(&who.alive))
    }

    /// The next batch of what is in hand, or what records left of it.
    pub(crate) fn batch(&self) -> Option<Batch> {
        lock(&self.hand).batch(self.thread(), this_thread_alive)
    }

    /// The same for who is no thread.
    pub(crate) fn batch_for(&self, who: &Asks) -> Option<Batch> {
        lock(&self.hand).batch(who.number, || Weak::clone(&who.alive))
    }

    /// Nobody waits any more. A member of a group has to come back within the max poll interval.
    pub(crate) fn waits_no_more(&self) {
        // In a child locks may be held for ever.
        if self.pid == std::process::id() {
            bindings::waits_no_more(&lock(&self.consumer));
        }
    }

    /// Steers the consumer, and lets go of what nobody wants any more.
    pub(crate) fn steer(
        &self,
        call: impl FnOnce(&ottla::ConsumerControl) -> ottla::Result<()>,
    ) -> ottla::Result<()> {
        call(&self.control)?;
        let left = lock(&self.hand).take_left();
        drop(left);
        Ok(())
    }

    pub(crate) fn close(&self) -> ottla::Result<()> {
        bindings::close_consumer(&self.control)?;
        let mut hand = lock(&self.hand);
        let dropped = (std::mem::take(&mut hand.current), std::mem::take(&mut hand.holds));
        hand.alone = 0;
        drop(hand);
        drop(dropped);
        Ok(())
    }
}
