//! The fault script: what goes wrong, where, and how often.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::api::ApiKey;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The next connection is closed as soon as it is accepted (in memory: refused). Counts
    /// connections, not requests; the api key of the rule does not matter.
    Refuse,
    /// The connection is cut when the request has arrived; the request has no effect.
    CutBeforeAppend,
    /// The request takes effect, then the connection is cut instead of a response.
    CutAfterAppend,
    /// The request waits this long, and its connection with it, before it takes effect.
    Delay(Duration),
    /// The request takes effect at once; its response, and its connection, wait this long.
    DelayResponse(Duration),
    /// The request has no effect; this connection stays open and never answers anything again.
    BlackHole,
    /// As [`Fault::BlackHole`], but the request takes effect first.
    BlackHoleAfterAppend,
    /// Answered with this error code; the request has no effect.
    Error(i16),
    /// Answered with this error code although the request took effect: a produce response names the
    /// offset that the records have.
    ErrorAfterAppend(i16),
    /// Answered with this throttle time, after which (KIP-219) the connection is muted for it. A Fetch
    /// is answered without any partition, as Kafka does: what it read is read again.
    Throttle(Duration),
    /// A Fetch is answered with this error code for the whole of it and no session, as if the session
    /// were not known (70), or in another epoch (71). It has no effect, not on a session either.
    /// Fetch before version 7 has no place for it, and nor have other requests: they go on.
    SessionError(i16),
    /// The next TLS handshake goes wrong. Counts connections, as [`Fault::Refuse`].
    Tls(TlsFault),
    /// The next login goes wrong. Counts only those steps of logins that the fault is about; the api key
    /// of the rule does not matter. What is no more than a request that is late, cut or refused, needs
    /// none of these: [`ApiKey::SASL_HANDSHAKE`] and [`ApiKey::SASL_AUTHENTICATE`] are requests as others.
    Login(LoginFault),
}

/// What goes wrong with a TLS handshake, once the client has said its first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// It is never answered; the connection stays open.
    Stall,
    /// The connection is cut.
    Cut,
}

/// What goes wrong with a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginFault {
    /// A login on a connection that is logged in already is refused, whatever it says.
    RefuseReauthentication,
    /// SCRAM: the client is asked for so many rounds. Its proof is then wrong, if it sends one.
    ScramIterations(u32),
    /// SCRAM: the broker's nonce does not begin with the client's.
    ScramForeignNonce,
    /// SCRAM: the broker proves that it does not know the password.
    ScramWrongSignature,
    /// SCRAM: the broker proves nothing.
    ScramNoSignature,
}

impl Fault {
    /// Whether it happens to connections and logins, and not to a request for what it is.
    fn is_apart(self) -> bool {
        matches!(self, Self::Refuse | Self::Tls(_) | Self::Login(_))
    }
}

/// A [`Fault`], where it happens and how often. Unless narrowed: every broker, every request, once.
#[derive(Debug, Clone)]
#[must_use = "a rule does nothing until it is injected"]
pub struct FaultRule {
    fault: Fault,
    broker: Option<i32>,
    api: Option<ApiKey>,
    group: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    skip: usize,
    times: Option<usize>,
    share: Option<Share>,
}

/// A draw per matching event: the same draws in every run.
#[derive(Debug, Clone)]
struct Share {
    of_two_to_the_64: u64,
    state: u64,
}

impl Share {
    /// SplitMix64 (Steele, Lea, Flood 2014): no dependency, and good enough to throw dice with.
    fn hits(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.of_two_to_the_64
    }
}

