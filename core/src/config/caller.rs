//! The client on whose behalf a request is sent. All clients of a pool share its connections, but each has its
//! own client id and time-outs.

use std::time::Duration;

/// The part of a client's settings that goes with each of its requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Caller {
    /// In the header of each of its requests.
    pub(crate) client_id: String,
    /// How long a broker may take to answer a request.
    pub(crate) request_timeout: Duration,
    /// How long a connection that it has used stays open without requests, less up to a fifth.
    pub(crate) idle_timeout: Duration,
}
