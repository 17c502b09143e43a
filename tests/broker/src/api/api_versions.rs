//! ApiVersions: what this broker speaks, and who is asking (KIP-511).

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{ApiKey, Call, Outcome, SUPPORTED, str_bytes, versions};
use crate::error_code as code;
use crate::wire::Response;

/// With the answer comes its error code.
pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<(Outcome, i16), String> {
    let (min, max) = versions(call.shared, ApiKey::API_VERSIONS).unwrap_or((0, 0));
    if call.version < min || call.version > max {
        // Asked in a version that only a newer broker knows: answered in version 0, which every
        // client can read, and naming the range of this one api so that the client can ask again.
        let response = ApiVersionsResponse::default()
            .with_error_code(code::UNSUPPORTED_VERSION)
            .with_api_keys(vec![api_version(ApiKey::API_VERSIONS, min, max)]);
        let response = Response::encode(call.correlation_id, 0, &response)?;
        return Ok((Outcome::Response(response), code::UNSUPPORTED_VERSION));
    }
    let request: ApiVersionsRequest = call.decode(ApiKey::API_VERSIONS, body)?;
    let mut error_code = call.plan.error_before.or(call.plan.error_after).unwrap_or(code::NONE);
    if call.version >= 3 {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if is_software_name(name) && is_software_name(version) {
            call.broker.counters.software(name, version);
        } else {
            error_code = code::INVALID_REQUEST;
        }
    }
    let api_keys = if error_code == code::NONE {
        SUPPORTED
            .into_iter()
            .filter_map(|(api, ..)| {
                let (min, max) = versions(call.shared, api)?;
                Some(api_version(api, min, max))
            })
            .collect()
    } else {
        Vec::new()
    };
    let mut response = ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_throttle_time_ms(if call.version >= 1 { call.throttle_time_ms() } else { 0 })
        .with_api_keys(api_keys);
    if call.version >= FEATURES && error_code == code::NONE {
        add_features(call, &mut response);
    }
    Ok((call.answer(&response)?, error_code))
}

/// First version that tells features (KIP-584).
const FEATURES: i16 = 3;
/// First version whose features may have a lowest version of zero (KIP-1022).
const FROM_ZERO: i16 = 4;

fn add_features(call: &Call<'_>, response: &mut ApiVersionsResponse) {
    let name = str_bytes("group.version");
    if call.version >= FROM_ZERO {
        let supported = SupportedFeatureKey::default().with_name(name.clone());
        response.supported_features = vec![supported.with_min_version(0).with_max_version(1)];
    }
    response.finalized_features_epoch = 1;
    if call.shared.config.groups.next_generation {
        let finalized = FinalizedFeatureKey::default().with_name(name);
        let finalized = finalized.with_min_version_level(1).with_max_version_level(1);
        response.finalized_features = vec![finalized];
    }
}

fn api_version(api: ApiKey, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(api.0).with_min_version(min).with_max_version(max)
}

/// KIP-511: letters and digits at both ends, dots and dashes between.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte))
}
