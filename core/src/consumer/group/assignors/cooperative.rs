//! `cooperative-sticky`: as [`sticky`](super::sticky), but members go on reading what they have while they join. So
//! nobody may be given in this round what somebody else may be reading: it stays out of the plan. Who finds that it has
//! lost something gives it up and joins again, and in that round it is free.
//!
//! A claim that another of a higher generation beats makes nobody an owner here either: its member is told in this
//! round that it has lost the partition, and may get it in the next (franz-go's AdjustCooperative; in Java only if all
//! subscriptions are equal).

use super::claims::Claims;
use super::layout::{Layout, NOBODY};
use super::sticky::balanced;
use crate::consumer::group::wire::decode_generation;

pub(super) fn plan(layout: &Layout<'_>) -> Vec<u32> {
    let claims = Claims::new(layout, |member| {
        let subscription = &member.subscription;
        let generation = match subscription.generation {
            0.. => subscription.generation,
            // Older than the field, or librdkafka before its first assignment.
            _ => decode_generation(subscription.user_data.as_deref()),
        };
        (&subscription.owned, generation)
    });
    let mut owners = balanced(layout, &claims.owners(layout));
    for (partition, owner) in owners.iter_mut().enumerate() {
        let gains = *owner != claims.owner(partition);
        if gains && claims.claimed_by_another(partition, *owner) {
            *owner = NOBODY;
        }
    }
    owners
}

#[cfg(test)]
mod tests;
