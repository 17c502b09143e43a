//! Merging responses into the cache: those to Metadata requests, and the leaders that Produce and Fetch
//! responses name (KIP-951).

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::MetadataResponse;
use uuid::Uuid;

use super::{BrokerAddress, Brokers, LeaderHint, Metadata, PartitionMeta, TopicMeta};
use crate::cluster::merge;
use crate::config::Endpoint;
use crate::error::names::{LEADER_NOT_AVAILABLE, NONE, UNKNOWN_TOPIC_OR_PARTITION};
use crate::error::{Error, ErrorKind, describe};
use crate::policy::agreement::{Objection, Witness, Word};
use crate::policy::metadata_refresh::RefreshReason;

/// The changes that a response made, for the caller to log: nothing is logged under the lock.
#[derive(Default)]
pub(in crate::cluster) struct Merged {
    /// Something was new.
    pub(in crate::cluster) changed: bool,
    /// Topics that may not be used any more, with the error.
    pub(in crate::cluster) forbidden: Vec<(Arc<str>, Error)>,
    /// Topics that may be used again.
    pub(in crate::cluster) allowed: Vec<Arc<str>>,
}

impl Metadata {
    /// Applies a response of the broker `from` (negative: a bootstrap address). `brokers` hears of the
    /// brokers, and of those that a newer leader epoch names, before anybody can read of a topic
    /// whose leaders they are.
    pub(in crate::cluster) fn merge(
        &self,
        response: &MetadataResponse,
        from: i32,
        all: bool,
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) -> Merged {
        let now = self.env.now();
        let (mut merged, mut named) = (Merged::default(), BTreeSet::new());
        let mut guard = self.write();
        let state = &mut *guard;
        let trouble = state.trouble.take();
        let troubled_since = trouble.map_or(now, |(since, _)| since);
        // A broker that is cut off from the controller goes on answering what it knew. Older epochs
        // betray it, and topics that are gone; then neither its list of brokers nor what it does not know
        // counts.
        let behind = response.topics.iter().any(|topic| {
            let known = topic.name.as_ref().and_then(|n| state.topics.get(n.0.as_str()));
            known.is_some_and(|known| {
                known.incarnations.is_former(topic.topic_id)
                    || known.meta.as_ref().is_some_and(|meta| merge::is_behind(meta, topic))
            })
        });
        let told = merge::brokers(response);
        let alone = told.len() == 1;
        // A broker that names no broker, not even itself, has just started and knows nothing yet.
        let knows_the_cluster = !told.is_empty();
        if knows_the_cluster && !behind {
            merged.changed |= told != state.brokers;
            state.brokers = told;
        }
        let several = state.brokers.len() > 1;
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().map(|n| n.0.as_str()) else { continue };
            // Topics that nobody asked for are not kept.
            let Some((name, _)) = state.topics.get_key_value(name) else { continue };
            let name = Arc::clone(name);
            let Some(entry) = state.topics.get_mut(&name) else { continue };
            entry.asked = false;
            let code = topic.error_code;
            let witness = Witness { broker: from, several, known: entry.meta.is_some() };
            if matches!(code, NONE | LEADER_NOT_AVAILABLE) {
                // The list of brokers is not updated by a response that is behind: if only one broker is left, it
                // would wait for a second one to agree.
                let of_former = Witness { several: several && !alone, ..witness };
                if entry.incarnations.is_former(topic.topic_id)
                    && !Objection::hear(&mut entry.objection, Word::Former, of_former, now)
                {
                    entry.wanted = true;
                    continue;
                }
                if entry.incarnations.is_gone(topic.topic_id)
                    && !Objection::hear(&mut entry.objection, Word::Back, of_former, now)
                {
                    entry.wanted = true;
                    continue;
                }
                entry.objection = None;
                entry.error = None;
                if std::mem::take(&mut entry.forbidden) {
                    merged.allowed.push(Arc::clone(&name));
                }
                let merge = merge::topic(entry.meta.as_ref(), &name, topic);
                merged.changed |= merge.changed;
                named.extend(merge.named);
                let meta = merge.meta;
                // A partition without a leader is asked for again by callers that need it, not because it is
                // known.
                entry.wanted |= meta.partitions.is_empty();
                if !meta.partitions.is_empty() {
                    entry.incarnations.is_now(meta.id);
                    entry.meta = Some(meta);
                }
                continue;
            }
            let error = Error::broker(code, format_args!("topic '{name}'"), None);
            let word = word(code).filter(|_| knows_the_cluster);
            let word =
                word.filter(|word| !(behind && *word == Word::Missing && entry.meta.is_some()));
            let Some(word) = word else {
                // The error of a caller that waits for the topic in vain.
                state.trouble = Some((troubled_since, error));
                entry.wanted = true;
                continue;
            };
            if !Objection::hear(&mut entry.objection, word, witness, now) {
                entry.wanted = true;
                continue;
            }
            merged.changed |= entry.meta.take().is_some();
            entry.wanted = false;
            let error = if word == Word::Missing {
                entry.incarnations.is_missing();
                Error::broker(UNKNOWN_TOPIC_OR_PARTITION, format_args!("topic '{name}'"), None)
                    .settled()
            } else {
                error
            };
            let forbidden = error.kind() == ErrorKind::Authorization;
            if forbidden && !std::mem::replace(&mut entry.forbidden, true) {
                merged.forbidden.push((name, error.clone()));
            }
            entry.error = Some((error, now));
        }
        // Topics that were asked for and that the response does not mention are wanted again.
        let mut again = false;
        for topic in state.topics.values_mut() {
            topic.wanted |= std::mem::take(&mut topic.asked);
            again |= topic.wanted;
        }
        brokers(&state.brokers, &named);
        drop(guard);
        self.plan(|plan, rng, now| {
            plan.answered(all, merged.changed, now, rng);
            if again {
                plan.want(RefreshReason::Again, now, rng);
            }
        });
        self.tell();
        merged
    }

    /// Applies leaders that a response names, without a Metadata request (KIP-951). Gives the brokers that are
    /// named by a newer leader epoch than the known one; none if nothing was new. `brokers` as in
    /// [`merge`](Self::merge), if something was. `id` is that of the topic that was asked about, nil if it is
    /// not known: its leaders are not those of another topic of the same name.
    pub(crate) fn hint(
        &self,
        topic: &str,
        id: Uuid,
        hints: &[LeaderHint],
        endpoints: &[(i32, Endpoint)],
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) -> BTreeSet<i32> {
        let mut state = self.write();
        let mut named = BTreeSet::new();
        let entry = state.topics.get_mut(topic);
        let same = |meta: &&mut Arc<TopicMeta>| id.is_nil() || meta.id == id;
        if let Some(meta) = entry.and_then(|t| t.meta.as_mut()).filter(same) {
            let mut partitions = meta.partitions.clone();
            for hint in hints {
                let slot = usize::try_from(hint.partition).ok().and_then(|i| partitions.get_mut(i));
                if let Some(slot) = slot.filter(|s| hint.leader >= 0 && hint.epoch > s.epoch) {
                    *slot = PartitionMeta { leader: hint.leader, epoch: hint.epoch };
                    named.insert(hint.leader);
                }
            }
            if !named.is_empty() {
                *meta = Arc::new(TopicMeta { name: meta.name.clone(), id: meta.id, partitions });
            }
        }
        if !named.is_empty() {
            // Only endpoints of brokers that a hint made a leader: a response may name any number.
            for (id, endpoint) in endpoints.iter().filter(|(id, _)| named.contains(id)) {
                let rack = state.brokers.get(id).and_then(|place| place.rack.clone());
                state.brokers.insert(*id, BrokerAddress { endpoint: endpoint.clone(), rack });
            }
            brokers(&state.brokers, &named);
            drop(state);
            self.tell();
        }
        named
    }

    /// A response names a broker, and where it is, that metadata does not know yet. Nothing happens to one that is
    /// known: the newest metadata says where it is. `brokers` as in [`merge`](Self::merge).
    pub(crate) fn place(
        &self,
        id: i32,
        endpoint: &Endpoint,
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) {
        let mut state = self.write();
        if state.brokers.contains_key(&id) {
            return;
        }
        let place = BrokerAddress { endpoint: endpoint.clone(), rack: None };
        state.brokers.insert(id, place);
        brokers(&state.brokers, &BTreeSet::new());
        drop(state);
        self.tell();
    }
}

/// How an error code speaks against a topic; `None`: it says nothing about the topic, or will pass.
fn word(code: i16) -> Option<Word> {
    let row = describe(code);
    match row.kind {
        ErrorKind::UnknownTopic => Some(Word::Missing),
        _ if row.retriable || row.own_fault => None,
        ErrorKind::Authorization | ErrorKind::InvalidArgument => Some(Word::Refused),
        _ => Some(Word::Odd),
    }
}
