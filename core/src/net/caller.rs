//! On whose behalf a request is sent. A connection is shared by all clients of a pool, which have
//! names and patience of their own.

use std::time::Duration;

/// What belongs to a client and not to the connection that its requests go by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Caller {
    /// In the header of each of its requests.
    pub(crate) client_id: String,
    /// How long a broker may take to answer it.
    pub(crate) request_timeout: Duration,
    /// A connection that it has used stays open for so long at least, up to a fifth less.
    pub(crate) idle_timeout: Duration,
}
