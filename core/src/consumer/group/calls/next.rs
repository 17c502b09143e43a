//! The requests of the next generation (KIP-848), and the look at a group before it is joined.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, DescribeGroupsRequest, GroupId, TopicName,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Calls, Failure, call, ms, text, version};
use crate::consumer::group::auto::{self, Described, Protocol};
use crate::consumer::group::next::{Answer, Place, Request};
use crate::error::names::{GROUP_ID_NOT_FOUND, NONE};
use crate::error::{Error, ErrorKind};
use crate::metrics::Api;
use crate::net::Connection;

const HEARTBEAT: (i16, i16) = crate::protocol::bounded::<ConsumerGroupHeartbeatRequest>(0, 1);
const DESCRIBE: (i16, i16) = crate::protocol::bounded::<DescribeGroupsRequest>(5, 6);

/// The first version with a pattern.
const PATTERN: i16 = 1;
/// Of a member whose rebalance timeout is as before.
const AS_BEFORE: i32 = -1;

/// What is in every heartbeat of a member, or in those that say it all.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Profile {
    /// `client.rack`.
    pub(in crate::consumer) rack: Option<Arc<str>>,
    pub(in crate::consumer) max_poll_interval: Duration,
    /// The coordinator's assignor; `None`: its first.
    pub(in crate::consumer) assignor: Option<Arc<str>>,
}

/// Keeps the order of a member's requests: each is written once the one before is, or will not be.
#[derive(Default)]
pub(in crate::consumer) struct Turns {
    last: Option<oneshot::Receiver<()>>,
    unanswered: Unanswered,
}

/// The connection to a coordinator on which a heartbeat is not answered yet.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<Option<(i32, Connection)>>>);

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, Option<(i32, Connection)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn begins(&self, coordinator: i32, connection: &Connection) {
        *self.lock() = Some((coordinator, connection.clone()));
    }

    fn ends(&self, connection: &Connection) {
        self.lock().take_if(|(_, of)| of.id() == connection.id());
    }

    /// Where a farewell has to go. On another connection it may be read before a join that is late on its own, and who
    /// joins then is a member that nobody hears of until its session is over.
    fn behind(&self, request: &Request, coordinator: i32) -> Option<Connection> {
        let state = self.lock();
        let (of, connection) = state.as_ref().filter(|_| request.epoch < 0)?;
        (*of == coordinator && !connection.is_closed()).then(|| connection.clone())
    }
}

/// See [`Turns`]. Over when it is dropped.
pub(in crate::consumer) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    unanswered: Unanswered,
    _written: oneshot::Sender<()>,
}

impl Turns {
    pub(in crate::consumer) fn next(&mut self) -> Turn {
        let (written, last) = oneshot::channel();
        let unanswered = self.unanswered.clone();
        Turn { before: self.last.replace(last), unanswered, _written: written }
    }
}

impl Turn {
    async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is sent: it ends when the turn before is over.
            let _ = before.await;
        }
    }
}

