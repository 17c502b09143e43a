//! How far a connection's login has come, as Kafka's `SaslServerAuthenticator` and `KafkaChannel` see it.
//!
//! 1. ApiVersions, once (again only if its version was not known), or not at all.
//! 2. SaslHandshake, which names the mechanism. Version 1: tokens come in SaslAuthenticate requests; version
//!    0: they come as they are, each behind its length.
//! 3. Tokens, until the mechanism has enough.
//! 4. Everything else. A SaslHandshake begins a login anew (KIP-368), if sessions end here and none has
//!    begun in the last second; else it is a request that comes at the wrong time.
//!
//! What comes out of turn ends the connection: with an error in the third step, and unanswered in the
//! others. After a session's end its connection is cut at the next request that begins no login.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Mechanism, bearer, scram};
use crate::api::ApiKey;

/// Logins on one connection begin no closer together.
const BETWEEN_LOGINS: Duration = Duration::from_secs(1);

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// With these words.
    Told(String),
    /// With words that give nothing away.
    Generic,
}

/// A connection's login.
pub(crate) struct Login {
    pub(super) stage: Stage,
    pub(super) principal: Arc<str>,
    /// The mechanism and the principal of the login before, while another one is under way.
    pub(super) before: Option<(Mechanism, Arc<str>)>,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) ends: Option<Instant>,
    last_again: Option<Instant>,
}

pub(super) enum Stage {
    /// Nobody logs in here.
    Open,
    /// ApiVersions or SaslHandshake.
    First,
    /// SaslHandshake.
    Handshake,
    /// Tokens of a mechanism; `raw`: without a request around them.
    Tokens {
        exchange: Exchange,
        raw: bool,
    },
    /// Another mechanism than before was asked for: whatever comes now ends the connection.
    OtherMechanism,
    LoggedIn,
}

/// A mechanism, as far as it has come.
pub(super) enum Exchange {
    Plain,
    ScramFirst(scram::Hash),
    ScramLast(Box<scram::Exchange>),
    OAuthBearer(bearer::Exchange),
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To its api.
    Api,
    /// To ApiVersions, before the login.
    Versions,
    /// To SaslHandshake, as a part of the login.
    Handshake,
    /// To SaslAuthenticate, as a part of the login.
    Authenticate,
    /// To its api, to be answered that this is the wrong time; then the connection is cut.
    OutOfTurn,
    /// The connection is cut.
    Cut,
    /// The connection is cut, as after a login that was refused.
    Refuse,
    /// The connection is cut, since its session is over.
    Expired,
}

impl Login {
    /// `sasl`: whether clients log in. `principal`: who this one is without.
    pub(crate) fn new(sasl: bool, principal: Arc<str>) -> Self {
        Self {
            stage: if sasl { Stage::First } else { Stage::Open },
            principal,
            before: None,
            mechanism: None,
            ends: None,
            last_again: None,
        }
    }

    /// Who is served.
    pub(crate) fn principal(&self) -> &Arc<str> {
        &self.principal
    }

    /// Whether the next frame is a token, and no request.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.stage, Stage::Tokens { raw: true, .. })
    }

    /// Says where a request goes, and begins another login if it asks for that.
    pub(crate) fn route(&mut self, api: ApiKey, now: Instant) -> Route {
        match &self.stage {
            Stage::Open => Route::Api,
            Stage::First if api == ApiKey::API_VERSIONS => Route::Versions,
            Stage::First | Stage::Handshake if api == ApiKey::SASL_HANDSHAKE => Route::Handshake,
            Stage::First | Stage::Handshake => Route::Cut,
            Stage::Tokens { raw: true, .. } => Route::Authenticate,
            Stage::Tokens { .. } if api == ApiKey::SASL_AUTHENTICATE => Route::Authenticate,
            Stage::Tokens { .. } => Route::OutOfTurn,
            Stage::OtherMechanism => Route::Refuse,
            Stage::LoggedIn if api == ApiKey::SASL_HANDSHAKE && self.may_begin_again(now) => {
                self.last_again = Some(now);
                self.before = self.mechanism.map(|one| (one, Arc::clone(&self.principal)));
                self.stage = Stage::Handshake;
                Route::Handshake
            }
            Stage::LoggedIn if self.ends.is_some_and(|ends| now > ends) => Route::Expired,
            Stage::LoggedIn => Route::Api,
        }
    }

    fn may_begin_again(&self, now: Instant) -> bool {
        self.ends.is_some()
            && self.last_again.is_none_or(|last| now.duration_since(last) >= BETWEEN_LOGINS)
    }

    /// ApiVersions was answered before the login.
    pub(crate) fn told_versions(&mut self) {
        self.stage = Stage::Handshake;
    }

    /// "authentication" or "re-authentication", as Kafka's words have it.
    pub(super) fn kind(&self) -> &'static str {
        if self.before.is_some() { "re-authentication" } else { "authentication" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged_in(ends: Option<Duration>, now: Instant) -> Login {
        let mut login = Login::new(true, Arc::from("ANONYMOUS"));
        login.mechanism = Some(Mechanism::Plain);
        login.stage = Stage::LoggedIn;
        login.ends = ends.map(|life| now + life);
        login
    }

    #[test]
    fn before_a_login_there_are_versions_and_handshake() {
        let now = Instant::now();
        let mut login = Login::new(true, Arc::from("ANONYMOUS"));
        assert_eq!(login.route(ApiKey::METADATA, now), Route::Cut);
        assert_eq!(login.route(ApiKey::SASL_AUTHENTICATE, now), Route::Cut);
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, now), Route::Handshake);
        assert_eq!(login.route(ApiKey::API_VERSIONS, now), Route::Versions);
        login.told_versions();
        assert_eq!(login.route(ApiKey::API_VERSIONS, now), Route::Cut, "only once");
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, now), Route::Handshake);
    }

    #[test]
    fn without_logins_all_requests_are_alike() {
        let now = Instant::now();
        let mut login = Login::new(false, Arc::from("ANONYMOUS"));
        for api in [ApiKey::SASL_HANDSHAKE, ApiKey::SASL_AUTHENTICATE, ApiKey::PRODUCE] {
            assert_eq!(login.route(api, now), Route::Api);
        }
    }

    #[test]
    fn a_login_begins_again_where_sessions_end_and_once_a_second() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let mut forever = logged_in(None, now);
        assert_eq!(forever.route(ApiKey::SASL_HANDSHAKE, now + hour), Route::Api);

        let mut login = logged_in(Some(hour), now);
        // The first login does not count.
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, now), Route::Handshake);
        login.stage = Stage::LoggedIn;
        let early = now + Duration::from_millis(999);
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, early), Route::Api);
        let late = now + Duration::from_secs(1);
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, late), Route::Handshake);
    }

    #[test]
    fn a_session_that_is_over_ends_with_the_next_request() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut login = logged_in(Some(second), now);
        assert_eq!(login.route(ApiKey::PRODUCE, now + second), Route::Api);
        let over = now + second + Duration::from_millis(1);
        assert_eq!(login.route(ApiKey::API_VERSIONS, over), Route::Expired);
        // Too late is not too late for this.
        assert_eq!(login.route(ApiKey::SASL_HANDSHAKE, over), Route::Handshake);
        assert_eq!(login.kind(), "re-authentication");
        assert_eq!(login.route(ApiKey::PRODUCE, over), Route::Cut);
    }
}
