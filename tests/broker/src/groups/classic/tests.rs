//! Joining, syncing and leaving, as a table would have it.
