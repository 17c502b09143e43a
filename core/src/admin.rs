//! Topics and offsets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::TopicPartition;
use crate::cluster::{BudgetKind, Handle, Lane, Pool, list_offsets};
use crate::config::{Isolation, check_time, check_topic};
use crate::error::names::{NONE, NOT_CONTROLLER, UNKNOWN_SERVER_ERROR};
use crate::error::{Error, ErrorKind, Result};
use crate::net::CallError;
use crate::policy::backoff::Backoff;
use crate::policy::retry_budget::Cost;

const CREATE_VERSIONS: (i16, i16) = crate::protocol::bounded::<CreateTopicsRequest>(2, 7);

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication: i16,
    configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with so many partitions, each on so many brokers; -1 leaves either to the cluster's
    /// default.
    pub fn new(name: impl Into<String>, partitions: i32, replication: i16) -> Self {
        Self { name: name.into(), partitions, replication, configs: BTreeMap::new() }
    }

    /// A setting of the topic by Kafka's name, such as `max.message.bytes`.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// An offset to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// Of the oldest record.
    Earliest,
    /// One past the newest record.
    Latest,
    /// Of the first record at or after this time (milliseconds since 1970); the end if there is none.
    Timestamp(i64),
}

/// Operations on the cluster; get one from [`Client::admin`](crate::Client::admin).
#[derive(Clone)]
pub struct Admin {
    pool: Handle,
}

impl Admin {
    pub(crate) fn new(pool: Handle) -> Self {
        Self { pool }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// `TopicExists`, `InvalidArgument` (partitions, replication, settings), `Authorization`.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<()> {
        match self.create_topics(vec![topic]).await?.pop() {
            Some(result) => result,
            None => Err(Error::broker(
                UNKNOWN_SERVER_ERROR,
                "CreateTopics: the response leaves the topic out",
                None,
            )),
        }
    }

    /// Creates topics, each with a result of its own.
    ///
    /// # Errors
    /// If nobody could be asked.
    pub async fn create_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<()>>> {
        for topic in &topics {
            check_topic(&topic.name)?;
        }
        let pool = self.pool.clone();
        let create = async move {
            pool.check()?;
            let made = create(&pool, topics).await;
            pool.check()?;
            made
        };
        self.pool.env().run(create).await
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// `UnknownTopic`, `Authorization`; after the request timeout, why nobody answers.
    pub async fn partitions(&self, topic: &str) -> Result<usize> {
        check_topic(topic)?;
        self.pool.env().check_process()?;
        self.pool.check()?;
        let patience = self.pool.request_timeout();
        let found = self.pool.metadata().topic(topic, patience).await;
        // It may have become another cluster's meanwhile.
        self.pool.check()?;
        Ok(found.map_err(|e| self.pool.explain_wait(e))?.partitions.len())
    }

    /// Offsets of partitions, each with a result of its own, in the order in which they are asked for. What may be
    /// otherwise in a moment (a leader that has just moved, a topic that has just been created) is asked again, for as
    /// long as a request may take. A partition may be named more than once, for its beginning and its end, say: it is
    /// asked for one after the other.
    ///
    /// # Errors
    /// `InvalidArgument` for a time below zero; if nobody could be asked.
    pub async fn list_offsets<T: Into<String>>(
        &self,
        wanted: impl IntoIterator<Item = (T, i32, OffsetSpec)>,
    ) -> Result<Vec<(TopicPartition, Result<i64>)>> {
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(topic, partition, spec)| {
                let time = match spec {
                    OffsetSpec::Earliest => list_offsets::EARLIEST,
                    OffsetSpec::Latest => list_offsets::LATEST,
                    OffsetSpec::Timestamp(ms) => {
                        check_time(ms)?;
                        ms
                    }
                };
                Ok(((Arc::from(topic.into()), partition), time))
            })
            .collect::<Result<_>>()?;
        let pool = self.pool.clone();
        self.pool
            .env()
            .run(async move {
                pool.check()?;
                let found = look_up_all(&pool, &wanted).await;
                pool.check()?;
                let named = |((topic, partition), _)| TopicPartition { topic, partition };
                Ok(wanted.into_iter().map(named).zip(found).collect())
            })
            .await
    }
}

/// Lookups in which each partition stands once, as a request wants it; the results in the order of `wanted`.
async fn look_up_all(pool: &Handle, wanted: &[(list_offsets::Key, i64)]) -> Vec<Result<i64>> {
    let deadline = pool.env().now() + pool.request_timeout();
    let mut results: Vec<Option<Result<i64>>> = wanted.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..wanted.len()).collect();
    while !left.is_empty() {
        let mut places = BTreeMap::new();
        left.retain(|i| match places.entry(&wanted[*i].0) {
            Entry::Vacant(place) => {
                place.insert(*i);
                false
            }
            Entry::Occupied(_) => true,
        });
        let asked = places.values().map(|i| wanted[*i].clone()).collect();
        for (key, found) in look_up(pool, asked, deadline).await {
            if let Some(i) = places.get(&key) {
                results[*i] = Some(found);
            }
        }
    }
    let left_out = |((topic, partition), _): &(list_offsets::Key, i64)| {
        let what = format_args!("topic '{topic}' partition {partition}: nobody told its offset");
        Error::broker(UNKNOWN_SERVER_ERROR, what, None)
    };
    let each = results.into_iter().zip(wanted);
    each.map(|(found, of)| found.unwrap_or_else(|| Err(left_out(of)))).collect()
}