impl FaultRule {
    /// A rule that applies once, to the next request at any broker.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            broker: None,
            api: None,
            group: None,
            topic: None,
            partition: None,
            skip: 0,
            times: Some(1),
            share: None,
        }
    }

    /// Only at this broker.
    pub fn broker(mut self, id: i32) -> Self {
        self.broker = Some(id);
        self
    }

    /// Only for requests of this kind.
    pub fn api(mut self, api: ApiKey) -> Self {
        self.api = Some(api);
        self
    }

    /// Only for this group, of requests that name groups. A request that names several is cut, delayed
    /// or throttled if one of them matches, and errors are those of each group. With a topic or partition
    /// as well: for what the group asks of them.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Only for this topic. Narrows [`Fault::Error`] and [`Fault::ErrorAfterAppend`] of requests
    /// that name topics; each named partition that matches counts as one time.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only for this partition; see [`FaultRule::topic`].
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Lets this many matching requests pass first.
    pub fn after(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Applies to this share (0 to 1) of the matching requests, each drawn for itself from `seed`.
    ///
    /// # Panics
    /// If `share` is not between 0 and 1.
    pub fn share(mut self, share: f64, seed: u64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share of {share}; 0 to 1 is possible");
        // Every request: 2^64 itself is not a number that a draw could be below.
        self.share = (share < 1.0)
            .then(|| Share { of_two_to_the_64: (share * 2f64.powi(64)) as u64, state: seed });
        self
    }

    /// Applies this many times, then the rule is gone.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Applies until [`Faults::remove`] or [`Faults::clear`].
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn is_scoped(&self) -> bool {
        self.topic.is_some() || self.partition.is_some()
    }

    /// Counts one matching event; true if the fault happens now.
    fn fires(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.share.as_mut().is_some_and(|share| !share.hits()) {
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.times == Some(0)
    }
}

/// Names an injected rule, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// The script of one cluster. Rules are looked at in the order they were injected, and all that
/// match a request apply to it together.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Rules>,
    /// Rules alive, readable without the lock: a cluster without faults pays one load a request.
    alive: AtomicUsize,
}

#[derive(Debug, Default)]
struct Rules {
    next_id: u64,
    list: Vec<(FaultId, FaultRule)>,
    fired: u64,
}

/// What happens to one request as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) delay_response: Duration,
    pub(crate) cut_before: bool,
    pub(crate) cut_after: bool,
    pub(crate) black_hole: bool,
    pub(crate) black_hole_after: bool,
    pub(crate) error_before: Option<i16>,
    pub(crate) error_after: Option<i16>,
    pub(crate) throttle: Duration,
    pub(crate) session_error: Option<i16>,
}

impl Plan {
    fn add(&mut self, fault: Fault) {
        match fault {
            Fault::Refuse | Fault::Tls(_) | Fault::Login(_) => {}
            Fault::CutBeforeAppend => self.cut_before = true,
            Fault::CutAfterAppend => self.cut_after = true,
            Fault::Delay(time) => self.delay += time,
            Fault::DelayResponse(time) => self.delay_response += time,
            Fault::BlackHole => self.black_hole = true,
            Fault::BlackHoleAfterAppend => self.black_hole_after = true,
            Fault::Error(code) => self.error_before = Some(code),
            Fault::ErrorAfterAppend(code) => self.error_after = Some(code),
            Fault::Throttle(time) => self.throttle = self.throttle.max(time),
            Fault::SessionError(code) => self.session_error = Some(code),
        }
    }

    /// What happens once the request has taken effect, of another plan as well.
    pub(crate) fn add_after(&mut self, other: &Self) {
        self.cut_after |= other.cut_after;
        self.black_hole_after |= other.black_hole_after;
        self.delay_response += other.delay_response;
        self.throttle = self.throttle.max(other.throttle);
    }

    /// The request comes while its connection logs in: it is answered with an error and has no effect.
    pub(crate) fn out_of_turn(&mut self) {
        let error = Some(crate::error_code::ILLEGAL_SASL_STATE);
        self.error_before = error;
        self.session_error = error;
    }
}

impl Faults {
    /// Adds a rule to the script.
    ///
    /// # Panics
    /// If a rule narrowed to a topic or partition is neither [`Fault::Error`] nor
    /// [`Fault::ErrorAfterAppend`]: other faults happen to connections, which carry many partitions. If
    /// one narrowed to a group happens to no request.
    pub fn inject(&self, rule: FaultRule) -> FaultId {
        assert!(
            !rule.is_scoped() || matches!(rule.fault, Fault::Error(_) | Fault::ErrorAfterAppend(_)),
            "{:?} cannot be narrowed to a topic or partition",
            rule.fault
        );
        assert!(
            rule.group.is_none()
                || !(rule.fault.is_apart() || matches!(rule.fault, Fault::SessionError(_))),
            "{:?} cannot be narrowed to a group",
            rule.fault
        );
        let mut rules = self.lock();
        let id = FaultId(rules.next_id);
        rules.next_id += 1;
        rules.list.push((id, rule));
        self.alive.store(rules.list.len(), Ordering::Release);
        id
    }

    /// Shorthand: `fault` happens `times` times to requests `api` at `broker`.
    pub fn on(
        &self,
        broker: impl Into<Option<i32>>,
        api: ApiKey,
        fault: Fault,
        times: usize,
    ) -> FaultId {
        let mut rule = FaultRule::new(fault).api(api).times(times);
        rule.broker = broker.into();
        self.inject(rule)
    }

