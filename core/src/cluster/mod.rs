//! What a process knows of a cluster and shares between all its handles: connections in lanes, brokers and
//! their health, metadata, retry budgets, and the bucket that paces requests.
//!
//! ```text
//! Handle: one client's hold on a pool                         handle.rs
//! Pool ─┬─ Broker: lanes, when it may be dialled, ejection    broker.rs, dial.rs
//!       ├─ Identity: which cluster it is                      identity.rs
//!       ├─ Metadata: topics in use, leaders, epochs           metadata.rs, merge.rs, refresh.rs
//!       ├─ what stands between it and a broker                trouble.rs
//!       ├─ short calls anybody can answer                     call.rs
//!       ├─ who coordinates a group                            coordinator.rs
//!       ├─ how many Produce requests it makes                 pace.rs
//!       └─ retry budgets                                      budgets.rs
//! ```

mod broker;
mod budgets;
#[cfg(test)]
pub(crate) mod by_hand;
mod call;
mod coordinator;
mod dial;
pub(crate) mod epoch_ends;
mod handle;
mod identity;
pub(crate) mod list_offsets;
mod merge;
mod metadata;
mod pace;
mod pool;
mod pools;
mod refresh;
pub(crate) mod survey;
#[cfg(test)]
pub(crate) mod testbed;
mod trouble;
mod view;

pub use broker::BrokerHealth;
pub(crate) use broker::{Broker, Lane};
pub(crate) use budgets::BudgetKind;
pub(crate) use handle::{Handle, Settings};
pub(crate) use metadata::{LeaderHint, Lookup, Metadata, TopicMeta};
pub(crate) use pool::{Guest, Pool};
#[cfg(test)]
pub(crate) use pools::Pools;
pub use view::{BrokerView, ClusterView, PartitionView, TopicView};
