//! SaslHandshake and SaslAuthenticate as parts of a login.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use tokio::time::Instant;

use super::login::{Exchange, Login, Refused, Stage};
use super::{BearerLogin, Mechanism, Registry, bearer, plain, scram};
use crate::api::{ApiKey, Call, Outcome, sasl, str_bytes};
use crate::error_code as code;
use crate::faults::LoginFault;
use crate::wire::Response;

/// First version of SaslHandshake after which tokens have requests around them.
const WRAPPED: i16 = 1;

/// First version of SaslAuthenticate that tells how long a session lasts (KIP-368).
const LIFETIMES: i16 = 1;

/// Handles the request that names a mechanism.
pub(crate) fn handshake(
    login: &mut Login,
    registry: &Registry,
    call: &Call<'_>,
    body: Bytes,
) -> Result<Outcome, String> {
    if !sasl::knows(call.shared, ApiKey::SASL_HANDSHAKE, call.version) {
        return Ok(Outcome::Close);
    }
    let request: SaslHandshakeRequest = call.decode(ApiKey::SASL_HANDSHAKE, body)?;
    call.broker.counters.login_begun();
    let wanted = request.mechanism.as_str();
    let enabled = &registry.sasl.mechanisms;
    let found = enabled.iter().copied().find(|mechanism| mechanism.name() == wanted);
    let error = match (call.plan.error_before.or(call.plan.error_after), found) {
        (Some(error), _) => error,
        (None, None) => code::UNSUPPORTED_SASL_MECHANISM,
        (None, Some(_)) => code::NONE,
    };
    let names = enabled.iter().map(|mechanism| str_bytes(mechanism.name())).collect();
    let response = SaslHandshakeResponse::default().with_error_code(error).with_mechanisms(names);
    let response = Response::encode(call.correlation_id, call.version, &response)?;
    let Some(mechanism) = found.filter(|_| error == code::NONE) else {
        return Ok(Outcome::Refused(Some(response)));
    };
    login.stage = match &login.before {
        // Answered as if nothing were wrong; what comes next ends the connection.
        Some((before, _)) if *before != mechanism => Stage::OtherMechanism,
        _ => Stage::Tokens { exchange: Exchange::of(mechanism), raw: call.version < WRAPPED },
    };
    login.mechanism = Some(mechanism);
    Ok(Outcome::Response(response))
}

impl Exchange {
    fn of(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Scram(hash) => Self::ScramFirst(hash),
            Mechanism::OAuthBearer => Self::OAuthBearer(bearer::Exchange::default()),
        }
    }
}

/// What follows from a token.
enum Step {
    /// The client is to answer this.
    Challenge(Vec<u8>, Exchange),
    /// The client is who it says, and is told this.
    Done(Vec<u8>, BearerLogin),
}

/// Handles a request with a token in it, or a token without a request around it.
pub(crate) fn authenticate(
    login: &mut Login,
    registry: &Registry,
    call: &Call<'_>,
    body: Bytes,
) -> Result<Outcome, String> {
    // Put back by whoever goes on.
    let Stage::Tokens { exchange, raw } =
        std::mem::replace(&mut login.stage, Stage::OtherMechanism)
    else {
        return Ok(Outcome::Close);
    };
    let message = if raw {
        body
    } else {
        if !sasl::knows(call.shared, ApiKey::SASL_AUTHENTICATE, call.version) {
            return Ok(Outcome::Close);
        }
        let request: SaslAuthenticateRequest = call.decode(ApiKey::SASL_AUTHENTICATE, body)?;
        request.auth_bytes
    };
    let stepped = match call.plan.error_before {
        Some(error) => Err((error, Refused::Told("by fault script".into()))),
        None => step(login, registry, call, exchange, &message)
            .map_err(|refused| (code::SASL_AUTHENTICATION_FAILED, refused)),
    };
    let stepped = match call.plan.error_after {
        Some(error) => Err((error, Refused::Told("by fault script".into()))),
        None => stepped,
    };
    match stepped {
        Ok(Step::Challenge(answer, exchange)) => {
            login.stage = Stage::Tokens { exchange, raw };
            answered(call, raw, answer, Duration::ZERO)
        }
        Ok(Step::Done(answer, found)) => {
            let lifetime = logged_in(login, registry, found);
            call.broker.counters.login_succeeded(login.before.take().is_some());
            answered(call, raw, answer, lifetime.unwrap_or_default())
        }
        // Whoever sends bare tokens is not told anything.
        Err(_) if raw => Ok(Outcome::Refused(None)),
        Err((error, refused)) => {
            let mechanism = login.mechanism.map_or("", Mechanism::name);
            let words = match refused {
                Refused::Told(words) => words,
                Refused::Generic => format!(
                    "Authentication failed during {} due to invalid credentials with SASL mechanism \
                     {mechanism}",
                    login.kind()
                ),
            };
            let response = SaslAuthenticateResponse::default()
                .with_error_code(error)
                .with_error_message(Some(str_bytes(&words)));
            let response = Response::encode(call.correlation_id, call.version, &response)?;
            Ok(Outcome::Refused(Some(response)))
        }
    }
}

