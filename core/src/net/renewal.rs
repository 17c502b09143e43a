//! Logging in anew on a connection that is in use, before the broker ends the session (KIP-368). A broker cuts a connection
//! at the first request behind the session's end, and that request is then in doubt; so the login comes well before
//! it, when everything in flight is answered.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::exchange::{Exchange, FIRST_CORRELATION};
use super::frames::FrameReader;
use super::sasl::{self, Session};
use super::setup::SetupContext;
use crate::config::{Endpoint, SETUP_TIMEOUT};
use crate::environment::{BoxFuture, End, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::BrokerMetrics;
use crate::protocol::Versions;
use crate::security::{Mechanism, Need};

/// The part of a session's life after which it is renewed: drawn, so that connections that were opened together
/// do not log in together.
const SHARE: std::ops::Range<f64> = 0.85..0.95;

/// Nothing is sent in this part of a session's life at its end, and in this time at least; but for half of its life
/// something is.
const LAST_SHARE: f64 = 0.02;
const LAST: Duration = Duration::from_secs(1);

/// Brokers refuse a login sooner than 1 s after the one before (`SaslServerAuthenticator`). One that comes after the
/// session's end they take, if nothing was sent since.
const APART: Duration = Duration::from_millis(1_050);

/// What it takes to log in anew.
pub(crate) struct Renewal {
    ctx: SetupContext,
    endpoint: Endpoint,
    versions: Versions,
    due: Instant,
    /// When nothing more is sent, whether there is something to log in with or not.
    last: End,
    /// When the broker ends the session.
    end: End,
    login_from: Instant,
}

/// What a login needs that takes time or comes from others.
pub(super) type Preparing = BoxFuture<'static, Result<Box<dyn Mechanism>>>;

/// A stream that is logged in to, and when to do so again.
pub(super) struct Renewed {
    pub(super) stream: Box<dyn Transport>,
    pub(super) reader: FrameReader,
    pub(super) renewal: Option<Box<Renewal>>,
}

impl Renewal {
    pub(super) fn new(
        ctx: &SetupContext,
        endpoint: &Endpoint,
        versions: &Versions,
        session: Session,
    ) -> Box<Self> {
        let (due, last) = due(session, &mut ctx.env.rng());
        let last = ctx.env.end_at(last);
        let end = ctx.env.end_at(session.since + session.life);
        let login_from = session.since + APART;
        let (ctx, endpoint, versions) = (ctx.clone(), endpoint.clone(), versions.clone());
        Box::new(Self { ctx, endpoint, versions, due, last, end, login_from })
    }

    /// When it begins.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// When nothing more is to be sent before the login.
    pub(super) fn last(&self) -> Instant {
        self.last.at()
    }

    /// Whether that time has come, by any clock: a machine that slept wakes up in a session that is over.
    pub(super) fn is_nearly_over(&self) -> bool {
        self.ctx.env.is_over(self.last)
    }

    /// Whether the session has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ctx.env.is_over(self.end)
    }

    /// Gets ready what takes time or comes from others, while requests go on.
    pub(super) fn prepare(&self) -> Preparing {
        let (ctx, endpoint) = (self.ctx.clone(), self.endpoint.clone());
        Box::pin(async move {
            let login = ctx.guard.login(&endpoint, Need::Renewal, &ctx.metrics);
            match ctx.env.within(SETUP_TIMEOUT, login).await {
                Some(Ok(Some(login))) => Ok(login),
                Some(Err(e)) => Err(e),
                Some(Ok(None)) => Err(Error::new(ErrorKind::Internal, "a session without a login")),
                None => {
                    let words = format!("nothing to log in with within {SETUP_TIMEOUT:?}");
                    Err(Error::new(ErrorKind::Credentials, words).passing())
                }
            }
        })
    }

    /// When the login may begin.
    pub(super) fn login_from(&self) -> Instant {
        self.login_from
    }

    /// Logs in anew, while nothing is in flight.
    pub(super) fn log_in(
        self: Box<Self>,
        login: Box<dyn Mechanism>,
        stream: Box<dyn Transport>,
        reader: FrameReader,
        name: String,
        metrics: Arc<BrokerMetrics>,
    ) -> BoxFuture<'static, Result<Renewed>> {
        Box::pin(async move {
            let Self { ctx, endpoint, versions, .. } = *self;
            let words = format!("{name}: no new login within {SETUP_TIMEOUT:?}");
            let logs_in = async {
                let mut exchange = Exchange {
                    stream,
                    reader,
                    client_id: ctx.caller.client_id.clone(),
                    correlation: FIRST_CORRELATION,
                    name,
                    env: ctx.env.clone(),
                    metrics,
                    guard: Arc::clone(&ctx.guard),
                    answered: true,
                };
                let session = sasl::log_in(&mut exchange, &versions, login).await?;
                Ok((exchange, session))
            };
            let (exchange, session) = ctx
                .env
                .within(SETUP_TIMEOUT, logs_in)
                .await
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Timeout, words)))?;
            ctx.guard.taken(ctx.env.now());
            let renewal = session.map(|session| Self::new(&ctx, &endpoint, &versions, session));
            let Exchange { stream, reader, .. } = exchange;
            Ok(Renewed { stream, reader, renewal })
        })
    }
}

/// When to begin, and when to send nothing more.
fn due(session: Session, rng: &mut impl Rng) -> (Instant, Instant) {
    let Session { since, life } = session;
    let last = LAST.max(life.mul_f64(LAST_SHARE)).min(life / 2);
    (since + life.mul_f64(rng.random_range(SHARE)).min(life - last), since + life - last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn a_session_is_renewed_before_its_end_and_not_with_others() {
        let mut rng = StdRng::seed_from_u64(1);
        let since = Instant::now();
        for (life, first, last) in [
            (3_600_000, 3_060_000, 3_420_000),
            (10_000, 8_500, 9_000),
            (2_000, 1_000, 1_000),
            (500, 250, 250),
        ] {
            let life = Duration::from_millis(life);
            let mut all = std::collections::BTreeSet::new();
            for _ in 0..100 {
                let (at, end) = due(Session { since, life }, &mut rng);
                assert!(at <= end && end < since + life);
                let after = at - since;
                assert!(
                    (first..=last).contains(&(after.as_millis() as u64)),
                    "{after:?} of {life:?}"
                );
                all.insert(after);
            }
            assert!(all.len() > 50 || first == last, "{life:?}: {}", all.len());
        }
    }
}
