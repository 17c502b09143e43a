//! A broker, as one sender sees it: its produce lane, and what is in flight there.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::cluster::{Broker, Lane};
use crate::config::MAX_PRODUCE_REQUEST;
use crate::net::Connection;
use crate::policy::ejection::Admission;
use crate::policy::in_flight::Limit;
use crate::policy::latency::Latency;
use crate::policy::pace::{PaceLimits, Strain};

/// If a dial takes longer than this, the next one is not put off for it.
pub(in crate::producer::sender) const DIAL_HEDGE: Duration = Duration::from_millis(300);

/// A broker, as this sender sees it.
pub(crate) struct Leader {
    pub(super) broker: Arc<Broker>,
    pub(super) connection: Option<Connection>,
    /// Since when its lane is being opened, or its quiet connection is being proved.
    pub(super) dialing: Option<Instant>,
    /// `dialing` is no dial: its connection was quiet for long and is being proved.
    pub(super) proving: bool,
    pub(super) requests: usize,
    bytes_in_flight: usize,
    pub(super) latency: Box<Latency>,
    pub(super) limit: Limit,
    /// How strained the broker is, by the responses to this sender's requests alone: with other acks they
    /// take a different time.
    strain: Strain,
    /// When it answered last.
    answered_at: Option<Instant>,
    /// After what time an unanswered request is late: kept here, since a quantile of the latency is too expensive to
    /// be looked up per batch.
    pub(super) late_after: Duration,
    responses: u32,
    pub(super) was_late: bool,
    /// In this round: records that can go elsewhere do not go here.
    pub(super) avoided: bool,
    /// In this round: it gets nothing at all, since its oldest request is overdue.
    pub(super) stuck: bool,
    /// Its batches that may be rerouted have been taken away since it became stuck.
    pub(super) passed_on: bool,
    /// Bytes of the request that is being assembled for it in this round.
    assembled: usize,
    /// The batch in flight is suspect (connections may have ended because of it), so nothing else is sent
    /// to this leader.
    pub(super) alone: bool,
    /// In this round: a suspect batch waits until nothing is in flight here, so this leader gets nothing
    /// new.
    pub(super) reserved: bool,
    /// Until when requests that carry only retries wait for the retry budget.
    retries_wait: Option<Instant>,
}

