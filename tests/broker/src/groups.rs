//! Group coordinators: who coordinates which group, and what becomes of groups.
//!
//! All groups of a cluster are here, under the cluster's lock; a broker answers for those that it
//! coordinates ([`places`]). A group is of the classic kind ([`classic`]) or of the next generation
//! ([`consumer`]), may go on as one of the other kind, and has offsets ([`offsets`]) whatever it is.
//! Requests that have to wait hold the receiving end of an answer, and look at the group when
//! something falls due in it ([`timers`]): nobody else does.

pub(crate) mod classic;
pub(crate) mod consumer;
mod embedded;
mod image;
mod info;
pub(crate) mod offsets;
mod places;
pub(crate) mod settings;
mod timers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::classic::{Classic, Join, Joined, Leaving, Synced};
use self::consumer::{Beat, Consumer, Conversion, Told};
use self::offsets::{Offset, Offsets};
use self::places::{Places, place_of};
use self::settings::{GroupSettings, MAX_GROUPS, RETENTION_CHECK};
use crate::batch::Refusal;
use crate::error_code as code;
use crate::state::Shared;

pub(crate) use image::Image;
pub use info::{CommittedOffset, GroupInfo, GroupKind, GroupMember, GroupState};

/// Where clients seem to come from. Connections through memory have no address, and those over TCP all
/// have this one.
pub(crate) const CLIENT_HOST: &str = "/127.0.0.1";

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    pub(crate) offsets: Offsets,
    /// When its offsets were looked over.
    checked: Instant,
    /// Tells those who wait when to look.
    alarm: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Classic(Box<Classic>),
    Consumer(Consumer),
}

impl Group {
    fn new(kind: Kind, now: Instant) -> Self {
        Self { kind, offsets: Offsets::default(), checked: now, alarm: watch::channel(None).0 }
    }

    /// Brings the group up to date.
    fn advance(&mut self, settings: &GroupSettings, now: Instant) {
        while let Kind::Consumer(consumer) = &mut self.kind {
            let Some((at, id)) = consumer.due(now) else { break };
            consumer.expired += 1;
            let conversion = consumer.fence(&id);
            self.convert(settings, conversion, at);
        }
        if let Kind::Classic(classic) = &mut self.kind {
            classic.advance(settings, now);
        }
        let retention = settings.offsets_retention;
        if now.saturating_duration_since(self.checked) >= RETENTION_CHECK.min(retention) {
            self.checked = now;
            self.expire_offsets(settings, now);
        }
    }

    /// The group goes on as a classic one, if it is to.
    fn convert(&mut self, settings: &GroupSettings, to: Option<Conversion>, now: Instant) {
        if let Some(conversion) = to {
            self.kind = Kind::Classic(Box::new(Classic::from_consumer(settings, conversion, now)));
        }
    }

    fn expire_offsets(&mut self, settings: &GroupSettings, now: Instant) {
        let retention = settings.offsets_retention;
        match &self.kind {
            // Nobody ever joined: each offset for itself.
            Kind::Classic(classic) if classic.protocol_type().is_none() => {
                self.offsets.expire(|_| false, |offset| offset.committed, retention, now);
            }
            Kind::Classic(classic) if classic.is_empty() => {
                let since = classic.since();
                self.offsets.expire(|_| false, |_| since, retention, now);
            }
            Kind::Classic(classic) => {
                let stable = classic.phase() == classic::Phase::Stable;
                if stable && classic.knows_subscriptions() {
                    let is_read = |topic: &str| classic.is_subscribed(topic);
                    self.offsets.expire(is_read, |offset| offset.committed, retention, now);
                }
            }
            Kind::Consumer(consumer) => {
                let is_read = |topic: &str| consumer.is_subscribed(topic);
                self.offsets.expire(is_read, |offset| offset.committed, retention, now);
            }
        }
    }

    fn is_forgettable(&self) -> bool {
        self.offsets.is_empty()
            && match &self.kind {
                Kind::Classic(classic) => classic.is_forgettable(),
                Kind::Consumer(consumer) => consumer.is_empty(),
            }
    }

    fn is_empty_consumer(&self) -> bool {
        matches!(&self.kind, Kind::Consumer(consumer) if consumer.is_empty())
    }

