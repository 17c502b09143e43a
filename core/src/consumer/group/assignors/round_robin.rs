//! `roundrobin`: partitions one after the other, to members in turn. Who does not want the topic is passed over, and
//! the turn goes on behind who got the last.

use super::layout::{Layout, NOBODY};

pub(super) fn plan(layout: &Layout<'_>) -> Vec<u32> {
    let mut owners = vec![NOBODY; layout.partitions];
    let mut turn = 0;
    for topic in &layout.topics {
        for owner in &mut owners[topic.range()] {
            let next = topic.members.partition_point(|member| *member < turn);
            *owner = topic.members.get(next).copied().unwrap_or(topic.members[0]);
            turn = *owner + 1;
        }
    }
    owners
}

#[cfg(test)]
mod tests;
