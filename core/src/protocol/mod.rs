//! Messages of the protocol, as bytes: requests written with their size prefix and header, answers
//! checked before they are read.

pub(crate) mod bounds;
mod frame;
mod produce;
mod throttle;
mod unset;
mod versions;

pub(crate) use bounds::bounded;
pub(crate) use frame::{decode_response, encode_request, encode_secret};
pub(crate) use produce::{PartitionData, TopicData, encode_produce};
pub(crate) use throttle::{Throttle, goes_on_throttled};
pub(crate) use unset::{
    NO_EPOCH, NO_LEADER, NO_OFFSET, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
};
pub(crate) use versions::Versions;
