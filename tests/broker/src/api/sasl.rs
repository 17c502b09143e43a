//! SaslHandshake and SaslAuthenticate where nobody logs in, or not now.

use bytes::Bytes;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{ApiKey, Call, Outcome, str_bytes, versions};
use crate::error_code as code;
use crate::state::Shared;

/// Whether this version of an api is answered.
pub(crate) fn knows(shared: &Shared, api: ApiKey, version: i16) -> bool {
    versions(shared, api).is_some_and(|(min, max)| (min..=max).contains(&version))
}

pub(crate) fn handshake(call: &Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let _: SaslHandshakeRequest = call.decode(ApiKey::SASL_HANDSHAKE, body)?;
    let error = call.plan.error_before.or(call.plan.error_after);
    let error = error.unwrap_or(code::ILLEGAL_SASL_STATE);
    call.answer(&SaslHandshakeResponse::default().with_error_code(error))
}

pub(crate) fn authenticate(call: &Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let _: SaslAuthenticateRequest = call.decode(ApiKey::SASL_AUTHENTICATE, body)?;
    let error = call.plan.error_before.or(call.plan.error_after);
    let error = error.unwrap_or(code::ILLEGAL_SASL_STATE);
    let words = "SaslAuthenticate request received after successful authentication";
    let response = SaslAuthenticateResponse::default()
        .with_error_code(error)
        .with_error_message(Some(str_bytes(words)));
    call.answer(&response)
}
