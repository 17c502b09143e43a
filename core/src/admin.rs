//! Topics and offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::{Hold, Lane, Pool, Purse};
use crate::config::check_topic;
use crate::consumer::{check_time, list_offsets, offsets};
use crate::error::{Error, Result};
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
    pool: Hold,
}

impl Admin {
    pub(crate) fn new(pool: Hold) -> Self {
        Self { pool }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// `TopicExists`, `InvalidArgument` (partitions, replication, settings), `Authorization`.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<()> {
        match self.create_topics(vec![topic]).await?.pop() {
            Some(result) => result,
            None => Err(Error::broker(-1, "CreateTopics: no answer", None)),
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
        let pool = Arc::clone(&self.pool);
        self.pool.env().run(async move { create(&pool, topics).await }).await
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// `UnknownTopic`, `Authorization`; after the request timeout, why nobody answers.
    pub async fn partitions(&self, topic: &str) -> Result<usize> {
        check_topic(topic)?;
        self.pool.env().check_process()?;
        let patience = self.pool.request_timeout();
        let found = self.pool.metadata().topic(topic, patience).await;
        Ok(found.map_err(|e| self.pool.explain_wait(e))?.partitions.len())
    }

    /// Offsets of partitions, each with a result of its own. What may be otherwise in a moment (a leader
    /// that has just moved, a topic that has just been created) is asked again, for as long as a request
    /// may take.
    ///
    /// # Errors
    /// `InvalidArgument` for a time below zero; if nobody could be asked.
    pub async fn list_offsets<T: Into<String>>(
        &self,
        wanted: impl IntoIterator<Item = (T, i32, OffsetSpec)>,
    ) -> Result<Vec<((String, i32), Result<i64>)>> {
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(topic, partition, spec)| {
                let time = match spec {
                    OffsetSpec::Earliest => offsets::EARLIEST,
                    OffsetSpec::Latest => offsets::LATEST,
                    OffsetSpec::Timestamp(ms) => {
                        check_time(ms)?;
                        ms
                    }
                };
                Ok(((Arc::from(topic.into()), partition), time))
            })
            .collect::<Result<_>>()?;
        let pool = Arc::clone(&self.pool);
        self.pool
            .env()
            .run(async move {
                let found = look_up(&pool, wanted).await;
                Ok(found.into_iter().map(|((t, p), r)| ((t.to_string(), p), r)).collect())
            })
            .await
    }
}

/// One lookup after the other, of what a retry may help.
async fn look_up(
    pool: &Arc<Pool>,
    wanted: Vec<(offsets::Key, i64)>,
) -> Vec<(offsets::Key, Result<i64>)> {
    let env = pool.env();
    let deadline = env.now() + pool.request_timeout();
    let mut backoff = Backoff::default();
    let mut ended = Vec::new();
    let mut left = wanted;
    pool.budgets().first_request(Purse::Fetch, env.now());
    loop {
        let found = list_offsets(pool, Lane::Control, left.clone()).await;
        let (again, done): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, r)| r.as_ref().is_err_and(|e| !e.is_final()));
        ended.extend(done);
        if again.is_empty() {
            return ended;
        }
        let mut at = env.now() + pool.random(|rng| backoff.next(rng));
        if let Err(paid) = pool.budgets().retry(Purse::Fetch, Cost::Definite, at) {
            pool.budgets().delayed(Purse::Fetch);
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

async fn create(pool: &Arc<Pool>, topics: Vec<NewTopic>) -> Result<Vec<Result<()>>> {
    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(i32::try_from(pool.request_timeout().as_millis() / 2).unwrap_or(30_000))
        .with_topics(
            topics
                .iter()
                .map(|topic| {
                    CreatableTopic::default()
                        .with_name(TopicName(text(&topic.name)))
                        .with_num_partitions(topic.partitions)
                        .with_replication_factor(topic.replication)
                        .with_configs(
                            topic
                                .configs
                                .iter()
                                .map(|(name, value)| {
                                    CreatableTopicConfig::default()
                                        .with_name(text(name))
                                        .with_value(Some(text(value)))
                                })
                                .collect(),
                        )
                })
                .collect(),
        );
    let (_, connection) = pool.control().await?;
    // Asked once: a second time would say that the topic exists, and not whose it is.
    let answer =
        connection.call(&request, CREATE_VERSIONS, false).await.map_err(CallError::into_error)?;
    Ok(topics
        .iter()
        .map(|topic| {
            let what = format!("topic '{}'", topic.name);
            match answer.topics.iter().find(|t| *t.name.0 == *topic.name) {
                None => Err(Error::broker(-1, format_args!("{what}: no answer"), None)),
                Some(t) if t.error_code == 0 => {
                    pool.metadata().created(&topic.name);
                    pool.producers().created(&topic.name);
                    Ok(())
                }
                Some(t) => Err(Error::broker(t.error_code, what, t.error_message.as_deref())),
            }
        })
        .collect())
}
