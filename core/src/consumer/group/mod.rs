//! Members of consumer groups. State machines without I/O: `on(event, now, rng)` gives actions, and somebody who has
//! connections, topics and a buffer executes them (see [`events`]).

pub(crate) mod auto;
pub(crate) mod classic;
pub(in crate::consumer) mod codes;
pub(in crate::consumer) mod coordinator;
pub(crate) mod events;
mod life;
pub(crate) mod next;
pub(in crate::consumer) mod told;
