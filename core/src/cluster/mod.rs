//! What a process knows of a cluster and shares between all its handles: connections in lanes,
//! metadata, one producer id.

mod broker;
mod metadata;
mod pool;
mod refresh;

pub(crate) use broker::Lane;
pub(crate) use metadata::{LeaderHint, Lookup, Metadata, TopicMeta};
pub(crate) use pool::Pool;