    /// Its type, its protocol type and its state, as a list has them.
    pub(crate) fn listed(&self) -> (&'static str, &str, GroupState) {
        match &self.kind {
            Kind::Classic(classic) => (
                "classic",
                classic.protocol_type().unwrap_or_default(),
                GroupState::from(classic.phase()),
            ),
            Kind::Consumer(consumer) => ("consumer", classic::CONSUMER, consumer.state()),
        }
    }

    pub(crate) fn may_delete_offsets(&self) -> Result<(), i16> {
        match &self.kind {
            Kind::Classic(classic) => classic.may_delete_offsets(),
            Kind::Consumer(_) => Ok(()),
        }
    }

    /// Whether members read a topic, so that its offsets stay.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.kind {
            Kind::Classic(classic) => classic.is_subscribed(topic),
            Kind::Consumer(consumer) => consumer.is_subscribed(topic),
        }
    }

    fn rearm(&self) {
        let next = match &self.kind {
            Kind::Classic(classic) => classic.next_timer(),
            Kind::Consumer(consumer) => consumer.next_timer(),
        };
        self.alarm.send_if_modified(|at| std::mem::replace(at, next) != next);
    }
}

/// An answer that may take a while.
#[derive(Debug)]
pub(crate) struct Parked<T> {
    answer: oneshot::Receiver<T>,
    alarm: watch::Receiver<Option<Instant>>,
}

impl<T> Parked<T> {
    /// Answered at once.
    fn done(told: T) -> Self {
        let (send, answer) = oneshot::channel();
        // The receiver is here.
        let _ = send.send(told);
        Self { answer, alarm: watch::channel(None).1 }
    }
}

