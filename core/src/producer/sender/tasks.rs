//! The tasks that the sender starts. Each asks a broker for something, on behalf of the clients whose batches this sender
//! sends, and ends in an event. A task does not keep the pool: when that has ended, nobody waits for the event.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use tokio::sync::{mpsc, oneshot};

use super::lookup::{Wanted, describe_producers};
use super::producer_id::init_producer_id;
use crate::caught::caught;
use crate::cluster::{Lane, Pool};
use crate::config::Caller;
use crate::environment::Environment;
use crate::error::Result;
use crate::net::{CallError, Connection};
use crate::policy::reconnect::DialUrgency;
use crate::producer::accumulator::{Event, Told};

pub(super) struct Tasks {
    pool: Weak<Pool>,
    env: Environment,
    caller: Arc<Caller>,
    events: mpsc::UnboundedSender<Event>,
}

impl Tasks {
    pub(super) fn new(
        pool: &Arc<Pool>,
        caller: &Arc<Caller>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            env: pool.env().clone(),
            caller: Arc::clone(caller),
            events,
        }
    }

    /// The pool, unless it has ended.
    pub(super) fn pool(&self) -> Option<Arc<Pool>> {
        self.pool.upgrade()
    }

    /// The loop runs again, after the events that are there already.
    pub(super) fn run_again(&self) {
        let _ = self.events.send(Event::Pressure);
    }

    /// Asks the pool for the produce lane to a broker: the open connection, once it has given a sign of life, or a new
    /// one.
    pub(super) fn open_lane(&self, id: i32, urgency: DialUrgency) {
        let (pool, events) = (self.pool.clone(), self.events.clone());
        self.env.spawn(async move {
            let Some(pool) = pool.upgrade() else { return };
            let result = caught(async {
                pool.env().mishap("lane");
                pool.lane(id, Lane::Produce, urgency).await
            });
            let result = result.await.and_then(|result| result);
            let _ = events.send(Event::Lane(id, result));
        });
    }

    /// Asks any broker for a producer id. `of`: the incarnation of the cluster.
    pub(super) fn ask_producer_id(&self, of: u64) {
        let (pool, events, caller) =
            (self.pool.clone(), self.events.clone(), Arc::clone(&self.caller));
        self.env.spawn(async move {
            let Some(pool) = pool.upgrade() else { return };
            let id = caught(async {
                pool.env().mishap("producer id");
                init_producer_id(&pool, &caller).await
            });
            let _ = events.send(Event::ProducerId(of, id.await.and_then(|id| id)));
        });
    }

    /// Asks a leader for the last sequences that it knows of our producer id, in one call for all `parts`; each of them
    /// gets an event. `of`: the incarnation of the cluster; `asked_by`: which sender asks.
    pub(super) fn look_up(&self, leader: i32, parts: Vec<Wanted>, of: u64, asked_by: u64) {
        let (pool, events, caller) =
            (self.pool.clone(), self.events.clone(), Arc::clone(&self.caller));
        self.env.spawn(async move {
            let Some(pool) = pool.upgrade() else { return };
            let told = describe_producers(&pool, &caller, leader, &parts).await;
            for ((topic, partition, _), last) in parts.into_iter().zip(told) {
                let told = Told { leader, topic, partition, of, asked_by, last };
                let _ = events.send(Event::LookedUp(told));
            }
        });
    }

    /// Waits for the response to the Produce request with this number. `receiver`: of its frame, or why that could not be
    /// sent. `answered`: whether there is a response at all (acks=0: none).
    pub(super) fn await_response(
        &self,
        request: u64,
        connection: Connection,
        receiver: Result<oneshot::Receiver<Result<Bytes, CallError>>>,
        version: i16,
        answered: bool,
    ) {
        let (env, events) = (self.env.clone(), self.events.clone());
        self.env.spawn(async move {
            let response = caught(async {
                env.mishap("produce");
                match receiver {
                    Err(e) => Err(CallError::Unsent(e)),
                    Ok(receiver) => {
                        connection.response(receiver).await.and_then(|body| match answered {
                            true => connection
                                .read::<ProduceRequest>(version, body)
                                .map(Some)
                                .map_err(CallError::InDoubt),
                            false => Ok(None),
                        })
                    }
                }
            });
            let response = response.await.unwrap_or_else(|e| Err(CallError::InDoubt(e)));
            let _ = events.send(Event::Response(request, response));
        });
    }
}
