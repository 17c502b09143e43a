//! How calls fail, and how connections end.

use crate::error::Error;

/// Why a request has no response.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// It was not written to the socket as a whole: the broker cannot have seen it.
    Unsent(Error),
    /// The broker may have seen it, and may have acted on it.
    InDoubt(Error),
}

impl CallError {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Unsent(e) | Self::InDoubt(e) => e,
        }
    }
}

/// Why a connection is over.
#[derive(Clone, Debug)]
pub(crate) enum CloseReason {
    /// Every handle is gone.
    Unneeded,
    /// No request was sent for the idle timeout.
    Idle,
    /// The peer closed it, went silent, or sent what no broker sends.
    Lost(Error),
    /// The peer closed it instead of answering the first request after ApiVersions.
    HungUp(Error),
}

/// Called once when a connection is over.
pub(crate) type OnClose = Box<dyn FnOnce(&CloseReason) + Send>;
