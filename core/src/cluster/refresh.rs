//! Keeps the metadata fresh: one request in flight per pool, for the topics in use only; when, is
//! [`policy::metadata_refresh`](crate::policy::metadata_refresh)'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::Instant;

use super::metadata::Question;
use super::pool::{Pool, is_hopeless};
use crate::caught::caught;
use crate::config::UNKNOWN_TOPIC_SPACING;
use crate::error::names::{NONE, REBOOTSTRAP_REQUIRED};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Api, MetadataReason, limited};
use crate::net::Connection;

/// Versions of Metadata this client speaks: topic ids in the response (10) where the broker has them.
pub(super) const VERSIONS: (i16, i16) = crate::protocol::bounded::<MetadataRequest>(9, 13);

/// If the known brokers were asked again and again for this time, and none has answered, they may be of a
/// cluster that is gone, while the bootstrap list leads to its successor (KIP-1102,
/// `metadata.recovery.rebootstrap.trigger.ms`).
const REBOOTSTRAP_AFTER: Duration = Duration::from_secs(300);

/// Idle buffers that were not needed for at least this time are given back.
const TRIM_AFTER: Duration = Duration::from_secs(60);

/// Runs as long as the pool exists.
pub(crate) async fn run(pool: Weak<Pool>) {
    let Some((metadata, env)) = pool.upgrade().map(|p| (p.metadata().clone(), p.env().clone()))
    else {
        return;
    };
    let mut asked_broker = None;
    // Since when nobody answers that is asked: how long nobody was asked says nothing.
    let mut failing: Option<Instant> = None;
    let mut trimmed = env.now();
    // Since when nothing but nonsense has come.
    let mut nonsense: Option<Instant> = None;
    loop {
        let at = metadata.plan(|plan, _, _| plan.next());
        tokio::select! {
            biased;
            () = metadata.ask.notified() => {}
            () = env.sleep_until(at) => {}
        }
        let Some(pool) = pool.upgrade() else { return };
        // Done while the refresher is awake anyway: a timer for this alone would wake ten thousand idle
        // clients.
        if env.now().saturating_duration_since(trimmed) >= TRIM_AFTER {
            trimmed = env.now();
            pool.buffers().trim();
        }
        let Some(question) = metadata.question() else { continue };
        metadata.asked(&question);
        // Nothing in use: nothing to ask.
        if question.topics.is_empty() && !question.identity {
            failing = None;
            metadata.plan(|plan, rng, now| plan.answered(question.all, false, now, rng));
            continue;
        }
        let response = caught(ask(&pool, &question, asked_broker)).await;
        match response.and_then(|response| response) {
            Ok(from) => {
                asked_broker = Some(from);
                failing = None;
                nonsense = None;
            }
            Err(e) if pool.give_in(e.kind() == ErrorKind::ClusterChanged) => {
                metadata.not_answered(&question, &e);
                failing = None;
            }
            Err(e) => {
                metadata.not_answered(&question, &e);
                // Each broker had spoken Kafka when it was dialled. A bad moment of a proxy before all of them
                // passes; what stands in between for good does not.
                let now = env.now();
                let garbled = e.kind() == ErrorKind::NotKafka;
                nonsense = garbled.then(|| nonsense.unwrap_or(now));
                let passes = nonsense.is_some_and(|since| now - since < UNKNOWN_TOPIC_SPACING);
                if is_hopeless(&e) && !passes {
                    metadata.all_brokers_refused(&e);
                }
                if now.saturating_duration_since(*failing.get_or_insert(now)) >= REBOOTSTRAP_AFTER {
                    rebootstrap(&pool);
                    failing = None;
                }
            }
        }
    }
}

/// Whether a broker speaks a version of Metadata that this client does: without one it is of no use.
pub(super) fn speaks_with(connection: &Connection) -> Result<()> {
    connection.version(MetadataRequest::KEY, VERSIONS).map(drop)
}

