//! A ready connection. Requests are written in the order in which they are given, many at once; responses
//! come back in the same order and are matched by correlation id.
//!
//! This file has the handle, of which there may be many; one task owns the stream ([`driver`]).
//!
//! A handle tells how old the oldest unanswered request is, from which its users conclude that the
//! connection is *late*, and until when the broker has asked for silence (KIP-219). Both belong to the
//! connection, because a broker answers the requests of a connection one by one and throttles by
//! connection.

mod closing;
mod driver;
mod vouch;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::frames::FrameReader;
use super::renewal::Renewal;
use crate::config::{Caller, MAX_THROTTLE, PROOF_PATIENCE, PROVED_AFTER};
use crate::environment::{Environment, STALL, Transport};
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result};
use crate::metrics::{Api, ConnectionMetrics, Sent};
use crate::protocol::{self, Throttle, Versions};
use crate::security::Guard;

use driver::Driver;

pub(crate) use closing::{CallError, CloseReason, OnClose};
pub(crate) use vouch::Vouch;

/// A request ready for the socket: segments are written one after the other, never copied.
pub(crate) struct Frame {
    pub(crate) segments: Vec<Bytes>,
    pub(crate) correlation: i32,
    pub(crate) api_key: i16,
    /// The request exists only because an earlier one failed.
    pub(crate) retry: bool,
    /// Whether the broker sends a response. If not (acks=0), the request is done once the socket has it.
    pub(crate) answered: bool,
}

type Response = Result<Bytes, CallError>;

enum Order {
    Send(Outgoing),
    /// No more requests come: end when everything in flight is answered.
    Retire,
    /// End at once: a response could not be read, so nothing more from this peer is believed.
    Condemn(Error),
}

struct Outgoing {
    frame: Frame,
    /// The client that sends it.
    caller: Arc<Caller>,
    reply: oneshot::Sender<Response>,
    given: Instant,
    counted: Sent,
}

/// A handle on a connection; clones share the connection.
#[derive(Clone)]
pub(crate) struct Connection {
    tx: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
    /// The client whose requests go through this handle.
    caller: Arc<Caller>,
}

struct Shared {
    id: u64,
    env: Environment,
    name: String,
    peer: Option<SocketAddr>,
    versions: Versions,
    round_trip: Duration,
    vouch: OnceLock<Arc<Vouch>>,
    /// How many connections of the pool had been lost when the last response came on this one.
    answered_losses: AtomicU64,
    correlation: AtomicI32,
    in_flight: AtomicUsize,
    /// When the oldest unanswered request was given, in the environment's microseconds; 0: all are answered.
    oldest_us: AtomicU64,
    /// When the driver looks next at unanswered requests, in the environment's microseconds.
    look_us: AtomicU64,
    /// Until when the broker has asked for silence, in the environment's microseconds; 0: it has not.
    muted_us: AtomicU64,
    /// When the last request was given or the last response came, in the environment's microseconds.
    used_us: AtomicU64,
    /// When the session was renewed last, in the environment's microseconds; 0: never.
    renewed_us: AtomicU64,
    closed: AtomicBool,
    /// A response has come since the set-up.
    answered: AtomicBool,
    /// Held while a quiet connection is asked for a sign of life.
    proof: tokio::sync::Mutex<()>,
    /// Whose credentials it began with; `None`: without a login.
    guard: Option<Arc<Guard>>,
    /// The error of a peer that does not speak Kafka, if that ended the connection: requests that come later
    /// get it, too.
    not_kafka: OnceLock<Error>,
    metrics: ConnectionMetrics,
}

/// The arguments of [`Connection::start`].
pub(crate) struct Ready {
    /// Unique among the connections of the pool.
    pub(crate) id: u64,
    pub(crate) stream: Box<dyn Transport>,
    pub(crate) reader: FrameReader,
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) round_trip: Duration,
    /// The client that it was opened for.
    pub(crate) caller: Arc<Caller>,
    /// It closes after this part (0.8 to 1) of its callers' longest idle timeout without a request.
    pub(crate) idle_share: f64,
    pub(crate) next_correlation: i32,
    /// Whose credentials it began with; `None`: without a login.
    pub(crate) guard: Option<Arc<Guard>>,
    /// The broker ends the session, unless it is logged in anew.
    pub(crate) renewal: Option<Box<Renewal>>,
    pub(crate) on_close: OnClose,
    pub(crate) metrics: ConnectionMetrics,
}

