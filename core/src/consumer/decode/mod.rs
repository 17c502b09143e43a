//! What of a response is handed out, by the headers of its batches alone.

pub(crate) mod aborted;
