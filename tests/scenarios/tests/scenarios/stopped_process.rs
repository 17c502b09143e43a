//! A process that is stopped for a while (by a signal, a debugger, a frozen machine): clocks go on
//! without it, and when it wakes its timers fire before anything is read. What came in meanwhile counts,
//! and nothing is held against anybody for a time in which only this process did nothing.

use std::io::{self, BufRead, BufReader, IoSlice};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{
    BoxFuture, Client, ClientBuilder, Dialer, Endpoint, Environment, InDoubt, Record, Transport,
};
use ottla_scenarios::steps::{acked, cluster, connect, pinned, secs, stored};
use ottla_scenarios::wait::{until, within};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::runtime::Handle;

/// Sockets of a process that can be stopped: what arrives stays in them until it goes on.
#[derive(Clone, Default)]
struct Process(Arc<State>);

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    /// Writes fail: the peer has closed.
    broken: AtomicBool,
    readers: Mutex<Vec<Waker>>,
}

impl Process {
    fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
    }

    /// It goes on, so much later. Its timers have fired already, and its tasks have run, when the
    /// sockets are found to hold something.
    async fn go_on_after(&self, time: Duration) {
        self.wake_after(time).await;
        self.read();
    }

    /// The same as long as nothing has been found.
    async fn wake_after(&self, time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn read(&self) {
        self.0.stopped.store(false, Ordering::SeqCst);
        self.0.readers.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    fn client(&self, cluster: &Cluster) -> ClientBuilder {
        let dialer = Sockets { process: self.clone(), cluster: cluster.dialer() };
        let environment =
            Environment::builder().runtime(Handle::current()).dialer(Arc::new(dialer)).seed(3);
        Client::builder().bootstrap(cluster.bootstrap()).environment(environment.build())
    }
}

struct Sockets {
    process: Process,
    cluster: ottla::testing::Dialer,
}

impl Dialer for Sockets {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let inner = self.cluster.dial(&to.host, to.port)?;
            Ok(Box::new(Socket { process: self.process.clone(), inner }) as Box<dyn Transport>)
        })
    }
}

struct Socket {
    process: Process,
    inner: DuplexStream,
}

impl Transport for Socket {}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.process.0.stopped.load(Ordering::SeqCst) {
            self.process.0.readers.lock().unwrap().push(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.process.0.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Timeouts, lost connections, retried and late requests: all zero if nothing was held against anybody.
fn complaints(client: &Client) -> String {
    let stats = client.stats();
    let of = |b: &ottla::BrokerStats| {
        let requests = b.requests.values();
        requests.map(|r| r.timeouts + r.retries).sum::<u64>() + b.losses + b.late
    };
    let sum: u64 = stats.brokers.values().map(of).sum();
    if sum == 0 { String::new() } else { format!("{:?}", stats.brokers) }
}

async fn stopped_with_a_response_in_the_socket(
    stopped_for: Duration,
    delivery_timeout: Duration,
    in_doubt: InDoubt,
) {
    let cluster = cluster(3, 3);
    let process = Process::default();
    let client = connect(process.client(&cluster)).await;
    let producer = client.producer().delivery_timeout(delivery_timeout).in_doubt(in_doubt);
    let producer = producer.linger(Duration::ZERO).build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    process.stop();
    let free = Record::to("t").value("x");
    let sent = within("space", producer.send(free)).await.unwrap();
    let written = || (0..3).map(|p| stored(&cluster, p).len()).sum::<usize>();
    until("it is written", || written() == 4).await;
    process.go_on_after(stopped_for).await;
    within("the answer that was there", sent).await.unwrap();
    within("flush", producer.flush()).await.unwrap();
    assert_eq!(written(), 4, "sent again though it was answered");
    assert_eq!(complaints(&client), "", "after {stopped_for:?}");
}

/// For less than the request timeout, about it, and for far more.
#[tokio::test(start_paused = true)]
async fn responses_that_came_while_it_was_stopped_count() {
    for stopped_for in [29, 30, 31, 40, 90] {
        stopped_with_a_response_in_the_socket(secs(stopped_for), secs(120), InDoubt::Wait).await;
    }
}

/// The record is over its delivery timeout, and was delivered in time.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_in_time_has_not_failed() {
    for stopped_for in [31, 40, 600] {
        stopped_with_a_response_in_the_socket(secs(stopped_for), secs(30), InDoubt::Wait).await;
    }
}

/// A broker is not late for a time in which nobody looked: nothing goes elsewhere.
#[tokio::test(start_paused = true)]
async fn nobody_is_late_while_it_was_stopped() {
    for stopped_for in [1, 5, 40] {
        stopped_with_a_response_in_the_socket(secs(stopped_for), secs(120), InDoubt::Reroute).await;
    }
}

/// What is on its way when it goes on has its time: as much as before it was stopped.
#[tokio::test(start_paused = true)]
async fn a_response_that_comes_a_little_later_is_waited_for() {
    let cluster = cluster(1, 1);
    let process = Process::default();
    let client = connect(process.client(&cluster)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    process.stop();
    let sent = within("space", producer.send(pinned(0))).await.unwrap();
    until("it is written", || stored(&cluster, 0).len() == 2).await;
    process.wake_after(secs(60)).await;
    tokio::time::sleep(secs(20)).await;
    process.read();
    within("an ack", sent).await.unwrap();
    assert_eq!((stored(&cluster, 0).len(), complaints(&client)), (2, String::new()));
}

/// A broker that answers nothing is as silent as ever: that its clients look at it often changes nothing.
#[tokio::test(start_paused = true)]
async fn silence_is_still_silence() {
    let cluster = cluster(1, 1);
    let process = Process::default();
    let client = connect(process.client(&cluster).request_timeout(secs(10))).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE));
    let began = tokio::time::Instant::now();
    acked(&producer, pinned(0)).await;
    let took = began.elapsed();
    assert!(took > secs(10) && took < secs(12), "{took:?}");
}