fn step(
    login: &Login,
    registry: &Registry,
    call: &Call<'_>,
    exchange: Exchange,
    message: &[u8],
) -> Result<Step, Refused> {
    let fault =
        |possible: fn(LoginFault) -> bool| call.shared.faults.login(call.broker.id, possible);
    if login.before.is_some()
        && fault(|fault| fault == LoginFault::RefuseReauthentication).is_some()
    {
        return Err(Refused::Generic);
    }
    let user = |principal: String| BearerLogin { principal, lifetime: None };
    let step = match exchange {
        Exchange::Plain => {
            let name =
                plain::login(message, |user, password| registry.is_password(user, password))?;
            Step::Done(Vec::new(), user(name))
        }
        Exchange::ScramFirst(hash) => {
            let fault = fault(|fault| {
                matches!(fault, LoginFault::ScramIterations(_) | LoginFault::ScramForeignNonce)
            });
            let find = |user: &str| registry.credential(user, hash);
            let (exchange, answer) =
                scram::Exchange::begin(hash, message, &registry.nonce(), find, fault)?;
            Step::Challenge(answer, Exchange::ScramLast(Box::new(exchange)))
        }
        Exchange::ScramLast(exchange) => {
            let fault = fault(|fault| {
                matches!(fault, LoginFault::ScramWrongSignature | LoginFault::ScramNoSignature)
            });
            let (name, answer) = exchange.finish(message, fault)?;
            Step::Done(answer, user(name))
        }
        Exchange::OAuthBearer(mut exchange) => {
            let now = Instant::now();
            match exchange.step(message, |token| registry.judge(token, now))? {
                bearer::Step::Done(found) => Step::Done(Vec::new(), found),
                bearer::Step::Challenge(words) => {
                    Step::Challenge(words.into(), Exchange::OAuthBearer(exchange))
                }
            }
        }
    };
    if let (Step::Done(_, found), Some((_, before))) = (&step, &login.before)
        && *found.principal != **before
    {
        return Err(Refused::Told(format!(
            "Cannot change principals during re-authentication from User.{before}: User.{}",
            found.principal
        )));
    }
    Ok(step)
}

/// Whoever it is, is in; for how long.
fn logged_in(login: &mut Login, registry: &Registry, found: BearerLogin) -> Option<Duration> {
    let max = registry.sasl.max_reauth.filter(|max| !max.is_zero());
    let lifetime = match (found.lifetime, max) {
        (Some(token), Some(max)) => Some(token.min(max)),
        (token, max) => token.or(max),
    };
    login.principal = Arc::from(found.principal);
    login.ends = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
    login.stage = Stage::LoggedIn;
    lifetime
}

fn answered(
    call: &Call<'_>,
    raw: bool,
    answer: Vec<u8>,
    lifetime: Duration,
) -> Result<Outcome, String> {
    if raw {
        let mut bytes = BytesMut::with_capacity(answer.len());
        bytes.put_slice(&answer);
        let mut response = Response::default();
        response.push(bytes.freeze());
        response.finish();
        return Ok(Outcome::Response(response));
    }
    let mut response = SaslAuthenticateResponse::default().with_auth_bytes(answer.into());
    if call.version >= LIFETIMES {
        response.session_lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    }
    call.answer(&response)
}