fn rebootstrap(pool: &Pool) {
    limited!(
        pool.metrics().logs(),
        "ottla::cluster",
        WARN,
        "beginning again from the bootstrap list"
    );
    pool.metadata().forget_brokers();
    pool.brokers_changed(&BTreeMap::new(), &BTreeSet::new());
}

async fn ask(pool: &Arc<Pool>, question: &Question, not: Option<i32>) -> Result<i32> {
    let why = if !pool.metadata().knows_brokers() {
        match pool.metadata().begins_again() {
            false => MetadataReason::FirstContact,
            true => MetadataReason::Rebootstrap,
        }
    } else if question.new {
        MetadataReason::NewTopic
    } else if question.all {
        MetadataReason::Periodic
    } else {
        MetadataReason::Trouble
    };
    exchange(pool, question, not.filter(|_| question.elsewhere), why).await
}

/// One question to one broker; if it is silent, to a second one as well, and the first response wins.
/// Gives who answered.
async fn exchange(
    pool: &Arc<Pool>,
    question: &Question,
    not: Option<i32>,
    why: MetadataReason,
) -> Result<i32> {
    let request =
        MetadataRequest::default().with_allow_auto_topic_creation(false).with_topics(Some(
            question
                .topics
                .iter()
                .map(|name| {
                    MetadataRequestTopic::default()
                        .with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
                })
                .collect(),
        ));
    pool.env().mishap("metadata");
    pool.metrics().metadata_asked(why);
    let hedged = |_: i32| pool.metrics().metadata_asked(MetadataReason::Trouble);
    let check = |id: i32, by: &Connection, response: &MetadataResponse| match response.error_code {
        NONE => pool.recognise(id, by, response),
        // Done as it says, once.
        REBOOTSTRAP_REQUIRED => Ok(()),
        code => {
            by.metrics().broker().error_response(Api::Metadata);
            Err(Error::broker(code, "Metadata", None))
        }
    };
    let (from, response) =
        pool.call_anybody(pool.caller(), &request, VERSIONS, not, check, hedged).await?;
    if response.error_code == REBOOTSTRAP_REQUIRED {
        pool.metrics().broker(from).error_response(Api::Metadata);
        rebootstrap(pool);
        return Err(Error::broker(REBOOTSTRAP_REQUIRED, "Metadata", None));
    }
    apply(pool, &response, from, question.all);
    Ok(from)
}

fn apply(pool: &Arc<Pool>, response: &MetadataResponse, from: i32, all: bool) {
    let metadata = pool.metadata();
    let merged = metadata.merge(response, from, all, |all, named| pool.brokers_changed(all, named));
    // Once for each time that it lasts: records and calls have the error meanwhile.
    for (topic, error) in merged.forbidden {
        limited!(pool.metrics().logs(), "ottla::cluster", WARN, %topic, error = %error.message(), "topic may not be used");
    }
    for topic in merged.allowed {
        limited!(pool.metrics().logs(), "ottla::cluster", INFO, %topic, "topic may be used again");
    }
}

impl Pool {
    /// Who is the controller; another broker than `not` is asked if there is one. -1: nobody knows.
    pub(crate) async fn controller(self: &Arc<Self>, not: i32) -> Result<i32> {
        let request = MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(Vec::new()));
        self.metrics().metadata_asked(MetadataReason::Trouble);
        let hedged = |_: i32| self.metrics().metadata_asked(MetadataReason::Trouble);
        let check = |id, by: &Connection, response: &MetadataResponse| match response.error_code {
            NONE => self.recognise(id, by, response),
            code => Err(Error::broker(code, "Metadata", None)),
        };
        let (from, response) =
            self.call_anybody(self.caller(), &request, VERSIONS, Some(not), check, hedged).await?;
        apply(self, &response, from, false);
        Ok(response.controller_id.0)
    }

    /// Notes how long a short call took.
    pub(super) fn called(&self, since: Instant) {
        let took = self.env().now().saturating_duration_since(since);
        self.control_latency().record(took);
    }
}

#[cfg(test)]
mod tests;
