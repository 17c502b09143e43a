//! What requests about groups have in common: the fault script's part, and the order in which Kafka
//! finds that it cannot answer.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::Groups;

/// Errors of the fault script: before and after a request takes effect.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Injected {
    pub(super) before: Option<i16>,
    pub(super) after: Option<i16>,
}

impl Call<'_> {
    /// What the fault script has for groups that the request names, in their order; or what becomes of
    /// the request instead.
    pub(super) async fn of_groups(
        &mut self,
        api: ApiKey,
        groups: impl Iterator<Item = &str>,
    ) -> Result<Vec<Injected>, Outcome> {
        let mut injected = Vec::new();
        let mut delay = Duration::ZERO;
        let (mut cut, mut black_hole) = (false, false);
        for group in groups {
            let plan = self.shared.faults.group_plan(self.broker.id, api, group);
            self.plan.add_after(&plan);
            delay += plan.delay;
            cut |= plan.cut_before;
            black_hole |= plan.black_hole;
            injected.push(Injected {
                before: plan.error_before.or(self.plan.error_before),
                after: plan.error_after.or(self.plan.error_after),
            });
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if cut {
            return Err(Outcome::Cut);
        }
        if black_hole { Err(Outcome::Swallow) } else { Ok(injected) }
    }

    /// The same for a request about one group; its errors become those of the whole request.
    pub(super) async fn of_group(&mut self, api: ApiKey, group: &str) -> Result<Injected, Outcome> {
        let injected = self.of_groups(api, std::iter::once(group)).await?;
        let injected = injected.first().copied().unwrap_or_default();
        self.plan.error_before = injected.before;
        self.plan.error_after = injected.after;
        Ok(injected)
    }

    pub(super) fn client_id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.client_id)
    }

    /// Why nothing can be said about a group, if the fault script and its rights leave nothing to find.
    pub(super) fn forbidden(&self, injected: Injected, right: Right, group: &str) -> Option<i16> {
        let forbidden = || (!self.may(right, group)).then_some(code::GROUP_AUTHORIZATION_FAILED);
        injected.before.or_else(forbidden)
    }

    /// Why this broker cannot answer for a group that has to have a name.
    pub(super) fn misplaced(&self, groups: &Groups, group: &str, now: Instant) -> Option<i16> {
        if group.is_empty() {
            return Some(code::INVALID_GROUP_ID);
        }
        groups.check(self.broker.id, group, now).err()
    }

    /// What a client may do with a group, as the bits of a response: 3 is Read, 6 Delete, 8 Describe.
    pub(super) fn rights_to_group(&self, group: &str) -> i32 {
        let rights = [(Right::Group, 3), (Right::DeleteGroup, 6), (Right::DescribeGroup, 8)];
        let allowed = rights.into_iter().filter(|(right, _)| self.may(*right, group));
        allowed.fold(0, |bits, (_, bit)| bits | 1 << bit)
    }
}
