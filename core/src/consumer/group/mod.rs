//! Membership in consumer groups. What needs no I/O comes first: [`wire`], the bytes that members of classic groups
//! send one another through the coordinator, and [`assignors`], who reads what.

mod assignors;
pub(crate) mod wire;
