//! What is under way: one queue for the whole network, in order of time and then of connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stream::{Conn, Side};
use super::{Name, Shared};

/// One thing that will happen.
pub(crate) enum Event {
    /// The next bytes under way to this end reach it. Which ones they are is the connection's to
    /// know: a byte stream stays in order whatever becomes of single events.
    Arrive(Arc<Conn>, Side),
    /// Tells this end that the other does not exist any more.
    Rst(Arc<Conn>, Side),
    /// A dial reaches its broker; the attempts of one dial are counted from 0.
    Syn { name: Name, broker: i32, attempt: u32 },
    /// The broker's response reaches who dialled; `None`: refused.
    SynAck { name: Name, broker: i32, attempt: u32, conn: Option<Arc<Conn>> },
    /// A broker takes what waits in its backlog.
    Accept(i32),
}

impl Event {
    /// Before others of the same millisecond. Accepting comes after the SYNs of its millisecond.
    fn rank(&self) -> (u8, Name) {
        match self {
            Self::Arrive(conn, _) | Self::Rst(conn, _) => (0, conn.name),
            Self::Syn { name, .. } | Self::SynAck { name, .. } => (1, *name),
            Self::Accept(broker) => (2, (broker.unsigned_abs(), 0)),
        }
    }

    /// The broker whose link it passes.
    pub(crate) fn broker(&self) -> Option<i32> {
        match self {
            Self::Arrive(conn, _) | Self::Rst(conn, _) => Some(conn.broker),
            Self::Syn { broker, .. } | Self::SynAck { broker, .. } => Some(*broker),
            Self::Accept(_) => None,
        }
    }
}

/// Events by the millisecond they are due.
#[derive(Default)]
pub(crate) struct Queue {
    by_ms: BTreeMap<u64, Vec<Event>>,
}

impl Queue {
    /// Whether it is now the first to happen.
    pub(crate) fn push(&mut self, at: u64, event: Event) -> bool {
        let first = self.next().is_none_or(|next| at < next);
        self.by_ms.entry(at).or_default().push(event);
        first
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.by_ms.first_key_value().map(|(at, _)| *at)
    }

    /// The events of a millisecond, in order. The sort is stable: those of one connection stay in the
    /// order in which they were pushed.
    pub(crate) fn take(&mut self, at: u64) -> Vec<Event> {
        let mut due = self.by_ms.remove(&at).unwrap_or_default();
        due.sort_by_key(Event::rank);
        due
    }
}

impl Shared {
    /// Makes an event happen, unless the link it passes is cut.
    pub(crate) fn happens(self: &Arc<Self>, event: Event) {
        if let Some(broker) = event.broker() {
            let now = self.now_ms();
            let mut state = self.state();
            if state.links.is_cut(broker) {
                // A lost SYN is not held: the dialler sends another.
                match event {
                    Event::Syn { name, broker, attempt }
                    | Event::SynAck { name, broker, attempt, .. } => {
                        self.send_syn_again(&mut state, name, broker, attempt);
                    }
                    event => state.links.hold(broker, event, now),
                }
                return;
            }
        }
        match event {
            Event::Arrive(conn, to) => self.arrived(&conn, to),
            Event::Rst(conn, to) => conn.end(to),
            Event::Syn { name, broker, attempt } => self.syn(name, broker, attempt),
            Event::SynAck { name, conn, .. } => self.syn_ack(name, conn),
            Event::Accept(broker) => self.accept(broker),
        }
    }
}
