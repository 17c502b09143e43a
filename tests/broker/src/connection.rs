//! One connection: frames in, answers out, one request at a time.
//!
//! A Kafka broker takes the next request of a connection only when the one before is answered:
//! an acks=all produce that waits for replicas, or a fetch that waits for data, holds up whatever
//! was pipelined behind it. Clients have to live with that, so this broker does the same.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{self, ApiKey, Call, Outcome};
use crate::price::Work;
use crate::sasl::{self, Login, Route};
use crate::state::Shared;
use crate::tls;
use crate::wire::{self, RequestHead};

/// Bytes read at once where no frame is known to be under way. They land on the stack: a connection
/// that waits for a request holds no buffer, so that a test may have tens of thousands of them.
const FIRST_READ: usize = 16 << 10;
/// Smallest free room before a read behind bytes that wait for their turn.
const READ_ROOM: usize = 64 << 10;
/// Room made at once for a frame that has only announced its length; beyond that a sender has to
/// deliver what it announced before it gets more.
const TRUSTED_ROOM: usize = 4 << 20;
/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Requests read ahead while one is being answered, in bytes; after that the socket fills up.
const READ_AHEAD: usize = 256 << 10;
/// A scratch buffer larger than this is given back after use.
const SCRATCH_KEPT: usize = 8 << 20;
/// Half of what the runtime's timers can tell apart.
const HALF_A_GRAIN: Duration = Duration::from_micros(500);

/// Serves one connection in a task of the cluster's runtime until the peer or the broker ends it.
pub(crate) fn spawn<S>(shared: &Arc<Shared>, broker: i32, stream: S, mut cut: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::clone(shared);
    let handle = shared.handle.clone();
    if let Some(broker) = shared.broker(broker) {
        broker.counters.opened();
    }
    handle.spawn(async move {
        // A peer that resets, or sends nonsense, ends its own connection and nothing else.
        tokio::select! {
            biased;
            _ = cut.changed() => {}
            () = serve(&shared, broker, stream) => {}
        }
        if let Some(broker) = shared.broker(broker) {
            broker.counters.closed();
        }
    });
}

/// Who a client is that nobody has asked.
const ANONYMOUS: &str = "ANONYMOUS";

async fn serve<S>(shared: &Arc<Shared>, id: i32, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(broker) = shared.broker(id) else { return };
    let login = |principal: Option<String>| {
        let principal = principal.map_or_else(|| Arc::from(ANONYMOUS), Arc::from);
        Login::new(shared.sasl.is_some(), principal)
    };
    let Some(endpoints) = &shared.tls else {
        let _ = Connection::new(shared, id, stream, login(None)).serve().await;
        return;
    };
    let Some((stream, principal)) = tls::accept(shared, endpoints, broker, stream).await else {
        return;
    };
    let mut connection = Connection::new(shared, id, stream, login(principal));
    if let Ok(End::Orderly) = connection.serve().await {
        // A broker that hangs up says so, and a network that cuts does not.
        let _ = connection.stream.shutdown().await;
    }
}

/// How a connection ends that its peer has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The broker hangs up.
    Orderly,
    /// By the fault script.
    Cut,
}

