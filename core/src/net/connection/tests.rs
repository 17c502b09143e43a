//! One connection against a peer that a test plays byte by byte: which responses are believed, what a
//! lost request is, when a connection ends, and how old it is.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use kafka_protocol::messages::MetadataRequest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;
use crate::environment::READ_FIRST;
use crate::metrics::{BrokerStats, Metrics};
use crate::record::pool::ChunkPool;

/// What a test sends: some request whose responses nobody decodes.
const API: i16 = 0;

/// How a connection ended, as its pool is told.
type End = Arc<Mutex<Option<CloseReason>>>;

struct Set {
    connection: Connection,
    peer: DuplexStream,
    metrics: Arc<Metrics>,
    end: End,
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn caller(request_timeout: Duration, idle_timeout: Duration) -> Arc<Caller> {
    Arc::new(Caller { client_id: "c".into(), request_timeout, idle_timeout })
}

/// A connection whose socket takes `room` bytes before the peer has to read.
fn connection(room: usize) -> Set {
    connection_of(room, &caller(secs(30), secs(600)))
}

fn connection_of(room: usize, caller: &Arc<Caller>) -> Set {
    let (near, peer) = tokio::io::duplex(room);
    connection_over(Box::new(near), peer, caller)
}

fn connection_over(near: Box<dyn Transport>, peer: DuplexStream, caller: &Arc<Caller>) -> Set {
    let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
    let metrics = Arc::new(Metrics::default());
    let end = End::default();
    let told = Arc::clone(&end);
    let ready = Ready {
        id: 1,
        stream: near,
        reader: FrameReader::new(ChunkPool::default()),
        name: "broker 7".into(),
        versions: Versions::new([(18, 0, 3)].into_iter()),
        round_trip: Duration::ZERO,
        caller: Arc::clone(caller),
        idle_share: 0.9,
        next_correlation: 100,
        guard: None,
        renewal: None,
        on_close: Box::new(move |end: &CloseReason| *told.lock().unwrap() = Some(end.clone())),
        metrics: metrics.broker(7).dialed(env.now()).connected(false, env.now()),
    };
    Set { connection: Connection::start(&env, ready), peer, metrics, end }
}

impl Set {
    /// A request of so many bytes, its prefix included, and its number.
    fn send(&self, bytes: usize) -> (i32, oneshot::Receiver<Response>) {
        self.send_by(&self.connection, bytes, true)
    }

    fn send_by(
        &self,
        connection: &Connection,
        bytes: usize,
        answered: bool,
    ) -> (i32, oneshot::Receiver<Response>) {
        let correlation = connection.next_correlation();
        let mut body = ((bytes - 4) as u32).to_be_bytes().to_vec();
        body.extend(correlation.to_be_bytes());
        body.extend((8..bytes).map(|at| at as u8));
        // Two segments: their border is nothing that the peer could see.
        let body = Bytes::from(body);
        let segments = vec![body.slice(..bytes / 2), body.slice(bytes / 2..)];
        let frame = Frame { segments, correlation, api_key: API, retry: false, answered };
        (correlation, connection.send(frame))
    }

    /// The number of the next request, read whole by the peer.
    async fn read(&mut self) -> i32 {
        let mut len = [0; 4];
        self.peer.read_exact(&mut len).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.peer.read_exact(&mut body).await.unwrap();
        let content = body[4..].iter().copied();
        assert!(content.eq((8..body.len() + 4).map(|at| at as u8)), "bytes came twice, or not");
        i32::from_be_bytes(body[..4].try_into().unwrap())
    }

    async fn answer(&mut self, correlation: i32) {
        let mut frame = 6u32.to_be_bytes().to_vec();
        frame.extend(correlation.to_be_bytes());
        frame.extend([1, 2]);
        self.peer.write_all(&frame).await.unwrap();
    }

    fn ending(&self) -> Option<CloseReason> {
        self.end.lock().unwrap().clone()
    }