impl Connection {
    pub(crate) fn start(env: &Environment, ready: Ready) -> Self {
        let (tx, rx) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            id: ready.id,
            env: env.clone(),
            name: ready.name,
            peer: ready.stream.peer_addr(),
            versions: ready.versions,
            round_trip: ready.round_trip,
            vouch: OnceLock::new(),
            answered_losses: AtomicU64::new(0),
            correlation: AtomicI32::new(ready.next_correlation),
            in_flight: AtomicUsize::new(0),
            oldest_us: AtomicU64::new(0),
            look_us: AtomicU64::new(u64::MAX),
            muted_us: AtomicU64::new(0),
            used_us: AtomicU64::new(env.micros(env.now())),
            renewed_us: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            proof: tokio::sync::Mutex::default(),
            guard: ready.guard,
            not_kafka: OnceLock::new(),
            metrics: ready.metrics,
        });
        let driver = Driver::new(
            Arc::clone(&shared),
            rx,
            ready.stream,
            ready.reader,
            (ready.caller.idle_timeout, ready.idle_share),
            ready.renewal,
            ready.on_close,
        );
        env.spawn(driver.run());
        Self { tx, shared, caller: ready.caller }
    }

    /// A handle on the same connection for another client.
    pub(crate) fn on_behalf_of(&self, caller: &Arc<Caller>) -> Self {
        Self { caller: Arc::clone(caller), ..self.clone() }
    }

    /// Puts it into a group of connections that are vouched for together. Called once, before it is used.
    pub(crate) fn vouched_by(&self, vouch: Arc<Vouch>) {
        // Its set-up was answered.
        self.shared.answered_losses.store(vouch.since, Ordering::Release);
        let _ = self.shared.vouch.set(vouch);
    }

    /// Whether it is known to lead to the right cluster.
    pub(crate) fn is_vouched(&self) -> bool {
        self.shared.vouch.get().is_some_and(|vouch| vouch.is_known())
    }

    /// Whether it is known to lead to the right cluster, and a response has come on it since the pool last lost
    /// a connection: then not the whole cluster was lost. A connection without such a response may be as
    /// dead as the lost one.
    pub(crate) fn is_alive_since_the_last_loss(&self) -> bool {
        let answered = self.shared.answered_losses.load(Ordering::Acquire);
        !self.is_closed()
            && self.shared.vouch.get().is_some_and(|vouch| {
                vouch.is_known() && vouch.losses.load(Ordering::Acquire) == answered
            })
    }

    /// Waits until it is known to lead to the right cluster.
    pub(crate) async fn vouched(&self) {
        let Some(vouch) = self.shared.vouch.get() else { return std::future::pending().await };
        let told = vouch.told.notified();
        tokio::pin!(told);
        // Listening before it looks: nothing is told in between.
        told.as_mut().enable();
        if !self.is_vouched() {
            told.await;
        }
    }

    /// A response on it came from the right cluster: that holds for all connections of its group.
    pub(crate) fn vouch(&self) {
        if let Some(vouch) = self.shared.vouch.get() {
            vouch.known.store(true, Ordering::Release);
            vouch.told.notify_waiters();
        }
    }

    /// Ends it: it leads to another cluster.
    pub(crate) fn condemn(&self, error: Error) {
        self.shared.closed.store(true, Ordering::Release);
        let _ = self.tx.send(Order::Condemn(error));
    }

    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Broker and address, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// How long the way to the broker and back took when the connection was opened.
    pub(crate) fn round_trip(&self) -> Duration {
        self.shared.round_trip
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Whether the peer has answered a request after the set-up.
    pub(crate) fn has_answered(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// The counters of this connection and its broker.
    pub(crate) fn metrics(&self) -> &ConnectionMetrics {
        &self.shared.metrics
    }

    /// Requests written or queued and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the oldest unanswered request is older than `after`. Never while the driver is overdue itself: a
    /// process that was stopped knows nothing of its brokers.
    pub(crate) fn is_late(&self, after: Duration, now: Instant) -> bool {
        let at = self.shared.oldest_us.load(Ordering::Relaxed);
        let now = self.shared.env.micros(now);
        if at == 0 || u128::from(now.saturating_sub(at)) <= after.as_micros() {
            return false;
        }
        let looked = self.shared.look_us.load(Ordering::Relaxed);
        u128::from(now.saturating_sub(looked)) <= STALL.as_micros()
    }

    /// Until when the broker wants silence, if that is in the future.
    pub(crate) fn muted_until(&self, now: Instant) -> Option<Instant> {
        let until = self.shared.muted_us.load(Ordering::Relaxed);
        (until > self.shared.env.micros(now)).then(|| self.shared.env.instant(until))
    }

    /// Whether the broker would answer a request at once that is given now: nothing is in flight or muted.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_closed()
            && self.in_flight() == 0
            && self.muted_until(self.shared.env.now()).is_none()
    }

    /// Takes no more requests, and closes when everything in flight is answered.
    pub(crate) fn retire(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let _ = self.tx.send(Order::Retire);
    }

    /// When the last request was given or the last response came.
    pub(crate) fn last_used(&self) -> Instant {
        self.shared.env.instant(self.shared.used_us.load(Ordering::Relaxed))
    }

    /// Since when the broker can have been at an answered request that was given at `given`: what is given while the
    /// session is renewed waits for that, which says nothing of how long the broker takes.
    pub(crate) fn at_work_since(&self, given: Instant) -> Instant {
        match self.shared.renewed_us.load(Ordering::Relaxed) {
            0 => given,
            us => given.max(self.shared.env.instant(us)),
        }
    }

    /// Whether it was quiet for [`PROVED_AFTER`], so that it may lead nowhere by now.
    pub(crate) fn needs_proof(&self, now: Instant) -> bool {
        let used = self.shared.used_us.load(Ordering::Relaxed);
        let idle = self.shared.env.micros(now).saturating_sub(used);
        u128::from(idle) >= PROVED_AFTER.as_micros()
            && self.in_flight() == 0
            && self.muted_until(now).is_none()
    }

    /// Asks the peer for a sign of life (ApiVersions) if the connection was quiet for long. If none comes within
    /// [`PROOF_PATIENCE`] the connection is given up: records that are sent on it would be in doubt until the
    /// request timeout.
    pub(crate) async fn prove(&self) -> Result<()> {
        if !self.is_closed() && !self.needs_proof(self.shared.env.now()) {
            return Ok(());
        }
        let _one_at_a_time = self.shared.proof.lock().await;
        let (since, now) = (self.last_used(), self.shared.env.now());
        if self.is_closed() {
            return Err(self.gone());
        }
        if !self.needs_proof(now) {
            return Ok(());
        }
        let correlation = self.next_correlation();
        let request = ApiVersionsRequest::default();
        let bytes = protocol::encode_request(0, correlation, self.client_id(), &request)?;
        let api_key = ApiVersionsRequest::KEY;
        let frame =
            Frame { segments: vec![bytes], correlation, api_key, retry: false, answered: true };
        let response = self.send(frame);
        tokio::select! {
            biased;
            response = self.response(response) => response.map(drop).map_err(CallError::into_error),
            () = self.shared.env.sleep(PROOF_PATIENCE) => {
                let words = format!(
                    "{}: no sign of life within {PROOF_PATIENCE:?} after {:.0?} of silence; \
                     something in between may have forgotten the connection",
                    self.shared.name,
                    now.saturating_duration_since(since),
                );
                let error = Error::new(ErrorKind::Disconnected, words);
                self.shared.closed.store(true, Ordering::Release);
                let _ = self.tx.send(Order::Condemn(error.clone()));
                Err(error)
            }
        }
    }

    /// The newest version of a request that the broker and `ours` (first and last) have in common.
    pub(crate) fn version(&self, api_key: i16, ours: (i16, i16)) -> Result<i16> {
        self.shared.versions.pick(api_key, ours).ok_or_else(|| {
            Error::new(
                ErrorKind::UnsupportedVersion,
                format!(
                    "{}: no common version of request {api_key} (this client: {} to {}, broker: {})",
                    self.shared.name,
                    ours.0,
                    ours.1,
                    self.shared.versions.show(api_key)
                ),
            )
        })
    }

    /// The cluster's `group.version`, as the broker told it when this connection was made.
    pub(crate) fn group_version(&self) -> Option<i16> {
        self.shared.versions.group()
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.caller.client_id
    }

    pub(crate) fn next_correlation(&self) -> i32 {
        self.shared.correlation.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues a frame. The receiver gives the body of the response: correlation id checked and cut off.
    pub(crate) fn send(&self, frame: Frame) -> oneshot::Receiver<Response> {
        let (reply, response) = oneshot::channel();
        let given = self.shared.env.now();
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        self.shared.used_us.store(self.shared.env.micros(given), Ordering::Relaxed);
        let (api, bytes) =
            (Api::from_key(frame.api_key), frame.segments.iter().map(Bytes::len).sum());
        let counted = self.shared.metrics.broker().sent(api, bytes, frame.retry, given);
        let caller = Arc::clone(&self.caller);
        let outgoing = Outgoing { frame, caller, reply, given, counted };
        if let Err(mpsc::error::SendError(Order::Send(outgoing))) =
            self.tx.send(Order::Send(outgoing))
        {
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            let _ = outgoing.reply.send(Err(CallError::Unsent(self.gone())));
        }
        response
    }

    /// Waits for the response to [`Self::send`].
    pub(crate) async fn response(&self, rx: oneshot::Receiver<Response>) -> Response {
        // The channel closes without a response only if the driver has panicked.
        rx.await.unwrap_or_else(|_| {
            Err(CallError::InDoubt(Error::new(
                ErrorKind::Internal,
                format!("{}: the connection's task ended without an answer", self.shared.name),
            )))
        })
    }

    /// Sends a request and waits for its response, in the newest version that both sides speak. Waits first while
    /// the broker throttles the connection, unless the request must go on all the same. `retry`: the request
    /// exists only because an earlier one failed.
    pub(crate) async fn call<R>(
        &self,
        request: &R,
        ours: (i16, i16),
        retry: bool,
    ) -> Result<R::Response, CallError>
    where
        R: Request,
        R::Response: Throttle,
    {
        if !protocol::goes_on_throttled(R::KEY)
            && let Some(until) = self.muted_until(self.shared.env.now())
        {
            self.shared.env.sleep_until(until).await;
        }
        let version = self.version(R::KEY, ours).map_err(CallError::Unsent)?;
        let correlation = self.next_correlation();
        let bytes = protocol::encode_request(version, correlation, self.client_id(), request)
            .map_err(CallError::Unsent)?;
        let frame =
            Frame { segments: vec![bytes], correlation, api_key: R::KEY, retry, answered: true };
        let body = self.response(self.send(frame)).await?;
        let response = self.read::<R>(version, body).map_err(CallError::InDoubt)?;
        self.heed(R::KEY, &response);
        Ok(response)
    }

    /// Decodes a response. One that cannot be decoded ends the connection: nothing that comes behind it on the
    /// same stream can be trusted.
    pub(crate) fn read<R: Request>(&self, version: i16, body: Bytes) -> Result<R::Response> {
        match protocol::decode_response::<R>(version, body) {
            Ok((response, left_over)) => {
                if left_over > 0 {
                    self.shared.metrics.broker().left_over(R::KEY, version, left_over);
                }
                Ok(response)
            }
            Err(e) => {
                let mut e = e.context(&self.shared.name);
                if e.kind() == ErrorKind::NotKafka {
                    e = e.advise(NOT_THE_PROTOCOL);
                    self.shared.closed.store(true, Ordering::Release);
                    let _ = self.tx.send(Order::Condemn(e.clone()));
                }
                Err(e)
            }
        }
    }

    /// Mutes the connection if the response asks for it (KIP-219).
    pub(crate) fn heed(&self, api_key: i16, response: &impl Throttle) {
        let Ok(ms @ 1..) = u64::try_from(response.throttle_time_ms()) else { return };
        let pause = Duration::from_millis(ms).min(MAX_THROTTLE);
        self.shared.metrics.broker().throttled(Api::from_key(api_key), pause);
        let until = self.shared.env.now() + pause;
        self.shared.muted_us.fetch_max(self.shared.env.micros(until), Ordering::Relaxed);
    }

    fn gone(&self) -> Error {
        let closed = || {
            let words = format!("{}: the connection is closed", self.name());
            Error::new(ErrorKind::Disconnected, words)
        };
        self.shared.not_kafka.get().cloned().unwrap_or_else(closed)
    }
}

#[cfg(test)]
mod tests;
