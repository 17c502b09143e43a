//! c-api.
