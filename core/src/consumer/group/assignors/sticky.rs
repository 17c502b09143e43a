//! `sticky`: as even as subscriptions allow, over all topics, and of all plans that are as even one that moves the
//! fewest partitions. Members give up everything before they join, so what they had stands in their user data.
//!
//! How many partitions of which topics each member gets is decided first ([`shares`](super::shares)), then which
//! ([`fill`](super::fill)).

use super::claims::Claims;
use super::fill::fill;
use super::layout::Layout;
use super::shares::Shares;
use crate::consumer::group::wire::History;

pub(super) fn plan(layout: &Layout<'_>) -> Vec<u32> {
    let claims = Claims::new(layout, |member| {
        let history = History::decode(member.subscription.user_data.as_deref());
        (history.partitions, history.generation)
    });
    balanced(layout, &claims.owners(layout))
}

/// `had`: who had each partition, and still wants it.
pub(super) fn balanced(layout: &Layout<'_>, had: &[u32]) -> Vec<u32> {
    let racks_matter = layout.racks_matter(&layout.topics.iter().collect::<Vec<_>>());
    fill(layout, had, &Shares::balanced(layout, had, racks_matter), racks_matter)
}

#[cfg(test)]
mod tests;