/// Waits for an answer of a group. `None`: the group is gone, and the answer with it.
pub(crate) async fn wait<T>(shared: &Arc<Shared>, id: &str, mut parked: Parked<T>) -> Option<T> {
    loop {
        let at = *parked.alarm.borrow_and_update();
        tokio::select! {
            biased;
            answer = &mut parked.answer => return answer.ok(),
            changed = parked.alarm.changed() => if changed.is_err() {
                return parked.answer.await.ok();
            },
            () = async { tokio::time::sleep_until(at.unwrap_or_else(Instant::now)).await },
                if at.is_some() =>
            {
                shared.state().groups.advance(id, Instant::now());
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) settings: GroupSettings,
    brokers: i32,
    places: Places,
    list: BTreeMap<String, Group>,
    /// Member ids given so far: no two are the same, and they are in every run.
    ids: u64,
}

impl Groups {
    pub(crate) fn new(settings: &GroupSettings, brokers: i32) -> Self {
        Self {
            settings: settings.clone(),
            brokers,
            places: Places::new(brokers),
            list: BTreeMap::new(),
            ids: 0,
        }
    }

    /// Who coordinates a group.
    pub(crate) fn coordinator(&self, id: &str) -> Option<i32> {
        self.places.leader(id)
    }

    /// Who coordinates a transactional id. Nothing is kept of transactions, so nothing moves.
    pub(crate) fn coordinator_of_transactions(
        &self,
        id: &str,
        is_up: impl Fn(i32) -> bool,
    ) -> Option<i32> {
        let first = place_of(id) as i32 % self.brokers;
        let brokers = (0..self.brokers).map(|step| (first + step) % self.brokers + 1);
        brokers.into_iter().find(|id| is_up(*id))
    }

    /// Whether a broker may answer for a group now.
    pub(crate) fn check(&self, broker: i32, id: &str, now: Instant) -> Result<(), i16> {
        self.places.check(broker, id, now)
    }

    /// Whether a broker may answer for all groups that it coordinates.
    pub(crate) fn check_all(&self, broker: i32, now: Instant) -> Result<(), i16> {
        self.places.check_all(broker, now)
    }

    /// An id for a member, of what it is called: `name-uuid`.
    pub(crate) fn new_member_id(&mut self, name: &str) -> String {
        format!("{name}-{}", self.new_member_uuid())
    }

    /// An id for a member.
    pub(crate) fn new_member_uuid(&mut self) -> String {
        self.ids += 1;
        // Looks drawn, and is not: every run has the same ones.
        let high = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = high.rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        uuid::Builder::from_u128((u128::from(high) << 64) | u128::from(low))
            .with_version(uuid::Version::Random)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
            .to_string()
    }

    /// Brings a group up to date.
    pub(crate) fn advance(&mut self, id: &str, now: Instant) {
        if !self.places.is_loaded(id, now) {
            return;
        }
        let Some(group) = self.list.get_mut(id) else { return };
        let checked = group.checked;
        group.advance(&self.settings, now);
        if group.checked != checked && group.is_forgettable() {
            self.list.remove(id);
        } else {
            group.rearm();
        }
    }

    /// A group as it is now.
    pub(crate) fn get(&mut self, id: &str, now: Instant) -> Option<&mut Group> {
        self.advance(id, now);
        self.list.get_mut(id)
    }

    /// Ids of all groups, each of them as it is now.
    pub(crate) fn ids(&mut self, now: Instant) -> Vec<String> {
        let ids: Vec<String> = self.list.keys().cloned().collect();
        ids.iter().for_each(|id| self.advance(id, now));
        self.list.keys().cloned().collect()
    }

    /// The group, made if there is none; `None` if there are too many.
    pub(crate) fn get_or_create(&mut self, id: &str, now: Instant) -> Option<&mut Group> {
        self.advance(id, now);
        if !self.list.contains_key(id) {
            if self.list.len() >= MAX_GROUPS {
                return None;
            }
            let group = Group::new(Kind::Classic(Box::new(Classic::simple(now))), now);
            self.list.insert(id.to_owned(), group);
        }
        self.list.get_mut(id)
    }

    pub(crate) fn join(
        &mut self,
        id: &str,
        join: &Join<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> Parked<Joined> {
        self.advance(id, now);
        let is_new = self.list.get(id).is_none_or(|group| group.is_empty_consumer());
        if is_new && !join.member_id.is_empty() {
            return Parked::done(Joined::refused(code::UNKNOWN_MEMBER_ID, join.member_id));
        }
        if self.list.len() >= MAX_GROUPS && !self.list.contains_key(id) {
            return Parked::done(Joined::refused(code::UNKNOWN_SERVER_ERROR, ""));
        }
        let new = || Kind::Classic(Box::new(Classic::new(now)));
        let group = self.list.entry(id.to_owned()).or_insert_with(|| Group::new(new(), now));
        if is_new {
            group.kind = new();
        }
        let told = match &mut group.kind {
            Kind::Classic(classic) => {
                let (send, answer) = oneshot::channel();
                classic.join(&self.settings, join, send, now);
                Parked { answer, alarm: group.alarm.subscribe() }
            }
            Kind::Consumer(consumer) => {
                let (told, conversion) = consumer.join(&self.settings, join, image, now);
                group.convert(&self.settings, conversion, now);
                Parked::done(told)
            }
        };
        self.advance(id, now);
        told
    }

    pub(crate) fn sync(
        &mut self,
        id: &str,
        member: (&str, Option<&str>),
        generation: i32,
        protocol: (Option<&str>, Option<&str>),
        assignments: HashMap<String, Bytes>,
        now: Instant,
    ) -> Parked<Synced> {
        self.advance(id, now);
        let Some(group) = self.list.get_mut(id) else {
            return Parked::done(Synced::refused(code::UNKNOWN_MEMBER_ID));
        };
        let told = match &mut group.kind {
            Kind::Classic(classic) => {
                let (send, answer) = oneshot::channel();
                classic.sync(member, generation, protocol, assignments, send, now);
                Parked { answer, alarm: group.alarm.subscribe() }
            }
            Kind::Consumer(consumer) => {
                let told = consumer.sync(&self.settings, member, generation, protocol, now);
                Parked::done(told.unwrap_or_else(Synced::refused))
            }
        };
        self.advance(id, now);
        told
    }

    pub(crate) fn heartbeat(
        &mut self,
        id: &str,
        member: (&str, Option<&str>),
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        self.advance(id, now);
        let group = self.list.get_mut(id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        let outcome = match &mut group.kind {
            Kind::Classic(classic) => classic.heartbeat(member, generation, now),
            Kind::Consumer(consumer) => {
                consumer.classic_heartbeat(&self.settings, member, generation, now)
            }
        };
        group.rearm();
        outcome
    }

    /// Members leave; outcomes are in their order.
    pub(crate) fn leave(
        &mut self,
        id: &str,
        leaving: &[Leaving<'_>],
        now: Instant,
    ) -> Vec<Result<(), i16>> {
        self.advance(id, now);
        let Some(group) = self.list.get_mut(id) else {
            return leaving.iter().map(|_| Err(code::UNKNOWN_MEMBER_ID)).collect();
        };
        let outcomes = match &mut group.kind {
            Kind::Classic(classic) => classic.leave(&self.settings, leaving, now),
            Kind::Consumer(consumer) => consumer.classic_leave(leaving),
        };
        self.advance(id, now);
        outcomes
    }

    /// A member of a group of the next generation joins, is there, or goes.
    pub(crate) fn beat(
        &mut self,
        id: &str,
        beat: &Beat<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> Result<Told, Refusal> {
        self.advance(id, now);
        let is_new = !self.list.contains_key(id);
        let told = self.beat_now(id, beat, image, now);
        if is_new && told.is_err() {
            // What was made for nobody is not kept.
            self.list.remove(id);
        }
        self.advance(id, now);
        told
    }

    fn beat_now(
        &mut self,
        id: &str,
        beat: &Beat<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> Result<Told, Refusal> {
        let not_found = |words: &str| Refusal::new(code::GROUP_ID_NOT_FOUND, words);
        let settings = &self.settings;
        if beat.joins() && !self.list.contains_key(id) {
            if self.list.len() >= MAX_GROUPS {
                return Err(Refusal::new(code::UNKNOWN_SERVER_ERROR, "there are too many groups"));
            }
            let new = Group::new(Kind::Consumer(Consumer::new()), now);
            self.list.insert(id.to_owned(), new);
        }
        let group = self.list.get_mut(id);
        let group = group.ok_or_else(|| not_found(&format!("Group {id} not found.")))?;
        if let Kind::Classic(classic) = &mut group.kind {
            let upgraded = beat.joins().then(|| upgrade(settings, classic, image, now)).flatten();
            let no = || not_found(&format!("Group {id} is not a consumer group."));
            group.kind = Kind::Consumer(upgraded.ok_or_else(no)?);
        }
        let Kind::Consumer(consumer) = &mut group.kind else {
            return Err(not_found("the group is of another kind"));
        };
        if beat.epoch >= 0 {
            return consumer.heartbeat(settings, beat, image, now);
        }
        let (told, conversion) = consumer.leave(beat)?;
        group.convert(settings, conversion, now);
        Ok(told)
    }

    /// Whether a member may commit, or somebody who is none: the group that it commits to.
    pub(crate) fn commit(
        &mut self,
        id: &str,
        member: (&str, Option<&str>),
        generation: i32,
        version: i16,
        now: Instant,
    ) -> Result<&mut Group, i16> {
        /// First version whose members may be of either kind of group.
        const BOTH_KINDS: i16 = 9;
        self.advance(id, now);
        if !self.list.contains_key(id) && generation >= 0 {
            let unknown = version >= BOTH_KINDS;
            return Err(if unknown { code::GROUP_ID_NOT_FOUND } else { code::ILLEGAL_GENERATION });
        }
        let group = self.get_or_create(id, now).ok_or(code::UNKNOWN_SERVER_ERROR)?;
        match &mut group.kind {
            Kind::Classic(classic) => classic.commit(member, generation, now)?,
            Kind::Consumer(consumer) => consumer.commit(member.0, generation, version)?,
        }
        group.rearm();
        Ok(group)
    }

    /// Whether a member may see what its group has committed; who is none may.
    pub(crate) fn may_fetch(
        &mut self,
        id: &str,
        member: Option<(&str, i32)>,
        now: Instant,
    ) -> Result<(), i16> {
        match self.get(id, now).map(|group| &group.kind) {
            Some(Kind::Consumer(consumer)) => consumer.may_fetch(member),
            Some(Kind::Classic(_)) | None => Ok(()),
        }
    }

    /// Deletes a group that nobody is in, with its offsets.
    pub(crate) fn delete(&mut self, id: &str, now: Instant) -> Result<(), i16> {
        let group = self.get(id, now).ok_or(code::GROUP_ID_NOT_FOUND)?;
        match &group.kind {
            Kind::Classic(classic) => classic.may_be_deleted()?,
            Kind::Consumer(consumer) => consumer.may_be_deleted()?,
        }
        self.list.remove(id);
        Ok(())
    }

    /// A topic is deleted, and what was committed for it.
    pub(crate) fn delete_topic(&mut self, topic: &str) {
        self.list.values_mut().for_each(|group| group.offsets.delete_topic(topic));
    }

    /// A member is taken for dead, as if its session were over.
    pub(crate) fn expire_member(&mut self, id: &str, member: &str, now: Instant) -> bool {
        self.advance(id, now);
        let Some(group) = self.list.get_mut(id) else { return false };
        let there = match &mut group.kind {
            Kind::Classic(classic) => classic.expire(&self.settings, member, now),
            Kind::Consumer(consumer) => {
                let there = consumer.members().any(|one| one.id == member);
                if there {
                    consumer.expired += 1;
                    let conversion = consumer.fence(member);
                    group.convert(&self.settings, conversion, now);
                }
                there
            }
        };
        self.advance(id, now);
        there
    }

    /// The coordinator of a group moves, and with it that of all groups in the same partition of
    /// `__consumer_offsets`. `None`: nobody coordinates them.
    pub(crate) fn move_to(&mut self, id: &str, broker: Option<i32>, now: Instant) {
        self.move_place(place_of(id), broker, now);
    }

    fn move_place(&mut self, index: usize, broker: Option<i32>, now: Instant) {
        let from = self.places.lead(index, broker, now, self.settings.load_time);
        self.reload(index, from);
    }

    /// Groups are what was written down of them, from a moment on.
    fn reload(&mut self, index: usize, from: Instant) {
        let settings = &self.settings;
        self.list.retain(|id, group| {
            if place_of(id) != index {
                return true;
            }
            match &mut group.kind {
                Kind::Classic(classic) => match classic.reload(settings, from) {
                    Some(new) => **classic = new,
                    None if group.offsets.is_empty() => return false,
                    None => **classic = Classic::simple(from),
                },
                Kind::Consumer(consumer) => consumer.reload(settings, from),
            }
            group.rearm();
            true
        });
    }

    /// A broker's process is gone, and nobody has noticed: what waited there is lost.
    pub(crate) fn stopped(&mut self, broker: i32, now: Instant) {
        for index in self.places.led_by(Some(broker)) {
            self.reload(index, now);
            self.places.unload(index);
        }
    }

    /// A broker is taken for dead: the next one that is up coordinates its groups.
    pub(crate) fn fenced(&mut self, broker: i32, is_up: impl Fn(i32) -> bool, now: Instant) {
        let others = (1..self.brokers).map(|step| (broker - 1 + step) % self.brokers + 1);
        let next = others.into_iter().find(|id| is_up(*id));
        for index in self.places.led_by(Some(broker)) {
            self.move_place(index, next, now);
        }
    }

    /// A broker is there again: it reads what it coordinates, also what nobody did.
    pub(crate) fn started(&mut self, broker: i32, now: Instant) {
        let orphans = self.places.led_by(None);
        let mine = self.places.led_by(Some(broker)).into_iter();
        let unread = mine.filter(|index| self.places.is_unloaded(*index));
        for index in unread.chain(orphans).collect::<Vec<_>>() {
            self.move_place(index, Some(broker), now);
        }
    }

    /// A commit that nobody asks whether it is allowed.
    pub(crate) fn set_committed(
        &mut self,
        id: &str,
        (topic, partition): (&str, i32),
        offset: Offset,
        now: Instant,
    ) -> bool {
        let Some(group) = self.get_or_create(id, now) else { return false };
        group.offsets.commit(topic, partition, offset);
        true
    }
}

/// What becomes of a classic group that a member of the next generation joins: an empty one is gone,
/// and consumers go on in the new one, each in its own time. `None`: they cannot.
fn upgrade(
    settings: &GroupSettings,
    classic: &mut Classic,
    image: &Image<'_>,
    now: Instant,
) -> Option<Consumer> {
    if classic.is_empty() {
        return Some(Consumer::new());
    }
    if !classic.is_of_consumers() || classic.members().count() > settings.max_size {
        return None;
    }
    let (generation, members) = classic.moved()?;
    Consumer::from_classic(settings, generation, members, image, now)
}
