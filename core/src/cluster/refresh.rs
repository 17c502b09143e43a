//! Keeps the metadata fresh: one request in flight per pool, for the topics in use only, at once
//! for new ones, on a jittered period else.

use std::sync::{Arc, Weak};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::RngExt;

use super::pool::Pool;
use super::stats::Counters;
use crate::config::{METADATA_MIN_AGE, METADATA_PERIOD, METADATA_PERIOD_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::backoff::Backoff;

/// Versions of Metadata this client speaks: topic ids in the answer (10) where the broker has them.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<MetadataRequest>(9, 13);

/// An answer that takes longer is not waited for: another broker is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs as long as the pool exists.
pub(crate) async fn run(pool: Weak<Pool>) {
    let Some((metadata, env)) = pool.upgrade().map(|p| (p.metadata().clone(), p.env().clone()))
    else {
        return;
    };
    let mut rng = env.rng();
    let mut backoff = Backoff::default();
    let mut period = METADATA_PERIOD;
    loop {
        let jittered = period.mul_f64(rng.random_range(0.8..1.2));
        let on_period = tokio::select! {
            () = metadata.ask.notified() => false,
            () = env.sleep(jittered) => true,
        };
        let mut asked_broker = None;
        loop {
            let Some(pool) = pool.upgrade() else { return };
            let topics = metadata.in_use();
            if !on_period && !topics.iter().any(|(_, wanted)| *wanted) {
                break;
            }
            if on_period && topics.is_empty() {
                break;
            }
            // New topics are asked for alone, so that a thousand of them do not make a thousand
            // answers about all.
            let names: Vec<_> = topics
                .iter()
                .filter(|(_, wanted)| on_period || *wanted)
                .map(|(name, _)| Arc::clone(name))
                .collect();
            match ask(&pool, &names, asked_broker).await {
                Ok((from, again)) => {
                    asked_broker = Some(from);
                    period = if on_period {
                        (period * 2).min(METADATA_PERIOD_MAX)
                    } else {
                        METADATA_PERIOD
                    };
                    if again.is_empty() {
                        backoff.reset();
                        drop(pool);
                        env.sleep(METADATA_MIN_AGE.mul_f64(rng.random_range(0.2..0.4))).await;
                        break;
                    }
                    for name in again {
                        metadata.want(&name);
                    }
                }
                Err(e) => {
                    if matches!(
                        e.kind(),
                        ErrorKind::Authentication
                            | ErrorKind::NotKafka
                            | ErrorKind::UnsupportedVersion
                    ) {
                        metadata.all_brokers_refused(&e);
                        break;
                    }
                }
            }
            drop(pool);
            let pause = backoff.next(&mut rng).max(METADATA_MIN_AGE / 5);
            env.sleep(pause).await;
        }
    }
}

/// One request to one broker, another than `not` if there is one. Gives who answered and the
/// topics to ask for again.
pub(crate) async fn ask(
    pool: &Arc<Pool>,
    topics: &[Arc<str>],
    not: Option<i32>,
) -> Result<(i32, Vec<Arc<str>>)> {
    let (from, connection) = pool.control(not).await?;
    let request =
        MetadataRequest::default().with_allow_auto_topic_creation(false).with_topics(Some(
            topics
                .iter()
                .map(|name| {
                    MetadataRequestTopic::default()
                        .with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
                })
                .collect(),
        ));
    Counters::add(&pool.counters().metadata_requests, 1);
    let answer = match tokio::time::timeout(PATIENCE, connection.call(&request, VERSIONS)).await {
        Ok(answer) => answer.map_err(|e| e.into_error())?,
        Err(_) => {
            pool.silent(from);
            return Err(Error::timeout(format!("{}: Metadata", connection.name()), PATIENCE));
        }
    };
    if answer.error_code != 0 {
        return Err(Error::broker(answer.error_code, "Metadata", None));
    }
    let again = pool.metadata().merge(&answer, from, pool.env().now());
    pool.brokers_changed();
    Ok((from, again))
}