struct Connection<'a, S> {
    shared: &'a Arc<Shared>,
    broker: i32,
    stream: S,
    login: Login,
    buffer: BytesMut,
    scratch: Vec<u8>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(shared: &'a Arc<Shared>, broker: i32, stream: S, login: Login) -> Self {
        Self { shared, broker, stream, login, buffer: BytesMut::new(), scratch: Vec::new() }
    }

    async fn serve(&mut self) -> io::Result<End> {
        while let Some(frame) = self.next_frame().await? {
            if let Some(end) = self.answer(frame).await? {
                return Ok(end);
            }
        }
        Ok(End::Orderly)
    }

    /// The next whole frame, without its length; `None` when the peer has closed.
    async fn next_frame(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let wanted = match self.buffer.first_chunk::<4>() {
                None => {
                    if read_first(&mut self.stream, &mut self.buffer).await? == 0 {
                        return Ok(None);
                    }
                    continue;
                }
                Some(prefix) => {
                    let len = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
                    let limit = self.shared.config.max_request_bytes;
                    if len > limit {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("a frame of {len} bytes is over the limit of {limit}"),
                        ));
                    }
                    let whole = len + 4;
                    if self.buffer.len() >= whole {
                        let mut frame = self.buffer.split_to(whole).freeze();
                        if self.buffer.is_empty() {
                            self.buffer = BytesMut::new();
                        }
                        return Ok(Some(frame.split_off(4)));
                    }
                    (whole - self.buffer.len()).min(self.buffer.len().max(TRUSTED_ROOM))
                }
            };
            if self.buffer.capacity() - self.buffer.len() < wanted {
                self.buffer.reserve(wanted);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Handles one request; `Some`: the connection ends with it.
    async fn answer(&mut self, mut frame: Bytes) -> io::Result<Option<End>> {
        let request_bytes = frame.len();
        let head = match self.login.is_raw() {
            true => RequestHead::of_token(),
            false => wire::read_head(&mut frame).map_err(invalid)?,
        };
        let api = ApiKey(head.api_key);
        let Some(broker) = self.shared.broker(self.broker) else { return Ok(Some(End::Orderly)) };
        broker.counters.request(api, LENGTH + request_bytes);

        let mut plan = self.shared.faults.plan(self.broker, api);
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        if plan.cut_before {
            return Ok(Some(End::Cut));
        }
        if plan.black_hole {
            return self.swallow().await;
        }

        let route = self.login.route(api, Instant::now());
        if route == Route::OutOfTurn {
            plan.out_of_turn();
        }
        let work = Work { requests: 1, bytes: request_bytes as u64, ..Work::default() };
        let rights = self.shared.acls().map(|acls| (acls, Arc::clone(self.login.principal())));
        let mut call = Call {
            shared: self.shared,
            rights,
            broker,
            version: head.version,
            correlation_id: head.correlation_id,
            client_id: head.client_id,
            plan,
            work,
            scratch: &mut self.scratch,
        };
        let outcome = {
            let handled = handle(&mut self.login, route, &mut call, api, frame);
            tokio::pin!(handled);
            let mut reading = true;
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut handled => break outcome.map_err(invalid)?,
                    // A client that leaves during a long poll must not be served to its end.
                    read = read_ahead(&mut self.stream, &mut self.buffer), if reading => {
                        if read? == 0 {
                            return Ok(Some(End::Orderly));
                        }
                        reading = self.buffer.len() < READ_AHEAD;
                    }
                }
            }
        };
        // The fault script may have had something for what the body names.
        let Call { work, plan, .. } = call;
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }

        if let Some(done) = self.shared.charge(broker, work) {
            wait_until(done).await;
        }
        if plan.cut_after {
            return Ok(Some(End::Cut));
        }
        if plan.black_hole_after {
            return self.swallow().await;
        }
        if !plan.delay_response.is_zero() {
            tokio::time::sleep(plan.delay_response).await;
        }
        match outcome {
            Outcome::Response(mut answer) => {
                broker.counters.answered(api, answer.remaining());
                self.stream.write_all_buf(&mut answer).await?;
                self.stream.flush().await?;
            }
            Outcome::NoResponse => {}
            Outcome::Close => return Ok(Some(End::Orderly)),
            Outcome::Cut => return Ok(Some(End::Cut)),
            Outcome::Swallow => return self.swallow().await,
            Outcome::Refused(answer) => {
                broker.counters.login_refused();
                let delay = self.shared.sasl.as_ref().map(|sasl| sasl.sasl.failure_delay);
                tokio::time::sleep(delay.unwrap_or_default()).await;
                if let Some(mut answer) = answer {
                    self.stream.write_all_buf(&mut answer).await?;
                    self.stream.flush().await?;
                }
                return Ok(Some(End::Orderly));
            }
        }
        if !plan.throttle.is_zero() {
            // KIP-219: the response goes out at once, then the channel is muted.
            tokio::time::sleep(plan.throttle).await;
        }
        Ok(None)
    }

    /// Reads and forgets until the peer gives up.
    async fn swallow(&mut self) -> io::Result<Option<End>> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(READ_ROOM);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Some(End::Orderly));
            }
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Hands a request to its api, or to the login that it is a part of.
async fn handle(
    login: &mut Login,
    route: Route,
    call: &mut Call<'_>,
    api: ApiKey,
    body: Bytes,
) -> Result<Outcome, String> {
    let Some(registry) = &call.shared.sasl else { return api::handle(call, api, body).await };
    match route {
        Route::Api => api::handle(call, api, body).await,
        Route::Versions => {
            let (outcome, error) = api::api_versions::handle(call, body)?;
            if error == crate::error_code::NONE {
                login.told_versions();
            }
            Ok(outcome)
        }
        Route::Handshake => sasl::handshake(login, registry, call, body),
        Route::Authenticate => sasl::authenticate(login, registry, call, body),
        Route::OutOfTurn => Ok(match api::handle(call, api, body).await? {
            Outcome::Response(response) => Outcome::Refused(Some(response)),
            _ => Outcome::Refused(None),
        }),
        Route::Refuse => Ok(Outcome::Refused(None)),
        Route::Expired => {
            call.broker.counters.session_expired();
            Ok(Outcome::Close)
        }
        Route::Cut => Ok(Outcome::Close),
    }
}

/// Waits for a moment to the nearest millisecond, the grain of the runtime's timers: rounded up, a
/// request of 50 us would take twenty times as long.
async fn wait_until(at: Instant) {
    if at.saturating_duration_since(Instant::now()) > HALF_A_GRAIN {
        tokio::time::sleep_until(at - HALF_A_GRAIN).await;
    }
}

/// Reads without having room made for it beforehand.
async fn read_first<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); FIRST_READ];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

async fn read_ahead<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    if buffer.is_empty() {
        return read_first(stream, buffer).await;
    }
    if buffer.capacity() - buffer.len() < READ_ROOM {
        buffer.reserve(READ_ROOM);
    }
    stream.read_buf(buffer).await
}
