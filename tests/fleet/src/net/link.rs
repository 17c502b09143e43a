//! The way to and from each broker: delay, bandwidth, and whether it is cut.

use std::time::Duration;

use super::events::Event;

/// A broker's link, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// One way, at least 1 ms: the grain of the runtime's timers.
    pub delay: Duration,
    /// Bytes a second in each direction, all connections together. `None`: no limit.
    pub bandwidth: Option<u64>,
}

impl Default for Link {
    /// Another zone of the same region: a round trip of 2 ms, and no limit.
    fn default() -> Self {
        Self { delay: Duration::from_millis(1), bandwidth: None }
    }
}

/// Which way through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker = 0,
    FromBroker = 1,
}

struct State {
    link: Link,
    /// When each way has sent what it was given, in microseconds.
    free_at_us: [u64; 2],
    cut: bool,
    /// What was lost in a cut and will be sent again, and when it was lost.
    held: Vec<(Event, u64)>,
}

/// All links, by broker id from 1.
pub(crate) struct Links(Vec<State>);

/// TCP's first retransmission timeout on Linux (`TCP_RTO_MIN`), doubled after each.
const RTO_MS: u64 = 200;

impl Links {
    pub(crate) fn new(brokers: i32, link: Link) -> Self {
        assert!(link.delay >= Duration::from_millis(1), "a delay below the timers' grain of 1 ms");
        Self(
            (0..brokers)
                .map(|_| State { link, free_at_us: [0; 2], cut: false, held: Vec::new() })
                .collect(),
        )
    }

    pub(crate) fn contains(&self, broker: i32) -> bool {
        (1..=self.0.len() as i32).contains(&broker)
    }

    fn of(&mut self, broker: i32) -> &mut State {
        &mut self.0[broker as usize - 1]
    }

    pub(crate) fn set(&mut self, broker: i32, link: Link) {
        assert!(link.delay >= Duration::from_millis(1), "a delay below the timers' grain of 1 ms");
        self.of(broker).link = link;
    }

    /// When `bytes` given to the link now will have arrived, in milliseconds.
    pub(crate) fn arrival(&mut self, broker: i32, way: Way, now: u64, bytes: usize) -> u64 {
        let state = self.of(broker);
        let delay = state.link.delay.as_millis() as u64;
        let Some(bandwidth) = state.link.bandwidth else { return now + delay };
        let free_at = &mut state.free_at_us[way as usize];
        *free_at = (*free_at).max(now * 1000) + bytes as u64 * 1_000_000 / bandwidth.max(1);
        free_at.div_ceil(1000) + delay
    }

    pub(crate) fn is_cut(&self, broker: i32) -> bool {
        self.0[broker as usize - 1].cut
    }

    pub(crate) fn cut(&mut self, broker: i32) {
        self.of(broker).cut = true;
    }

    pub(crate) fn hold(&mut self, broker: i32, event: Event, now: u64) {
        self.of(broker).held.push((event, now));
    }

    /// Ends a cut; gives what was held.
    pub(crate) fn heal(&mut self, broker: i32) -> Vec<(Event, u64)> {
        let state = self.of(broker);
        state.cut = false;
        std::mem::take(&mut state.held)
    }
}

/// When a segment lost at `lost` is sent again for the first time after `now`: timeouts double, so a
/// long cut is followed by a long wait.
pub(crate) fn retransmitted_at(lost: u64, now: u64) -> u64 {
    let mut at = lost;
    let mut timeout = RTO_MS;
    while at <= now {
        at += timeout;
        timeout *= 2;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_shared_and_each_way_has_its_own() {
        let link = Link { delay: Duration::from_millis(3), bandwidth: Some(1000) };
        let mut links = Links::new(2, link);
        assert_eq!(links.arrival(1, Way::ToBroker, 100, 50), 153);
        assert_eq!(links.arrival(1, Way::ToBroker, 100, 50), 203);
        assert_eq!(links.arrival(1, Way::FromBroker, 100, 50), 153);
        assert_eq!(links.arrival(2, Way::ToBroker, 100, 50), 153);
        assert_eq!(links.arrival(1, Way::ToBroker, 1000, 1), 1004);
        links.set(1, Link::default());
        assert_eq!(links.arrival(1, Way::ToBroker, 1001, 1_000_000), 1002);
    }

    #[test]
    fn retransmissions_double() {
        assert_eq!(retransmitted_at(1000, 1000), 1200);
        assert_eq!(retransmitted_at(1000, 1200), 1600);
        assert_eq!(retransmitted_at(1000, 61_000), 1000 + 200 * 511);
    }
}