/// One lookup after the other, of what a retry may help.
async fn look_up(
    pool: &Handle,
    wanted: Vec<(list_offsets::Key, i64)>,
    deadline: Instant,
) -> Vec<(list_offsets::Key, Result<i64>)> {
    let env = pool.env();
    let mut backoff = Backoff::default();
    let mut ended = Vec::new();
    let mut left = wanted;
    pool.budgets().first_request(BudgetKind::Fetch, env.now());
    loop {
        let found =
            list_offsets::list(pool, Lane::Control, left.clone(), Isolation::default()).await;
        let (again, done): (Vec<_>, Vec<_>) = found
            .into_iter()
            .map(|(key, found)| (key, found.map(|at| at.offset)))
            .partition(|(_, found)| found.as_ref().is_err_and(|e| !e.is_final()));
        ended.extend(done);
        if again.is_empty() {
            return ended;
        }
        let mut at = env.now() + pool.random(|rng| backoff.next(rng));
        if let Err(paid) = pool.budgets().retry(BudgetKind::Fetch, Cost::Definite, at) {
            pool.budgets().delayed(BudgetKind::Fetch);
            at = paid;
        }
        if at >= deadline {
            ended.extend(again);
            return ended;
        }
        left.retain(|(key, _)| again.iter().any(|(of, _)| of == key));
        env.sleep_until(at).await;
    }
}

/// Requests in one call. An election takes a second or two, and brokers learn of it one after the other.
const CONTROLLER_ASKED: u32 = 6;

/// Creates topics; those for which a broker says that it is not the controller are asked for again at
/// whom the brokers name.
async fn create(pool: &Handle, topics: Vec<NewTopic>) -> Result<Vec<Result<()>>> {
    let env = pool.env();
    let deadline = env.now() + pool.request_timeout();
    let mut backoff = Backoff::default();
    let mut results: Vec<Option<Result<()>>> = topics.iter().map(|_| None).collect();
    let mut controller = None;
    for asked in 1..=CONTROLLER_ASKED {
        let refused = |r: &Option<Result<()>>| match r {
            None => true,
            Some(Err(e)) => e.broker_code() == Some(NOT_CONTROLLER),
            Some(Ok(())) => false,
        };
        let left: Vec<usize> = (0..topics.len()).filter(|i| refused(&results[*i])).collect();
        let request = creation(pool, left.iter().map(|i| &topics[*i]));
        let (from, response) = match ask(pool, &request, controller, asked > 1, deadline).await {
            Ok(found) => found,
            // Asked once: a second time would say that the topic exists, and not whose it is.
            Err(e) if asked == 1 => return Err(e),
            Err(e) => {
                left.iter().for_each(|i| results[*i] = Some(Err(e.clone())));
                break;
            }
        };
        for i in left {
            results[i] = Some(created(pool, &topics[i].name, &response));
        }
        let at = env.now() + pool.random(|rng| backoff.next(rng));
        if !results.iter().any(refused) || at >= deadline {
            break;
        }
        pool.pay().await;
        env.sleep_until(at).await;
        controller = pool.controller(from).await.ok().filter(|id| *id >= 0);
    }
    Ok(results.into_iter().flatten().collect())
}

fn creation<'a>(pool: &Handle, topics: impl Iterator<Item = &'a NewTopic>) -> CreateTopicsRequest {
    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let config = |(name, value): (&String, &String)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreateTopicsRequest::default()
        .with_timeout_ms(i32::try_from(pool.request_timeout().as_millis() / 2).unwrap_or(30_000))
        .with_topics(
            topics
                .map(|topic| {
                    CreatableTopic::default()
                        .with_name(TopicName(text(&topic.name)))
                        .with_num_partitions(topic.partitions)
                        .with_replication_factor(topic.replication)
                        .with_configs(topic.configs.iter().map(config).collect())
                })
                .collect(),
        )
}

/// One request, to the controller if it is known, else to anybody; and whose the response is.
async fn ask(
    pool: &Arc<Pool>,
    request: &CreateTopicsRequest,
    controller: Option<i32>,
    retry: bool,
    deadline: Instant,
) -> Result<(i32, CreateTopicsResponse)> {
    let (id, connection) = match controller {
        None => {
            let (id, connection) = pool.control().await?;
            match connection.prove().await {
                Ok(()) => (id, connection),
                Err(_) => pool.control().await?,
            }
        }
        Some(id) => {
            let lane = pool.lane_for_call(id, Lane::Control);
            match tokio::time::timeout_at(deadline, lane).await {
                Ok(lane) => (id, lane?),
                Err(_) => {
                    let words = format!("the controller, broker {id}, was not reached in time");
                    return Err(pool.explain(Error::new(ErrorKind::Timeout, words), [id]));
                }
            }
        }
    };
    let response = connection.call(request, CREATE_VERSIONS, retry).await;
    Ok((id, response.map_err(CallError::into_error)?))
}

fn created(pool: &Pool, name: &str, response: &CreateTopicsResponse) -> Result<()> {
    let what = format!("topic '{name}'");
    match response.topics.iter().find(|t| *t.name.0 == *name) {
        None => Err(Error::broker(
            UNKNOWN_SERVER_ERROR,
            format_args!("{what}: the response leaves it out"),
            None,
        )),
        Some(t) if t.error_code == NONE => {
            pool.metadata().created(name);
            pool.topic_created(name);
            Ok(())
        }
        Some(t) => Err(Error::broker(t.error_code, what, t.error_message.as_deref())),
    }
}