impl Leader {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        let latency = Box::<Latency>::default();
        Self {
            broker,
            connection: None,
            dialing: None,
            proving: false,
            requests: 0,
            bytes_in_flight: 0,
            late_after: latency.late_after(),
            latency,
            limit: Limit::default(),
            strain: Strain::default(),
            answered_at: None,
            responses: 0,
            was_late: false,
            avoided: false,
            stuck: false,
            passed_on: false,
            assembled: 0,
            alone: false,
            reserved: false,
            retries_wait: None,
        }
    }

    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// A round begins: what was decided in the last one is forgotten.
    pub(super) fn begin_round(&mut self) {
        self.avoided = false;
        self.stuck = false;
        self.assembled = 0;
        self.reserved = false;
        // If nothing is in flight, the suspect batch was not sent after all.
        self.alone &= self.requests > 0;
    }

    /// The connection of its lane, which may have ended.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The open lane.
    pub(crate) fn lane(&mut self) -> Option<&Connection> {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        self.connection.as_ref()
    }

    /// Takes over the control lane's connection, if that is idle and there is no other.
    pub(crate) fn take_control_lane(&mut self) {
        if self.lane().is_none() && !self.proving {
            self.connection = self.broker.open(Lane::Produce);
        }
    }

    /// Whether a request can be sent to it now.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        if self.alone || (self.reserved && self.requests > 0) {
            return false;
        }
        let (requests, limit) = (self.requests, self.limit.get());
        self.lane().is_some_and(|c| requests < limit && c.muted_until(now).is_none())
    }

    /// Until when the broker wants silence.
    pub(crate) fn muted_until(&self, now: Instant) -> Option<Instant> {
        self.connection.as_ref()?.muted_until(now)
    }

    /// Whether nothing is in flight: then batches may go at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests == 0
    }

    /// Whether records that can go elsewhere go elsewhere.
    pub(crate) fn is_avoided(&self) -> bool {
        self.avoided
    }

    /// Whether it is not connected and the last dial failed.
    pub(crate) fn is_lost(&mut self) -> bool {
        self.lane().is_none() && self.broker.is_unreachable()
    }

    /// Whether its oldest request is overdue, while most brokers' are not.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The smoothed time that its responses take beyond the round trip.
    pub(crate) fn latency_us(&self) -> u32 {
        let round_trip = self.connection.as_ref().map_or(Duration::MAX, Connection::round_trip);
        self.latency.beyond_us(round_trip)
    }

    /// What open batches for it have to consider: how strained it is.
    pub(crate) fn strain(&self, now: Instant) -> Strain {
        self.strain.by(now)
    }

    /// Bytes that it has not answered, with those of the request that is being assembled.
    pub(crate) fn load(&self) -> usize {
        self.bytes_in_flight + self.assembled
    }

    /// Whether it gets a request in this round.
    pub(crate) fn has_draft(&self) -> bool {
        self.assembled > 0
    }

    /// Whether the request that is being assembled for it takes another batch.
    pub(crate) fn draft_has_room(&self) -> bool {
        self.assembled < MAX_PRODUCE_REQUEST
    }

    /// A batch of `bytes` is in the request that is being assembled for it.
    pub(crate) fn assemble(&mut self, bytes: usize) {
        self.assembled += bytes;
    }

    /// Whether a suspect batch can go to it now: only if nothing is in flight there or assembled for it. If not, it is
    /// reserved for that batch.
    pub(crate) fn takes_alone(&mut self) -> bool {
        let alone = self.is_idle() && self.assembled == 0;
        self.reserved = !alone;
        self.alone = alone;
        alone
    }

    /// A request that carries only retries waits for the retry budget until then. Gives whether one did before.
    pub(crate) fn retries_wait(&mut self, until: Instant) -> bool {
        self.retries_wait.replace(until).is_some()
    }

    /// A request may go: none waits for the retry budget any more.
    pub(crate) fn retries_go(&mut self) {
        self.retries_wait = None;
    }

    /// A request of `bytes` was sent. Gives whether it has the connection for itself.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) -> bool {
        self.requests += 1;
        self.bytes_in_flight += bytes;
        if self.broker.admission(now) == Admission::HalfOpen {
            self.broker.probe();
        }
        self.alone
    }

    /// A request of `bytes` is in flight no more: it was answered, or never will be.
    pub(crate) fn returned(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes_in_flight -= bytes;
    }

    /// Whether its lane is being opened, or its quiet connection proved.
    pub(crate) fn is_being_dialled(&self) -> bool {
        self.dialing.is_some()
    }

    /// When a dial that is under way is no longer waited for.
    pub(crate) fn dial_hedged_at(&self) -> Option<Instant> {
        self.dialing.map(|since| since + DIAL_HEDGE)
    }

    /// Whether a dial is under way that may still be waited for.
    pub(crate) fn is_dialing(&self, now: Instant) -> bool {
        self.dialing.is_some_and(|since| now.saturating_duration_since(since) < DIAL_HEDGE)
    }

    /// A request was answered; `took`: from sending it to its response.
    pub(crate) fn answered(&mut self, took: Duration) {
        self.latency.record(took);
        // `requests` does not count this one any more.
        self.limit.answered(took, self.requests + 1);
        self.responses = self.responses.wrapping_add(1);
        if self.responses < 16 || self.responses.is_multiple_of(16) {
            self.late_after = self.latency.late_after();
        }
    }

    /// When the broker began to work on the request that is answered now: when that was sent, or when the
    /// response before it came, whichever is later. A broker takes the requests of a connection one by one.
    pub(crate) fn at_work_since(&mut self, sent: Instant, now: Instant) -> Instant {
        self.answered_at.replace(now).map_or(sent, |before| before.max(sent))
    }

    /// The broker has appended every batch of a request; it worked on it for `took`.
    pub(crate) fn felt(
        &mut self,
        took: Duration,
        limits: &PaceLimits,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        // Without a connection nobody knows how far away the broker is.
        let round_trip = self.connection.as_ref().map_or(Duration::MAX, Connection::round_trip);
        self.strain.answered(took, round_trip, limits, now, rng);
    }

    /// Whether its connection was quiet for so long that it has to be proved before a record is sent over it.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        self.requests == 0
            && self.dialing.is_none()
            && self.connection.as_ref().is_some_and(|c| !c.is_closed() && c.needs_proof(now))
    }

    /// Takes its connection away while that is asked for a sign of life: meanwhile the leader counts as being dialled.
    pub(super) fn prove(&mut self, now: Instant) {
        self.connection = None;
        self.dialing = Some(now);
        self.proving = true;
    }

    /// Its lane is open.
    pub(super) fn connected(&mut self, connection: Connection) {
        self.limit = Limit::default();
        self.connection = Some(connection);
        self.dial_ended();
    }

    /// No lane is being opened any more.
    pub(super) fn dial_ended(&mut self) {
        self.dialing = None;
        self.proving = false;
    }

    pub(super) fn is_late(&mut self, now: Instant) -> bool {
        let after = self.late_after;
        let late = self.lane().is_some_and(|c| c.is_late(after, now));
        if late && !self.was_late {
            self.broker.metrics.late(after);
        }
        self.was_late = late;
        late
    }
}
