//! The leader of a classic group assigns for all: it loads the topics of all members, plans, and watches the topics for as
//! long as the plan is good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::survey::About;
use crate::cluster::{Handle, Lookup, Metadata};
use crate::consumer::group::assignors::{Assignor, Member, Topics};
use crate::consumer::group::calls::Joined;
use crate::consumer::group::events::RequestId;
use crate::consumer::group::wire::Subscription;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::event;

/// What each member gets, as bytes.
pub(super) type Assignments = Vec<(String, Bytes)>;

/// A plan, and of what it was made: how many partitions each topic has (0: there is no such topic).
pub(super) struct Plan {
    pub(super) assignments: Assignments,
    pub(super) of: BTreeMap<Arc<str>, usize>,
}

/// For how long a plan waits for the racks of replicas.
const RACKS_WITHIN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct Leader {
    /// The last JoinGroup that made this member the leader, or not.
    pub(super) joined: Option<(RequestId, Joined)>,
    plan: Option<(RequestId, Assignments)>,
    /// The topics that the plan was made of; empty: this member does not lead.
    of: BTreeMap<Arc<str>, usize>,
}

impl Leader {
    /// A JoinGroup was answered: what was planned before means nothing. An answer that comes late, to one that was made
    /// before, says nothing.
    pub(super) fn begins(&mut self, id: RequestId, joined: Joined) {
        if self.joined.as_ref().is_some_and(|(last, _)| *last > id) {
            return;
        }
        *self = Self { joined: Some((id, joined)), ..Self::default() };
    }

    /// The name of the protocol that the coordinator has chosen.
    pub(super) fn protocol(&self) -> &str {
        self.joined.as_ref().map_or("", |(_, joined)| &joined.protocol)
    }

    pub(super) fn planned(&mut self, join: RequestId, plan: Plan) {
        self.plan = Some((join, plan.assignments));
        self.of = plan.of;
    }

    /// The plan of this JoinGroup; nothing if there is none.
    pub(super) fn plan(&self, join: Option<RequestId>) -> Assignments {
        let plan = self.plan.as_ref().filter(|(id, _)| Some(*id) == join);
        plan.map(|(_, plan)| plan.clone()).unwrap_or_default()
    }

    /// Whether topics have other partitions than those that the plan was made of.
    pub(super) fn has_changed(&mut self, metadata: &Metadata) -> bool {
        let mut changed = false;
        for (topic, count) in &mut self.of {
            let now = match metadata.lookup(topic) {
                Lookup::Known(meta) => meta.partitions.len(),
                Lookup::Failed(e) if e.kind() == ErrorKind::UnknownTopic => 0,
                // Nothing is known now: what was said of it holds.
                Lookup::Failed(_) | Lookup::Pending => *count,
            };
            changed |= std::mem::replace(count, now) != now;
        }
        changed
    }
}

/// Loads what the members want, and plans. `assign`: else the topics are loaded only, to be watched.
pub(super) async fn plan(pool: &Handle, joined: &Joined, assign: bool) -> Result<Plan> {
    let members: Vec<Member> = joined
        .members
        .iter()
        .map(|member| Member {
            id: Arc::from(member.member.as_str()),
            instance_id: member.instance.as_deref().map(Arc::from),
            // One whose bytes are malformed gets nothing, and the others go on.
            subscription: Subscription::decode(&member.metadata).unwrap_or_default(),
        })
        .collect();
    let mut of: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let wanted = members.iter().flat_map(|member| &member.subscription.topics);
    of.extend(wanted.map(|topic| (Arc::clone(topic), 0)));
    // All at once, so that they come with one request.
    for topic in of.keys() {
        let _ = pool.metadata().lookup(topic);
    }
    let mut topics = Topics::default();
    // Where replicas are matters to members that say where they are (KIP-881), and to nobody else.
    let mut racks: BTreeMap<Arc<str>, Vec<Vec<Arc<str>>>> = BTreeMap::new();
    if assign && !of.is_empty() && members.iter().any(|member| member.subscription.rack.is_some()) {
        let names: Vec<Arc<str>> = of.keys().cloned().collect();
        match pool.env().within(RACKS_WITHIN, pool.survey(About::Named(&names), None)).await {
            Some(Ok((_, topics))) => {
                racks.extend(topics.into_iter().map(|seen| (seen.name, seen.racks)))
            }
            // The group does not wait for what is only better.
            Some(Err(error)) => {
                event!(pool.metrics().logs(), "ottla::consumer", DEBUG, %error, "planning without racks");
            }
            None => {
                event!(pool.metrics().logs(), "ottla::consumer", DEBUG, "planning without racks");
            }
        }
    }
    for (topic, count) in &mut of {
        match pool.metadata().topic(topic, pool.request_timeout()).await {
            Ok(meta) => {
                *count = meta.partitions.len();
                match racks.remove(topic) {
                    Some(mut racks) => {
                        racks.resize(*count, Vec::new());
                        topics.insert_with_racks(Arc::clone(topic), racks);
                    }
                    None => topics.insert(Arc::clone(topic), *count),
                }
            }
            // Nobody's until there is one; and what this leader may not see it cannot give away.
            Err(e) if is_not_there(&e) => {}
            Err(e) => return Err(e),
        }
    }
    if !assign {
        return Ok(Plan { assignments: Vec::new(), of });
    }
    let assignor = Assignor::from_name(&joined.protocol).ok_or_else(|| {
        let words = format!("the coordinator chose '{}', which was not offered", joined.protocol);
        Error::new(ErrorKind::NotKafka, words)
    })?;
    let plan = assignor.plan(&members, &topics);
    let assignments = plan.encode().map(|(id, bytes)| (id.to_string(), bytes)).collect();
    Ok(Plan { assignments, of })
}

fn is_not_there(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnknownTopic | ErrorKind::Authorization | ErrorKind::InvalidArgument
    )
}