    /// Takes a rule back. False if it is spent or was removed.
    pub fn remove(&self, id: FaultId) -> bool {
        let mut rules = self.lock();
        let before = rules.list.len();
        rules.list.retain(|(other, _)| *other != id);
        self.alive.store(rules.list.len(), Ordering::Release);
        rules.list.len() != before
    }

    /// Takes all rules back.
    pub fn clear(&self) {
        self.lock().list.clear();
        self.alive.store(0, Ordering::Release);
    }

    /// How often faults have happened so far.
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// True while a rule could still apply.
    pub fn is_pending(&self, id: FaultId) -> bool {
        self.lock().list.iter().any(|(other, _)| *other == id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Offers an event to every rule that `matches`; `apply` hears of each fault that happens.
    fn offer(&self, matches: impl Fn(&FaultRule) -> bool, mut apply: impl FnMut(Fault)) {
        if self.alive.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut rules = self.lock();
        let mut fired = 0;
        rules.list.retain_mut(|(_, rule)| {
            if matches(rule) && rule.fires() {
                fired += 1;
                apply(rule.fault);
            }
            !rule.is_spent()
        });
        rules.fired += fired;
        self.alive.store(rules.list.len(), Ordering::Release);
    }

    /// Whether a new connection to `broker` is refused.
    pub(crate) fn refuses(&self, broker: i32) -> bool {
        let mut refused = false;
        self.offer(
            |rule| rule.fault == Fault::Refuse && rule.broker.is_none_or(|id| id == broker),
            |_| refused = true,
        );
        refused
    }

    /// What goes wrong with a TLS handshake.
    pub(crate) fn tls(&self, broker: i32) -> Option<TlsFault> {
        let mut found = None;
        self.offer(
            |rule| matches!(rule.fault, Fault::Tls(_)) && rule.broker.is_none_or(|id| id == broker),
            |fault| {
                if let Fault::Tls(fault) = fault {
                    found = Some(fault);
                }
            },
        );
        found
    }

    /// What goes wrong with a step of a login, of what can go wrong there.
    pub(crate) fn login(
        &self,
        broker: i32,
        possible: impl Fn(LoginFault) -> bool,
    ) -> Option<LoginFault> {
        let mut found = None;
        self.offer(
            |rule| {
                matches!(rule.fault, Fault::Login(fault) if possible(fault))
                    && rule.broker.is_none_or(|id| id == broker)
            },
            |fault| {
                if let Fault::Login(fault) = fault {
                    found = Some(fault);
                }
            },
        );
        found
    }

    /// What happens to a request as a whole.
    pub(crate) fn plan(&self, broker: i32, api: ApiKey) -> Plan {
        self.plan_of(broker, api, None)
    }

    /// What happens to a request because of a group that it names.
    pub(crate) fn group_plan(&self, broker: i32, api: ApiKey, group: &str) -> Plan {
        self.plan_of(broker, api, Some(group))
    }

    fn plan_of(&self, broker: i32, api: ApiKey, group: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        self.offer(
            |rule| {
                !rule.fault.is_apart()
                    && rule.broker.is_none_or(|id| id == broker)
                    && !rule.is_scoped()
                    && rule.group.as_deref() == group
                    && rule.api.is_none_or(|key| key == api)
            },
            |fault| plan.add(fault),
        );
        plan
    }

    /// Errors for one partition that a request names: (before, after) it takes effect.
    pub(crate) fn partition_errors(
        &self,
        broker: i32,
        api: ApiKey,
        group: Option<&str>,
        topic: &str,
        partition: i32,
    ) -> (Option<i16>, Option<i16>) {
        let mut errors = (None, None);
        self.offer(
            |rule| {
                rule.is_scoped()
                    && rule.broker.is_none_or(|id| id == broker)
                    && rule.api.is_none_or(|key| key == api)
                    && rule.group.as_deref().is_none_or(|name| Some(name) == group)
                    && rule.topic.as_deref().is_none_or(|name| name == topic)
                    && rule.partition.is_none_or(|index| index == partition)
            },
            |fault| match fault {
                Fault::Error(code) => errors.0 = Some(code),
                Fault::ErrorAfterAppend(code) => errors.1 = Some(code),
                _ => {}
            },
        );
        errors
    }
}
