//! Dialling and accepting, as TCP and a broker's acceptor thread do it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::events::Event;
use super::link::Way;
use super::log::Outcome;
use super::stream::{Conn, Side, Stream};
use super::{ACCEPT_EVERY_MS, BACKLOG, Name, Shared, State};

/// Who dials, and what waits to be accepted.
pub(crate) struct Dials {
    /// How often each client has dialled.
    counts: BTreeMap<u32, u32>,
    waiting: BTreeMap<Name, Dialling>,
    /// By broker.
    backlogs: Vec<Vec<Arc<Conn>>>,
}

/// A dial under way.
#[derive(Default)]
struct Dialling {
    result: Option<Option<Arc<Conn>>>,
    waker: Option<Waker>,
    /// Its entry in the log.
    entry: usize,
}

impl Dials {
    pub(crate) fn new(brokers: i32) -> Self {
        Self {
            counts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            backlogs: (0..brokers).map(|_| Vec::new()).collect(),
        }
    }
}

/// Wait before SYN number `attempt` + 1 (from 0), in milliseconds: one second, doubled each time
/// (`TCP_TIMEOUT_INIT`).
fn syn_timeout(attempt: u32) -> u64 {
    1000 << attempt.min(6)
}

/// Opens a connection. Dropping it gives up, and says so in the log.
pub(crate) async fn dial(shared: Arc<Shared>, client: u32, broker: i32) -> io::Result<Stream> {
    let name = {
        let now = shared.now_ms();
        let mut state = shared.state();
        let count = state.dials.counts.entry(client).or_default();
        *count += 1;
        let name = (client, *count);
        let entry = state.log.dialled(now, client, broker);
        state.dials.waiting.insert(name, Dialling { entry, ..Dialling::default() });
        let at = state.links.arrival(broker, Way::ToBroker, now, 0);
        shared.push(&mut state, at, Event::Syn { name, broker, attempt: 0 });
        name
    };
    let given_up = GiveUp { shared: &shared, name };
    let conn = poll_fn(|cx| {
        let mut state = given_up.shared.state();
        let Some(dialling) = state.dials.waiting.get_mut(&name) else {
            return Poll::Ready(None);
        };
        match dialling.result.take() {
            Some(conn) => Poll::Ready(conn),
            None => {
                dialling.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await;
    given_up.settle(if conn.is_some() { Outcome::Connected } else { Outcome::Refused });
    match conn {
        Some(conn) => Ok(Stream::new(Arc::clone(&shared), conn, Side::Client)),
        None => Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("broker-{broker} refuses connections"),
        )),
    }
}

struct GiveUp<'a> {
    shared: &'a Arc<Shared>,
    name: Name,
}

impl GiveUp<'_> {
    fn settle(&self, outcome: Outcome) {
        let mut state = self.shared.state();
        let Some(dialling) = state.dials.waiting.remove(&self.name) else { return };
        state.log.settled(dialling.entry, outcome);
        drop(state);
        if let Some(Some(conn)) = dialling.result {
            // It opened in the millisecond in which its dialler gave up.
            drop(Stream::new(Arc::clone(self.shared), conn, Side::Client));
        }
    }
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.settle(Outcome::GivenUp);
    }
}

impl Shared {
    /// A SYN, or what answers it, is lost: the dialler sends the next one when its timer ends.
    pub(crate) fn send_syn_again(&self, state: &mut State, name: Name, broker: i32, attempt: u32) {
        if state.dials.waiting.contains_key(&name) {
            let at = self.now_ms() + syn_timeout(attempt);
            self.push(state, at, Event::Syn { name, broker, attempt: attempt + 1 });
        }
    }

    pub(crate) fn syn(self: &Arc<Self>, name: Name, broker: i32, attempt: u32) {
        let now = self.now_ms();
        let listens = self.host.listens(broker);
        let mut state = self.state();
        if !state.dials.waiting.contains_key(&name) {
            return;
        }
        let index = broker as usize - 1;
        let full = state.dials.backlogs[index].len() >= BACKLOG;
        state.log.syn(now, broker, listens && full);
        if listens && full {
            self.send_syn_again(&mut state, name, broker, attempt);
            return;
        }
        let conn = listens.then(|| Conn::new(name, broker));
        if let Some(conn) = &conn {
            if state.dials.backlogs[index].is_empty() {
                let at = (now / ACCEPT_EVERY_MS + 1) * ACCEPT_EVERY_MS;
                self.push(&mut state, at, Event::Accept(broker));
            }
            state.dials.backlogs[index].push(Arc::clone(conn));
            state.conns.insert(name, Arc::clone(conn));
        }
        let at = state.links.arrival(broker, Way::FromBroker, now, 0);
        self.push(&mut state, at, Event::SynAck { name, broker, attempt, conn });
    }

    pub(crate) fn syn_ack(self: &Arc<Self>, name: Name, conn: Option<Arc<Conn>>) {
        let mut state = self.state();
        match state.dials.waiting.get_mut(&name) {
            Some(dialling) => {
                dialling.result = Some(conn);
                let waker = dialling.waker.take();
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
            None => {
                drop(state);
                // Nobody waits for it any more: the kernel closes it.
                if let Some(conn) = conn {
                    drop(Stream::new(Arc::clone(self), conn, Side::Client));
                }
            }
        }
    }

    /// The broker takes all that waits.
    pub(crate) fn accept(self: &Arc<Self>, broker: i32) {
        let waiting = std::mem::take(&mut self.state().dials.backlogs[broker as usize - 1]);
        for conn in waiting {
            let stream = Stream::new(Arc::clone(self), conn, Side::Broker);
            // Refused: dropping the stream closes it, which is what a broker does that is going down.
            let _ = self.host.accept(broker, stream);
        }
    }
}