    fn counted(&self) -> BrokerStats {
        self.metrics.snapshot().brokers.remove(&7).unwrap()
    }
}

/// Until everything that can happen at this moment has.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn outcome(response: Response) -> &'static str {
    match response {
        Ok(_) => "answered",
        Err(CallError::Unsent(_)) => "unsent",
        Err(CallError::InDoubt(_)) => "in doubt",
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_oldest_requests_own_response_is_believed() {
    // What the peer answers while 100, 101 and 102 are asked; behind the second colon what 101 becomes.
    for (responses, first) in [
        // One that was answered before, as a peer that lost count would.
        (&[100, 100][..], "answered"),
        (&[100, 99], "answered"),
        // The right number, too early: brokers answer in order.
        (&[101], "in doubt"),
        (&[102], "in doubt"),
        (&[103], "in doubt"),
        (&[-100], "in doubt"),
    ] {
        let mut set = connection(1 << 10);
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(set.send(40).1);
            set.read().await;
        }
        for response in responses {
            set.answer(*response).await;
        }
        let mut outcomes = Vec::new();
        for response in asked {
            outcomes.push(outcome(response.await.unwrap()));
        }
        assert_eq!(outcomes, [first, "in doubt", "in doubt"], "{responses:?}");
        let Some(CloseReason::Lost(error)) = set.ending() else { panic!("{:?}", set.ending()) };
        assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
        // Who comes later is told what it was, and that nothing of theirs was sent.
        let Err(CallError::Unsent(error)) = set.send(40).1.await.unwrap() else { panic!() };
        assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_asked_for_ends_it() {
    let mut set = connection(1 << 10);
    set.answer(100).await;
    settle().await;
    let Some(CloseReason::Lost(error)) = set.ending() else { panic!("{:?}", set.ending()) };
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    assert!(set.connection.is_closed());
}

/// The peer cannot have seen a request that the socket has not taken: a response to it is none.
#[tokio::test(start_paused = true)]
async fn a_response_before_its_request_is_none() {
    let mut set = connection(64);
    let (correlation, response) = set.send(200);
    settle().await;
    set.answer(correlation).await;
    assert_eq!(outcome(response.await.unwrap()), "unsent");
    let Some(CloseReason::Lost(error)) = set.ending() else { panic!("{:?}", set.ending()) };
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
}

/// Written to its last byte: the peer may have it. A byte less, and it cannot have acted.
#[tokio::test(start_paused = true)]
async fn what_the_socket_has_whole_is_in_doubt_and_nothing_else() {
    for (room, wanted) in [(99, "unsent"), (100, "in doubt"), (101, "in doubt")] {
        let set = connection(room);
        let (_, first) = set.send(100);
        let (_, second) = set.send(100);
        settle().await;
        drop(set.peer);
        assert_eq!(outcome(first.await.unwrap()), wanted, "room for {room} bytes");
        assert_eq!(outcome(second.await.unwrap()), "unsent", "room for {room} bytes");
        assert!(matches!(*set.end.lock().unwrap(), Some(CloseReason::HungUp(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_out_in_pieces_arrives_whole() {
    for room in [1, 3, 64, 150] {
        let mut set = connection(room);
        let sent: Vec<_> = (0..4).map(|_| set.send(100)).collect();
        for (correlation, response) in sent {
            assert_eq!(set.read().await, correlation);
            set.answer(correlation).await;
            assert_eq!(outcome(response.await.unwrap()), "answered");
        }
    }
}

/// A request without a response is done with when the socket has it, and leaves the connection free.
#[tokio::test(start_paused = true)]
async fn what_is_not_answered_is_over_when_it_is_written() {
    let mut set = connection(64);
    let (_, mut done) = set.send_by(&set.connection, 100, false);
    settle().await;
    assert!(done.try_recv().is_err() && set.connection.in_flight() == 1);
    set.read().await;
    assert_eq!(outcome(done.await.unwrap()), "answered");
    assert!(set.connection.is_free());
}

#[tokio::test(start_paused = true)]
async fn a_retired_one_ends_when_all_is_written_and_answered() {
    let mut set = connection(64);
    let (correlation, response) = set.send(40);
    set.connection.retire();
    let (_, later) = set.send(40);
    settle().await;
    assert!(set.ending().is_none(), "an answer is still to come");
    set.read().await;
    set.answer(correlation).await;
    assert_eq!(outcome(response.await.unwrap()), "answered");
    settle().await;
    assert!(matches!(set.ending(), Some(CloseReason::Unneeded)), "{:?}", set.ending());
    assert_eq!(outcome(later.await.unwrap()), "unsent");
    assert_eq!((set.counted().losses, set.counted().connections_open), (0, 0));

    let mut set = connection(64);
    let (_, written) = set.send_by(&set.connection, 100, false);
    set.connection.retire();
    settle().await;
    assert!(set.ending().is_none(), "something is still to be written");
    set.read().await;
    assert_eq!(outcome(written.await.unwrap()), "answered");
    settle().await;
    assert!(matches!(set.ending(), Some(CloseReason::Unneeded)), "{:?}", set.ending());
}

/// A stream that takes bytes at once and hands them on when it is flushed, as TLS does when the socket is full.
struct Keeping {
    inner: DuplexStream,
    kept: Vec<u8>,
}

impl Transport for Keeping {}

impl AsyncRead for Keeping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Keeping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        while !this.kept.is_empty() {
            let wrote = std::task::ready!(Pin::new(&mut this.inner).poll_write(cx, &this.kept))?;
            this.kept.drain(..wrote);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.kept.is_empty() {
            // As TLS says that this is the end.
            self.kept = b"the end".to_vec();
        }
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What the stream keeps to itself is not sent: without a response nobody would miss it.
#[tokio::test(start_paused = true)]
async fn what_a_stream_keeps_is_not_written_and_an_end_waits_for_it() {
    let (near, peer) = tokio::io::duplex(64);
    let near = Keeping { inner: near, kept: Vec::new() };
    let mut set = connection_over(Box::new(near), peer, &caller(secs(30), secs(600)));
    let (first, mut done) = set.send_by(&set.connection, 100, false);
    settle().await;
    assert!(done.try_recv().is_err() && set.connection.in_flight() == 1);
    set.connection.retire();
    settle().await;
    assert!(set.ending().is_none(), "it has something left to send");
    assert_eq!(set.read().await, first);
    assert_eq!(outcome(done.await.unwrap()), "answered");
    settle().await;
    assert!(matches!(set.ending(), Some(CloseReason::Unneeded)), "{:?}", set.ending());
    let mut rest = Vec::new();
    set.peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"the end", "in order");
}

/// A peer that reads nothing any more is not waited for longer than a request is, and the goodbye takes a second.
#[tokio::test(start_paused = true)]
async fn an_end_waits_for_nobody_for_ever() {
    let keeping = |room| {
        let (near, peer) = tokio::io::duplex(room);
        let near = Keeping { inner: near, kept: Vec::new() };
        connection_over(Box::new(near), peer, &caller(secs(30), secs(600)))
    };
    let begun = Instant::now();
    let set = keeping(64);
    let (_, done) = set.send_by(&set.connection, 100, false);
    set.connection.retire();
    assert_eq!(outcome(done.await.unwrap()), "in doubt");
    assert_eq!(begun.elapsed().as_secs(), 30);

    let mut set = keeping(4);
    let begun = Instant::now();
    set.connection.retire();
    tokio::time::sleep(secs(2)).await;
    let mut rest = Vec::new();
    set.peer.read_to_end(&mut rest).await.unwrap();
    assert_eq!((&rest[..], begun.elapsed().as_secs()), (&b"the "[..], 2));
}

/// Idle from the last response on, for as long as the most patient of its callers wants.
#[tokio::test(start_paused = true)]
async fn an_idle_one_is_given_back_and_that_is_no_loss() {
    let mut set = connection_of(1 << 10, &caller(secs(300), secs(100)));
    let begun = Instant::now();
    let (correlation, response) = set.send(40);
    set.read().await;
    tokio::time::sleep(secs(50)).await;
    set.answer(correlation).await;
    response.await.unwrap().unwrap();
    assert_eq!(set.connection.last_used(), begun + secs(50));
    // 90 % of 100 s.
    tokio::time::sleep(secs(89)).await;
    assert!(set.ending().is_none());
    tokio::time::sleep(secs(2)).await;
    assert!(matches!(set.ending(), Some(CloseReason::Idle)), "{:?}", set.ending());
    let counted = set.counted();
    assert_eq!((counted.idle_closes, counted.losses, counted.connections_open), (1, 0, 0));

    let mut set = connection_of(1 << 10, &caller(secs(300), secs(100)));
    let patient = set.connection.on_behalf_of(&caller(secs(300), secs(1_000)));
    let (correlation, response) = set.send_by(&patient, 40, true);
    set.read().await;
    set.answer(correlation).await;
    response.await.unwrap().unwrap();
    tokio::time::sleep(secs(890)).await;
    assert!(set.ending().is_none(), "one of its callers wants it for longer");
    tokio::time::sleep(secs(20)).await;
    assert!(matches!(set.ending(), Some(CloseReason::Idle)), "{:?}", set.ending());
}

/// Each caller waits for its own time; the connection is given up when the most patient one has.
#[tokio::test(start_paused = true)]
async fn callers_wait_as_long_as_they_want_and_the_connection_for_the_longest() {
    let mut set = connection_of(1 << 10, &caller(secs(60), secs(600)));
    let hasty = set.connection.on_behalf_of(&caller(secs(2), secs(600)));
    let begun = Instant::now();
    let (first, patient) = set.send(40);
    let (second, given_up) = set.send_by(&hasty, 40, true);
    assert_eq!((set.read().await, set.read().await), (first, second));
    let Err(CallError::InDoubt(error)) = given_up.await.unwrap() else { panic!() };
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::Timeout, 2));
    assert!(set.ending().is_none() && !set.connection.is_closed());
    // The responses still come in their order; that to what was given up is nobody's.
    set.answer(first).await;
    patient.await.unwrap().unwrap();
    set.answer(second).await;
    settle().await;
    assert!(set.ending().is_none(), "{:?}", set.ending());
    assert!(set.connection.is_free());

    let (_, response) = set.send(40);
    let begun = Instant::now();
    assert_eq!(outcome(response.await.unwrap()), "in doubt");
    let waited = begun.elapsed();
    assert!((secs(60)..secs(61)).contains(&waited), "{waited:?}");
    let Some(CloseReason::Lost(error)) = set.ending() else { panic!("{:?}", set.ending()) };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let counted = set.counted().requests["Produce"];
    assert_eq!((counted.timeouts, counted.disconnected, counted.answered), (2, 0, 1));
}

/// Late is by the oldest request without a response, whoever came after it.
#[tokio::test(start_paused = true)]
async fn the_oldest_request_says_how_late_it_is() {
    let mut set = connection(1 << 10);
    let late = |set: &Set, ms| set.connection.is_late(Duration::from_millis(ms), Instant::now());
    assert!(!late(&set, 0));
    let (first, _one) = set.send(40);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (second, _two) = set.send(40);
    set.read().await;
    set.read().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(late(&set, 450) && !late(&set, 550));
    set.answer(first).await;
    settle().await;
    assert!(late(&set, 150) && !late(&set, 250), "the second one is the oldest now");
    set.answer(second).await;
    settle().await;
    tokio::time::sleep(secs(5)).await;
    assert!(!late(&set, 0), "nothing is asked");
}

/// Pauses that a broker asks for do not shorten each other, and have a limit.
#[tokio::test(start_paused = true)]
async fn the_longest_pause_counts() {
    struct Pause(i32);
    impl Throttle for Pause {
        fn throttle_time_ms(&self) -> i32 {
            self.0
        }
    }
    let set = connection(1 << 10);
    let now = Instant::now();
    set.connection.heed(API, &Pause(-5));
    assert!(set.connection.is_free());
    for (ms, until) in [(5_000, 5_000), (100, 5_000), (7_000, 7_000), (i32::MAX, 600_000)] {
        set.connection.heed(API, &Pause(ms));
        let muted = set.connection.muted_until(now).expect("muted");
        assert_eq!(muted - now, Duration::from_millis(until), "asked for {ms}");
        assert!(!set.connection.is_free() && set.connection.in_flight() == 0);
    }
    assert_eq!(
        (set.counted().throttled, set.counted().throttle_time),
        (4, secs(612) + Duration::from_millis(100))
    );
    tokio::time::sleep(secs(601)).await;
    assert!(set.connection.muted_until(Instant::now()).is_none());
}

/// After three quiet minutes something is asked first; who has no response to it is left.
#[tokio::test(start_paused = true)]
async fn what_was_quiet_for_long_is_asked_for_a_sign_of_life() {
    let mut set = connection(1 << 10);
    tokio::time::sleep(secs(170)).await;
    set.connection.prove().await.unwrap();
    // To send something is use as well.
    let (correlation, response) = set.send(40);
    assert_eq!(set.read().await, correlation, "nothing was asked before it");
    tokio::time::sleep(secs(15)).await;
    assert!(!set.connection.needs_proof(Instant::now()));
    set.answer(correlation).await;
    response.await.unwrap().unwrap();
    tokio::time::sleep(secs(181)).await;
    assert!(set.connection.needs_proof(Instant::now()));
    let begun = Instant::now();
    let error = set.connection.prove().await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::Disconnected, PROOF_PATIENCE));
    assert!(set.connection.is_closed());
    settle().await;
    assert!(matches!(set.ending(), Some(CloseReason::Lost(_))), "{:?}", set.ending());
}

/// A peer that hangs up on the first thing it is asked may want SASL; one that has answered before, or
/// has begun to, is lost like any other.
#[tokio::test(start_paused = true)]
async fn hanging_up_on_the_first_question_is_told_apart() {
    let mut set = connection(1 << 10);
    let (_, response) = set.send(40);
    set.read().await;
    drop(set.peer);
    assert_eq!(outcome(response.await.unwrap()), "in doubt");
    assert!(matches!(*set.end.lock().unwrap(), Some(CloseReason::HungUp(_))));

    let mut set = connection(1 << 10);
    let (correlation, response) = set.send(40);
    set.read().await;
    set.answer(correlation).await;
    response.await.unwrap().unwrap();
    assert!(set.connection.has_answered());
    let (_, response) = set.send(40);
    settle().await;
    drop(set.peer);
    assert_eq!(outcome(response.await.unwrap()), "in doubt");
    assert!(matches!(*set.end.lock().unwrap(), Some(CloseReason::Lost(_))));

    let mut set = connection(1 << 10);
    let (_, response) = set.send(40);
    set.read().await;
    set.peer.write_all(&[0, 0, 0]).await.unwrap();
    settle().await;
    drop(set.peer);
    assert_eq!(outcome(response.await.unwrap()), "in doubt");
    assert!(matches!(*set.end.lock().unwrap(), Some(CloseReason::Lost(_))));
}

/// The timer may come before what the socket has: whoever is overdue has one moment more.
#[tokio::test(start_paused = true)]
async fn who_is_overdue_is_read_once_more() {
    let set = connection_of(1 << 10, &caller(secs(10), secs(600)));
    let begun = Instant::now();
    let (_, response) = set.send(40);
    assert_eq!(outcome(response.await.unwrap()), "in doubt");
    assert!(begun.elapsed() >= secs(10), "{:?}", begun.elapsed());
    settle().await;
    while set.ending().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begun.elapsed() >= secs(10) + READ_FIRST, "{:?}", begun.elapsed());
}

/// What a process did not look at itself for a while is not late, and has time to come once it looks.
#[tokio::test(start_paused = true)]
async fn after_a_stop_there_is_time_for_what_is_on_its_way() {
    let mut set = connection_of(1 << 10, &caller(secs(10), secs(600)));
    let (correlation, response) = set.send(40);
    set.read().await;
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    let now = Instant::now();
    assert!(set.connection.is_late(secs(9), now));
    assert!(!set.connection.is_late(secs(9), now + secs(60)), "nobody has looked since");
    tokio::time::advance(secs(60)).await;
    settle().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(set.ending().is_none(), "{:?}", set.ending());
    set.answer(correlation).await;
    response.await.unwrap().unwrap();
}

/// A request is use, before it is answered.
#[tokio::test(start_paused = true)]
async fn a_connection_is_used_when_it_is_asked() {
    let set = connection(1 << 10);
    tokio::time::sleep(secs(100)).await;
    let _response = set.send(40);
    assert!(Instant::now() - set.connection.last_used() < secs(1));
}

/// Whoever waits for the proof hears of it; a response counts for what was lost before it.
#[tokio::test(start_paused = true)]
async fn who_vouches_is_heard_and_counts_until_the_next_loss() {
    let losses = Arc::<AtomicU64>::default();
    let mut set = connection(1 << 10);
    set.connection.vouched_by(Arc::new(Vouch::new(false, &losses)));
    let waiting = set.connection.clone();
    let waiting = tokio::spawn(async move { waiting.vouched().await });
    settle().await;
    assert!(!waiting.is_finished() && !set.connection.is_vouched());
    set.connection.vouch();
    tokio::time::timeout(secs(1), waiting).await.expect("it was told").unwrap();
    for _ in 0..3 {
        assert!(set.connection.is_alive_since_the_last_loss());
        losses.fetch_add(1, Ordering::AcqRel);
        assert!(!set.connection.is_alive_since_the_last_loss());
        let (correlation, response) = set.send(40);
        set.read().await;
        set.answer(correlation).await;
        response.await.unwrap().unwrap();
    }
}

/// A peer whose response cannot be read is no broker: nothing more is believed of it.
#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_read_ends_it() {
    let set = connection(1 << 10);
    let garbled = Bytes::from_static(&[1, 2]);
    let error = set.connection.read::<MetadataRequest>(12, garbled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    assert!(set.connection.is_closed());
    settle().await;
    assert!(matches!(set.ending(), Some(CloseReason::Lost(_))), "{:?}", set.ending());
}
