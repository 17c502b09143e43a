//! Who coordinates which group: the leader of the partition of `__consumer_offsets` that the group's
//! id falls into, once it has read that partition.

use std::time::Duration;

use tokio::time::Instant;

use crate::error_code as code;

/// `offsets.topic.num.partitions`
const PARTITIONS: usize = 50;

#[derive(Debug, Clone, Copy)]
struct Place {
    /// `None`: no broker that could lead it is up.
    leader: Option<i32>,
    loaded: Loaded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Yes,
    From(Instant),
    /// Its leader is down.
    No,
}

#[derive(Debug)]
pub(crate) struct Places {
    list: Vec<Place>,
}

/// The partition that an id falls into, as `Utils.abs(id.hashCode) % partitions` of Java.
pub(crate) fn place_of(id: &str) -> usize {
    let hash = id
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as usize % PARTITIONS
}

impl Places {
    pub(crate) fn new(brokers: i32) -> Self {
        let place = |index: usize| Place {
            leader: Some((index % brokers.max(1) as usize) as i32 + 1),
            loaded: Loaded::Yes,
        };
        Self { list: (0..PARTITIONS).map(place).collect() }
    }

    pub(crate) fn leader(&self, id: &str) -> Option<i32> {
        self.list[place_of(id)].leader
    }

    /// Whether a broker may answer for a group.
    pub(crate) fn check(&self, broker: i32, id: &str, now: Instant) -> Result<(), i16> {
        self.check_place(broker, place_of(id), now)
    }

    fn check_place(&self, broker: i32, index: usize, now: Instant) -> Result<(), i16> {
        let place = self.list[index];
        if place.leader != Some(broker) {
            return Err(code::NOT_COORDINATOR);
        }
        match place.loaded {
            Loaded::Yes => Ok(()),
            Loaded::From(at) if now >= at => Ok(()),
            Loaded::From(_) | Loaded::No => Err(code::COORDINATOR_LOAD_IN_PROGRESS),
        }
    }

    /// Whether a broker has read all that it coordinates.
    pub(crate) fn check_all(&self, broker: i32, now: Instant) -> Result<(), i16> {
        let mut mine =
            (0..self.list.len()).filter(|index| self.list[*index].leader == Some(broker));
        mine.try_for_each(|index| self.check_place(broker, index, now))
    }

    /// Whether anybody has the group in memory, so that time goes on for it.
    pub(crate) fn is_loaded(&self, id: &str, now: Instant) -> bool {
        match self.list[place_of(id)].loaded {
            Loaded::Yes => true,
            Loaded::From(at) => now >= at,
            Loaded::No => false,
        }
    }

    /// Puts a place elsewhere. Returns when its groups are known there.
    pub(crate) fn lead(
        &mut self,
        index: usize,
        leader: Option<i32>,
        now: Instant,
        load_time: Duration,
    ) -> Instant {
        let from = now + load_time;
        let loaded = match leader {
            Some(_) => Loaded::From(from),
            None => Loaded::No,
        };
        self.list[index] = Place { leader, loaded };
        from
    }

    /// The process of a leader is gone, and nobody has noticed.
    pub(crate) fn unload(&mut self, index: usize) {
        self.list[index].loaded = Loaded::No;
    }

    /// Places that a broker leads; with `None`, those that nobody does.
    pub(crate) fn led_by(&self, broker: Option<i32>) -> Vec<usize> {
        (0..self.list.len()).filter(|index| self.list[*index].leader == broker).collect()
    }

    pub(crate) fn is_unloaded(&self, index: usize) -> bool {
        self.list[index].loaded == Loaded::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fall_where_kafka_puts_them() {
        // `java.lang.String.hashCode`, also of what overflows and of what takes two units.
        for (id, hash) in [("", 0i32), ("g", 103), ("group", 98_629_247), ("😀", 1_772_899)] {
            assert_eq!(place_of(id), (hash & i32::MAX) as usize % PARTITIONS, "{id}");
        }
        let negative = -1_738_392_088i32 & i32::MAX;
        assert_eq!(place_of("consumer-group"), negative as usize % PARTITIONS);
    }

    #[test]
    fn a_place_moves_loads_and_stops() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut places = Places::new(3);
        let index = place_of("g");
        let first = places.leader("g").expect("a leader");
        assert_eq!(places.check(first, "g", now), Ok(()));
        let other = first % 3 + 1;
        assert_eq!(places.check(other, "g", now), Err(code::NOT_COORDINATOR));
        assert_eq!(places.lead(index, Some(other), now, second), now + second);
        assert_eq!(places.check(first, "g", now), Err(code::NOT_COORDINATOR));
        assert_eq!(places.check(other, "g", now), Err(code::COORDINATOR_LOAD_IN_PROGRESS));
        assert_eq!(places.check_all(other, now), Err(code::COORDINATOR_LOAD_IN_PROGRESS));
        assert_eq!(places.check(other, "g", now + second), Ok(()));
        places.unload(index);
        assert!(places.is_unloaded(index) && !places.is_loaded("g", now + second));
        places.lead(index, None, now, second);
        assert_eq!((places.leader("g"), places.led_by(None)), (None, vec![index]));
        assert_eq!(places.check(other, "g", now), Err(code::NOT_COORDINATOR));
    }
}