/// A broker answers, and closes: that the next request cannot be written is no reason to forget what it
/// answered to the one before.
#[tokio::test(start_paused = true)]
async fn a_response_is_read_before_a_broken_pipe_is_believed() {
    let cluster = cluster(1, 2);
    let process = Process::default();
    let client = connect(process.client(&cluster)).await;
    let producer = client.producer().linger(Duration::ZERO).build().unwrap();
    for partition in 0..2 {
        acked(&producer, pinned(partition)).await;
    }
    process.stop();
    let first = within("space", producer.send(pinned(0))).await.unwrap();
    until("it is written", || stored(&cluster, 0).len() == 2).await;
    process.0.broken.store(true, Ordering::SeqCst);
    process.0.stopped.store(false, Ordering::SeqCst);
    let second = within("space", producer.send(pinned(1))).await.unwrap();
    within("its ack", first).await.unwrap();
    let again: u64 = {
        let stats = client.stats();
        stats.brokers.values().flat_map(|b| b.requests.values()).map(|r| r.disconnected).sum()
    };
    assert_eq!(again, 1, "only the second had no answer");
    process.0.broken.store(false, Ordering::SeqCst);
    within("its ack", second).await.unwrap();
    assert_eq!(stored(&cluster, 0).len(), 2);
}

// --- the same with a real process and a real signal

const CHILD: &str = "OTTLA_TEST_STOPPED_CHILD";

/// What the child does: one record whose response comes while it is stopped.
#[test]
fn child() {
    let Ok(bootstrap) = std::env::var(CHILD) else { return };
    let settings = Client::builder().bootstrap(bootstrap).request_timeout(Duration::from_secs(1));
    let client = ottla::blocking::Client::connect_with(settings).unwrap();
    let producer = client.producer(|p| p.delivery_timeout(Duration::from_millis(1500))).unwrap();
    producer.send(Record::to("t").value("first")).unwrap().wait(None).unwrap();
    println!("ready");
    let outcome = producer.send(Record::to("t").value("second")).unwrap().wait(None);
    println!("{:?} {}", outcome.map(|at| at.offset), complaints(client.inner()));
}

fn line_of(child: &mut Child, lines: &mut impl BufRead, what: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            panic!("{what}: the child ended with {:?}", child.wait());
        }
        // The test harness has words of its own.
        if line.contains("ready") || line.contains("Ok(") || line.contains("Err(") {
            return line.trim().to_owned();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_stopped_by_a_signal() {
    use rustix::process::{Pid, Signal, kill_process};

    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["stopped_process::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, cluster.bootstrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // Answered a little later than it is written: by then the child is stopped.
    cluster.faults().inject(
        FaultRule::new(Fault::DelayResponse(Duration::from_millis(300)))
            .api(ApiKey::PRODUCE)
            .always(),
    );
    line_of(&mut child, &mut lines, "its first record");
    let deadline = std::time::Instant::now() + secs(60);
    while cluster.partition("t", 0).unwrap().log_end < 2 {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        std::thread::yield_now();
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    // Past its request timeout and its delivery timeout: this is the fault, and waits for nothing.
    std::thread::sleep(secs(4));
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(line_of(&mut child, &mut lines, "its second record"), "Ok(1)");
    assert!(child.wait().unwrap().success());
}
