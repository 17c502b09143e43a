//! A login, framed: SaslHandshake and then SaslAuthenticate until both sides are content (KIP-43, KIP-152). The one
//! place for all mechanisms, when a connection is set up and when its session is about to end (KIP-368).

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::environment::Environment;
use crate::error::names::{
    ILLEGAL_SASL_STATE, NONE, SASL_AUTHENTICATION_FAILED, UNSUPPORTED_SASL_MECHANISM,
};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{self, Versions};
use crate::security::{Mechanism, Step};

/// Version 0 is followed by frames without a header, which brokers since 1.0 need not be spoken to in.
const HANDSHAKE: (i16, i16) = protocol::bounded::<SaslHandshakeRequest>(1, 1);
const AUTHENTICATE: (i16, i16) = protocol::bounded::<SaslAuthenticateRequest>(0, 2);

/// More messages than any mechanism has: SCRAM has two. A broker that always asks for one more ends here.
const MAX_ROUNDS: usize = 8;

/// Characters of a broker's own words in an error.
const MAX_WORDS: usize = 500;

/// How long a login counts. Brokers cut the connection at the first request behind its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// Since before the last message was written: the broker's count begins later.
    pub(crate) since: Instant,
    pub(crate) life: Duration,
}

/// Sessions that are said to be longer count as this. Kafka's longest is that of a token, and years of milliseconds
/// overflow clocks.
const LIFE: Duration = Duration::from_secs(31_536_000);

/// Logs in. Gives how long the session lasts, if the broker ends it.
///
/// # Errors
/// `Authentication` with the broker's words if it refuses; the kind of the trouble if there is no answer.
pub(super) async fn log_in(
    exchange: &mut Exchange,
    versions: &Versions,
    mut login: Box<dyn Mechanism>,
) -> Result<Option<Session>> {
    let picked = |key, ours| versions.pick(key, ours);
    let (Some(handshake), Some(authenticate)) = (
        picked(SaslHandshakeRequest::KEY, HANDSHAKE),
        picked(SaslAuthenticateRequest::KEY, AUTHENTICATE),
    ) else {
        let words = format!("{}: the broker knows no SASL that this client does", exchange.name);
        return Err(Error::new(ErrorKind::UnsupportedVersion, words));
    };
    let name = login.name();
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
    let answer = exchange.call(handshake, &request, 0).await?;
    let words = match answer.error_code {
        NONE => None,
        UNSUPPORTED_SASL_MECHANISM => {
            let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.as_str()).collect();
            let offered = printable(&offered.join(", "));
            let offered = if offered.is_empty() { "none" } else { &offered };
            Some(format!("{name} is not enabled on this listener; enabled: {offered}"))
        }
        ILLEGAL_SASL_STATE => Some("this listener has no SASL".to_owned()),
        _ => Some(String::new()),
    };
    if let Some(words) = words {
        return Err(Error::broker(answer.error_code, &exchange.name, Some(&words)));
    }
    let mut challenge = Bytes::new();
    let mut session = 0;
    let mut since = exchange.env.now();
    for _ in 0..MAX_ROUNDS {
        let step = step(&exchange.env, &mut *login, &challenge).await;
        let message = match step.map_err(|e| e.context(&exchange.name))? {
            Step::Send(message) => message,
            Step::Done => {
                let life = u64::try_from(session).ok().filter(|ms| *ms > 0);
                let life = life.map(|ms| Duration::from_millis(ms).min(LIFE));
                login.accepted(since, life);
                return Ok(life.map(|life| Session { since, life }));
            }
            Step::Compute(_) => return Err(never_done(exchange)),
        };
        let secret = message.len();
        let request =
            SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_owner(message));
        since = exchange.env.now();
        let answer = exchange.call(authenticate, &request, secret).await?;
        if answer.error_code != NONE {
            let words = answer.error_message.as_ref().map(|words| printable(words.as_str()));
            // What Kafka says then is the same in JSON.
            let words = login.refused().or(words);
            return Err(Error::broker(answer.error_code, &exchange.name, words.as_deref()));
        }
        challenge = answer.auth_bytes;
        session = answer.session_lifetime_ms;
    }
    Err(never_done(exchange))
}

/// One step; what it computes keeps nobody waiting.
async fn step(env: &Environment, login: &mut dyn Mechanism, challenge: &[u8]) -> Result<Step> {
    let work = match login.step(challenge)? {
        Step::Compute(work) => work,
        step => return Ok(step),
    };
    let (tx, rx) = tokio::sync::oneshot::channel();
    env.spawn_blocking(move || {
        work();
        let _ = tx.send(());
    });
    if rx.await.is_err() {
        return Err(Error::new(ErrorKind::Internal, "a login was computed without a result"));
    }
    login.step(challenge)
}

fn never_done(exchange: &Exchange) -> Error {
    let words = format!("{}: the broker does not come to an end of the login", exchange.name);
    Error::broker(SASL_AUTHENTICATION_FAILED, words, None)
}

/// A broker's words, as they may stand in a log: no control characters, and not without end.
fn printable(words: &str) -> String {
    let printable = |c: &char| !c.is_control() && !is_invisible(*c);
    words.chars().filter(printable).take(MAX_WORDS).collect()
}

/// Characters that change how others are shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