impl Calls {
    pub(in crate::consumer) async fn beat(
        &self,
        coordinator: i32,
        request: Request,
        profile: &Profile,
        mut turn: Turn,
    ) -> Result<Answer, Failure> {
        turn.comes().await;
        let unanswered = turn.unanswered.clone();
        let connection = match unanswered.behind(&request, coordinator) {
            Some(connection) => connection.on_behalf_of(&self.caller),
            None => self.shared(coordinator).await?,
        };
        let version = version::<ConsumerGroupHeartbeatRequest>(&connection, HEARTBEAT)?;
        let Request { member_id, epoch, all, owned } = request;
        if version < PATTERN && all.as_ref().is_some_and(|all| all.pattern.is_some()) {
            let words = format!("{}: groups without patterns of topics", connection.name());
            return Err(Failure::Unsent(Error::new(ErrorKind::UnsupportedVersion, words)));
        }
        let mut body = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&member_id))
            .with_member_epoch(epoch)
            .with_instance_id(self.instance())
            .with_rebalance_timeout_ms(AS_BEFORE)
            .with_topic_partitions(owned.map(by_topic));
        if let Some(all) = all {
            let names = all.topics.iter().map(|topic| TopicName(text(topic))).collect();
            body = body
                .with_rack_id(profile.rack.as_deref().map(text))
                .with_rebalance_timeout_ms(ms(profile.max_poll_interval))
                .with_server_assignor(profile.assignor.as_deref().map(text))
                .with_subscribed_topic_names(Some(names));
            if version >= PATTERN {
                // An empty one takes back what was said before: by this member, or a static one whose place it takes.
                let pattern = all.pattern.as_deref().map(text).unwrap_or_default();
                body.subscribed_topic_regex = Some(pattern);
            }
        }
        let mut answer = pin!(call(&connection, &body, version));
        // The request is written with the first poll.
        let first = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        unanswered.begins(coordinator, &connection);
        drop(turn);
        let response = match first {
            Poll::Ready(response) => response,
            Poll::Pending => answer.await,
        };
        unanswered.ends(&connection);
        let response = response?;
        if response.error_code != NONE {
            connection.metrics().broker().error_response(Api::ConsumerGroupHeartbeat);
        }
        let assignment = response.assignment.map(|assigned| {
            let places = assigned.topic_partitions.into_iter();
            let places = places.flat_map(|topic| {
                topic.partitions.into_iter().map(move |partition| (topic.topic_id, partition))
            });
            places.collect()
        });
        Ok(Answer {
            code: response.error_code,
            epoch: response.member_epoch,
            interval_ms: response.heartbeat_interval_ms,
            assignment,
        })
    }

    /// Which protocol to join with, by what the group is now.
    pub(in crate::consumer) async fn choose(
        &self,
        coordinator: i32,
        classic_only: bool,
    ) -> Result<Protocol, Failure> {
        let connection = self.shared(coordinator).await?;
        let level = connection.group_version();
        // The group cannot change what is chosen.
        if auto::choose(level, classic_only, None) == Protocol::Classic {
            return Ok(Protocol::Classic);
        }
        let Ok(version) = version::<DescribeGroupsRequest>(&connection, DESCRIBE) else {
            return Ok(Protocol::Classic);
        };
        let request =
            DescribeGroupsRequest::default().with_groups(vec![GroupId(text(&self.group))]);
        let response = call(&connection, &request, version).await?;
        let group = response.groups.iter().find(|group| *group.group_id.0 == *self.group);
        let Some(group) = group else {
            return Err(self.left_out(&connection, Api::DescribeGroups));
        };
        let described = match group.error_code {
            NONE => {
                Some(Described { state: &group.group_state, protocol_type: &group.protocol_type })
            }
            GROUP_ID_NOT_FOUND => None,
            code => return Err(self.refused(&connection, Api::DescribeGroups, code)),
        };
        Ok(auto::choose(level, classic_only, described))
    }
}

fn by_topic(places: Vec<Place>) -> Vec<TopicPartitions> {
    let mut topics: Vec<(Uuid, Vec<i32>)> = Vec::new();
    for (id, partition) in places {
        match topics.iter_mut().find(|(of, _)| *of == id) {
            Some((_, partitions)) => partitions.push(partition),
            None => topics.push((id, vec![partition])),
        }
    }
    let topic =
        |(id, partitions)| TopicPartitions::default().with_topic_id(id).with_partitions(partitions);
    topics.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_behind_waits_for_who_is_before() {
        let mut turns = Turns::default();
        let (mut first, mut second, mut third) = (turns.next(), turns.next(), turns.next());
        first.comes().await;
        let third = tokio::spawn(async move { third.comes().await });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(first);
        second.comes().await;
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "the second has not written");
        drop(second);
        third.await.unwrap();
    }

    #[test]
    fn places_are_listed_by_topic() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let topics = by_topic(vec![(one, 0), (two, 3), (one, 5)]);
        let listed: Vec<_> =
            topics.iter().map(|topic| (topic.topic_id, &topic.partitions[..])).collect();
        assert_eq!(listed, [(one, &[0, 5][..]), (two, &[3][..])]);
    }
}
