//! What the application asks and commands. A command has two halves. The first is done here, under the lock, and holds
//! when the call returns, whoever takes at that moment: a partition that is paused is not handed out, and of one
//! that is left nothing is there any more. The second is a [`Command`], which the fetcher takes in its next
//! round. So nobody here waits for who reads.

use std::sync::Arc;

use super::queue::Dropped;
use super::{Begin, Buffer, Command, Key, State};
use crate::config::Start;
use crate::consumer::slot::SlotId;
use crate::consumer::{StreamEnd, TopicPartition};
use crate::error::{Error, ErrorKind, Result};

impl State {
    /// The number of a partition that is read.
    pub(super) fn slot(&self, topic: &str, partition: i32) -> Result<SlotId> {
        if self.closed {
            return Err(Error::closed("consumer"));
        }
        self.shelves.find(topic, partition).ok_or_else(|| not_read(topic, partition))
    }

    /// A partition is read no more, which the fetcher is to hear of.
    pub(super) fn leave(
        &mut self,
        slot: SlotId,
        topic: &str,
        partition: i32,
        why: StreamEnd,
    ) -> Dropped {
        let dropped = self.shelves.take_out(slot, why);
        self.commands.push(Command::Unassign { slot, key: (Arc::from(topic), partition) });
        dropped
    }

    /// The fetcher is to hear of a change of this partition.
    pub(super) fn changed(&mut self, slot: SlotId) {
        let Some(shelf) = self.shelves.get_mut(slot) else { return };
        if !std::mem::replace(&mut shelf.changed, true) {
            let (incarnation, paused) = (shelf.incarnation, shelf.is_held());
            self.commands.push(Command::Change { slot, incarnation, seek: None, paused });
        }
    }
}

fn not_read(topic: &str, partition: i32) -> Error {
    Error::new(
        ErrorKind::UnknownPartition,
        format!("partition {partition} of topic '{topic}' is not read by this consumer"),
    )
    .advise("name one of the partitions that the consumer reads")
}

impl Buffer {
    pub(in crate::consumer) fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        let state = self.lock();
        state.shelves.get(state.shelves.find(topic, partition)?)?.position
    }

    /// How many offsets lie between the position and the partition's end, as both are known here.
    pub(in crate::consumer) fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        let state = self.lock();
        let shelf = state.shelves.get(state.shelves.find(topic, partition)?)?;
        Some(shelf.end?.saturating_sub(shelf.position?).max(0))
    }

    pub(in crate::consumer) fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        to.check()?;
        let mut state = self.lock();
        let slot = state.slot(topic, partition)?;
        let dropped = Self::go_to(&mut state, slot, to);
        // Somebody may wait for the position that it has now.
        Self::notify(state, false, true);
        self.wake.notify_one();
        drop(dropped);
        Ok(())
    }

    fn go_to(state: &mut State, slot: SlotId, to: Start) -> Option<Dropped> {
        let (_, dropped) = state.shelves.clear(slot)?;
        if let Some(shelf) = state.shelves.get_mut(slot) {
            shelf.goes_to(if let Start::Offset(at) = to { Some(at) } else { None });
            shelf.sought = Some(to);
        }
        state.changed(slot);
        Some(dropped)
    }

    /// Nothing of these partitions is handed out (`pause`), or they are handed out again. All or none.
    pub(in crate::consumer) fn pause(&self, partitions: &[(&str, i32)], pause: bool) -> Result<()> {
        let mut state = self.lock();
        let slots: Result<Vec<SlotId>> =
            partitions.iter().map(|(topic, partition)| state.slot(topic, *partition)).collect();
        let mut ready = false;
        for slot in slots? {
            if !state.shelves.pause(slot, pause) {
                continue;
            }
            state.changed(slot);
            state.shelves.ready(slot);
            // Also where nothing is there: somebody may have some of it in hand, put aside until now.
            ready |= !pause;
        }
        Self::notify(state, ready, false);
        self.wake.notify_one();
        Ok(())
    }

    pub(in crate::consumer) fn paused(&self) -> Vec<TopicPartition> {
        let state = self.lock();
        let is_paused = |slot| state.shelves.get(slot).is_some_and(|shelf| shelf.paused);
        state
            .shelves
            .iter()
            .filter(|(_, slot)| is_paused(*slot))
            .map(|(key, _)| named(key))
            .collect()
    }

    /// Reads these partitions as well; one that is read already goes on at its start.
    pub(in crate::consumer) fn assign(&self, partitions: Vec<(Key, Start)>) -> Result<()> {
        self.assign_at(partitions.into_iter().map(|(key, start)| (key, start.into())).collect())
    }

    pub(super) fn assign_at(&self, partitions: Vec<(Key, Begin)>) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed("consumer"));
        }
        let mut dropped = Vec::new();
        for (key, begin) in partitions {
            if let Some(slot) = state.shelves.find(&key.0, key.1) {
                dropped.extend(Self::go_to(&mut state, slot, begin.start));
                continue;
            }
            let (slot, incarnation) = state.shelves.add(&key);
            if let Start::Offset(at) = begin.start {
                state.shelves.pass(slot, incarnation, (at, begin.epoch));
            }
            state.commands.push(Command::Assign { slot, incarnation, key, begin });
        }
        Self::notify(state, false, true);
        self.wake.notify_one();
        drop(dropped);
        Ok(())
    }

    /// Reads these partitions no more: nothing of them is handed out after this. All or none.
    pub(in crate::consumer) fn unassign(&self, partitions: &[(&str, i32)]) -> Result<()> {
        let mut state = self.lock();
        let slots: Result<Vec<SlotId>> =
            partitions.iter().map(|(topic, partition)| state.slot(topic, *partition)).collect();
        let mut dropped = Vec::new();
        for (slot, (topic, partition)) in slots?.into_iter().zip(partitions) {
            // Named twice.
            if state.shelves.find(topic, *partition) != Some(slot) {
                continue;
            }
            dropped.push(state.leave(slot, topic, *partition, StreamEnd::Left));
        }
        // Those who took one of them are to hear of its end.
        Self::notify(state, true, false);
        self.wake.notify_one();
        drop(dropped);
        Ok(())
    }

    /// A batch of a partition is worked on, and none is handed out; or it is no more.
    pub(in crate::consumer) fn is_worked_on(&self, topic: &str, partition: i32, busy: bool) {
        let mut state = self.lock();
        let Some(slot) = state.shelves.find(topic, partition) else { return };
        let ready = state.shelves.is_worked_on(slot, busy);
        Self::notify(state, ready, false);
    }

    pub(in crate::consumer) fn assignment(&self) -> Vec<TopicPartition> {
        self.lock().shelves.iter().map(|(key, _)| named(key)).collect()
    }

    pub(in crate::consumer) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Dropped without the lock, since it may take long.
        let dropped = (
            state.shelves.clear_all(),
            std::mem::take(&mut state.news),
            state.last_word.take(),
            std::mem::take(&mut state.commands),
        );
        if let Some(seat) = &state.seat {
            seat.attention.wake.notify_one();
        }
        Self::notify(state, true, true);
        self.wake.notify_one();
        drop(dropped);
    }
}

fn named((topic, partition): &Key) -> TopicPartition {
    TopicPartition { topic: Arc::clone(topic), partition: *partition }
}
