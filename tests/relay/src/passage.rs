//! One connection: frames of a client go to the broker, answers come back, both as whole frames.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::frames::{self, Request};
use crate::log::{End, What};
use crate::relay::Shared;

/// A connection that was accepted.
pub(crate) struct Passage {
    pub(crate) broker: u32,
    pub(crate) id: u64,
    pub(crate) to: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    /// Whether nothing passes.
    pub(crate) hole: watch::Receiver<bool>,
}

/// How a side ended: in order, or with a reset that is handed on.
enum Ended {
    Closed,
    Reset,
}

/// Requests without a response yet, by correlation id: kind and version.
#[derive(Default)]
struct Open(Mutex<HashMap<i32, (i16, i16)>>);

impl Open {
    fn asked(&self, request: &Request) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(request.correlation, (request.key, request.version));
    }

    fn answered(&self, correlation: i32) -> Option<(i16, i16)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation)
    }
}

impl Passage {
    /// Passes frames on until the broker closes or `reset` is told.
    pub(crate) async fn run(self, mut client: TcpStream, reset: oneshot::Receiver<()>) {
        // Options are best effort; without this one small answers would wait for each other.
        let _ = client.set_nodelay(true);
        let left = AtomicBool::new(false);
        let (end, how) = tokio::select! {
            biased;
            Ok(()) = reset => (End::Relay, Ended::Reset),
            ended = self.pass(&mut client, &left) => ended,
        };
        if matches!(how, Ended::Reset) {
            let _ = client.set_zero_linger();
        }
        // Said when its end was seen, where the client was first.
        if !left.load(Ordering::Relaxed) {
            self.shared.note(self.broker, self.id, What::Closed(end));
        }
    }

    async fn pass(&self, client: &mut TcpStream, left: &AtomicBool) -> (End, Ended) {
        let (from_client, to_client) = client.split();
        let (queue, queued) = mpsc::unbounded_channel();
        let open = Open::default();
        let read = async {
            match self.read(from_client, &open, &queue).await {
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    eprintln!("relay: a client of broker {}: {e}", self.broker);
                    (End::Relay, Ended::Reset)
                }
                _ => {
                    left.store(true, Ordering::Relaxed);
                    self.shared.note(self.broker, self.id, What::Closed(End::Client));
                    // What is queued still goes on its way.
                    drop(queue);
                    std::future::pending().await
                }
            }
        };
        let carry = async {
            self.healed().await;
            let Ok(mut server) = TcpStream::connect(self.to).await else {
                return (End::Broker, Ended::Reset);
            };
            let _ = server.set_nodelay(true);
            let (from_server, to_server) = server.split();
            tokio::select! {
                never = self.write(to_server, queued) => never,
                how = self.answer(from_server, to_client, &open) => (End::Broker, how),
            }
        };
        tokio::select! {
            ended = read => ended,
            ended = carry => ended,
        }
    }

    /// Takes requests from the client, also while nothing passes: they are on their way then.
    async fn read(
        &self,
        mut from: ReadHalf<'_>,
        open: &Open,
        queue: &mpsc::UnboundedSender<Bytes>,
    ) -> io::Result<()> {
        let mut name: Arc<str> = Arc::from("");
        while let Some(frame) = frames::next(&mut from).await? {
            let request = Request::read(&frame)?;
            if *name != *request.client {
                name = Arc::from(&*request.client);
            }
            open.asked(&request);
            let what = What::Request { key: request.key, client: Arc::clone(&name) };
            self.shared.note(self.broker, self.id, what);
            // Nobody takes it any more: the broker has closed, and that ends this too.
            let _ = queue.send(frame);
        }
        Ok(())
    }

    /// Hands the requests on. Those that waited for the path to heal arrive then, as by TCP's own
    /// repetition, even if their client has given up meanwhile. Never returns: the end is the
    /// broker's to say.
    async fn write(
        &self,
        mut to: WriteHalf<'_>,
        mut queued: mpsc::UnboundedReceiver<Bytes>,
    ) -> (End, Ended) {
        while let Some(frame) = queued.recv().await {
            self.healed().await;
            if put(&mut to, &frame).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        std::future::pending().await
    }

    /// Brings the responses back until the broker closes.
    async fn answer(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, open: &Open) -> Ended {
        let mut gone = false;
        loop {
            let frame = match frames::next(&mut from).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ended::Closed,
                Err(e) => {
                    if e.kind() == io::ErrorKind::InvalidData {
                        eprintln!("relay: broker {}: {e}", self.broker);
                    }
                    return Ended::Reset;
                }
            };
            self.healed().await;
            let asked = open.answered(frames::correlation(&frame));
            let frame = match asked {
                Some((key, version)) if key == ApiKey::Produce as i16 => {
                    match self.produce_response(frame, version) {
                        Some(frame) => frame,
                        None => return Ended::Reset,
                    }
                }
                _ => frame,
            };
            // What a client that left does not read any more is thrown away until the broker
            // notices too.
            gone = gone || put(&mut to, &frame).await.is_err();
        }
    }

    /// What becomes of a Produce response; `None` if it is lost.
    fn produce_response(&self, frame: Bytes, version: i16) -> Option<Bytes> {
        let plan = self.shared.plan(self.broker);
        let written = || frames::all_written(&frame, version).unwrap_or(false);
        if plan.loses_responses() && written() && self.shared.take_loss(self.broker) {
            self.shared.note(self.broker, self.id, What::ResponseLost);
            return None;
        }
        let Some(silence) = plan.silence() else { return Some(frame) };
        let milliseconds = i32::try_from(silence.as_millis()).unwrap_or(i32::MAX);
        match frames::throttled(&frame, version, milliseconds) {
            Ok(frame) => {
                self.shared.note(self.broker, self.id, What::Throttled(silence));
                Some(frame)
            }
            Err(e) => {
                eprintln!("relay: broker {}: {e}", self.broker);
                Some(frame)
            }
        }
    }

    async fn healed(&self) {
        let mut hole = self.hole.clone();
        // The relay is ending otherwise, and this task with it.
        let _ = hole.wait_for(|hole| !hole).await;
    }
}

async fn put(to: &mut WriteHalf<'_>, frame: &Bytes) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes();
    to.write_all_buf(&mut (&length[..]).chain(frame.clone())).await
}
