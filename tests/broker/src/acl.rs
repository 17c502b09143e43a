//! Who may do what: lists of what is allowed, as Kafka's authorizer has them with
//! `allow.everyone.if.no.acl.found=false`.

use std::collections::BTreeMap;

/// What principals may do. Who is not named may do nothing.
///
/// ```
/// use ottla_test_broker::{Acls, Allowed, Cluster, Sasl};
///
/// let alice = Allowed::new().write("orders").idempotent_write();
/// let cluster = Cluster::builder()
///     .sasl(Sasl::new().plain().user("alice", "secret"))
///     .acls(Acls::new().allow("alice", alice))
///     .start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "lists do nothing until a cluster has them"]
pub struct Acls {
    principals: BTreeMap<String, Allowed>,
}

/// What one principal may do. Topics, groups and transactional ids are named as they are, or by what they
/// begin with and a `*`; `*` alone is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what is allowed does nothing until it is a principal's"]
pub struct Allowed {
    everything: bool,
    rules: Vec<(Right, String)>,
}

/// What may be done. Of a topic, everything but [`Right::Create`] includes to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    Describe,
    Create,
    Alter,
    DescribeConfigs,
    AlterConfigs,
    Delete,
    Group,
    DescribeGroup,
    DeleteGroup,
    TransactionalId,
    DescribeTransactionalId,
    IdempotentWrite,
    CreateTopics,
}

/// The resource of rights to the cluster, which has no name.
const CLUSTER: &str = "*";

impl Right {
    /// Whether who has this right has the other with it.
    fn includes(self, other: Self) -> bool {
        let topic = matches!(self, Self::Read | Self::Write | Self::Alter | Self::Delete);
        self == other
            || match other {
                Self::Describe => topic,
                Self::DescribeConfigs => self == Self::AlterConfigs,
                Self::DescribeGroup => matches!(self, Self::Group | Self::DeleteGroup),
                Self::DescribeTransactionalId => self == Self::TransactionalId,
                _ => false,
            }
    }
}

impl Acls {
    /// Nobody may do anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a principal may do, besides what was said of it before. A user of SASL has its own name, who
    /// comes with a certificate the certificate's (`CN=alice`), and who comes with nothing is `ANONYMOUS`; `*`
    /// is everybody.
    pub fn allow(mut self, principal: impl Into<String>, allowed: Allowed) -> Self {
        let principal = principal.into();
        let known = self.principals.entry(principal).or_default();
        known.everything |= allowed.everything;
        known.rules.extend(allowed.rules);
        self
    }

    pub(crate) fn may(&self, principal: &str, right: Right, name: &str) -> bool {
        self.any(principal, |rule, pattern| rule.includes(right) && is_meant(pattern, name))
    }

    /// Whether there is anything that the right is for.
    pub(crate) fn may_somewhere(&self, principal: &str, right: Right) -> bool {
        self.any(principal, |rule, _| rule.includes(right))
    }

    fn any(&self, principal: &str, matches: impl Fn(Right, &str) -> bool) -> bool {
        [principal, "*"].into_iter().filter_map(|name| self.principals.get(name)).any(|allowed| {
            allowed.everything || allowed.rules.iter().any(|(rule, name)| matches(*rule, name))
        })
    }
}

fn is_meant(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

impl Allowed {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, as `super.users`.
    pub fn everything() -> Self {
        Self { everything: true, rules: Vec::new() }
    }

    /// Read of a topic: Fetch.
    pub fn read(self, topic: impl Into<String>) -> Self {
        self.with(Right::Read, topic)
    }

    /// Write to a topic: Produce; and a producer id, for whoever may write to any topic.
    pub fn write(self, topic: impl Into<String>) -> Self {
        self.with(Right::Write, topic)
    }

    /// Describe of a topic alone: Metadata, ListOffsets, OffsetsForLeaderEpoch.
    pub fn describe(self, topic: impl Into<String>) -> Self {
        self.with(Right::Describe, topic)
    }

    /// Create of topics with these names: CreateTopics, and Metadata where it creates.
    pub fn create(self, topic: impl Into<String>) -> Self {
        self.with(Right::Create, topic)
    }

    /// Alter of a topic: CreatePartitions.
    pub fn alter(self, topic: impl Into<String>) -> Self {
        self.with(Right::Alter, topic)
    }

    /// DescribeConfigs of a topic, or of brokers under the name `kafka-cluster`.
    pub fn describe_configs(self, topic: impl Into<String>) -> Self {
        self.with(Right::DescribeConfigs, topic)
    }

    /// AlterConfigs of a topic: AlterConfigs, IncrementalAlterConfigs, and to see what they have set.
    pub fn alter_configs(self, topic: impl Into<String>) -> Self {
        self.with(Right::AlterConfigs, topic)
    }

    /// Delete of a topic: DeleteTopics and DeleteRecords.
    pub fn delete(self, topic: impl Into<String>) -> Self {
        self.with(Right::Delete, topic)
    }

    /// Read of a group: to be a member of it, and to commit.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.with(Right::Group, group)
    }

    /// Describe of a group alone: to find it, to look at it and at what it has committed.
    pub fn describe_group(self, group: impl Into<String>) -> Self {
        self.with(Right::DescribeGroup, group)
    }

    /// Delete of a group: DeleteGroups and OffsetDelete.
    pub fn delete_group(self, group: impl Into<String>) -> Self {
        self.with(Right::DeleteGroup, group)
    }

    /// Write of a transactional id: InitProducerId with it, and Produce of transactions.
    pub fn transactional_id(self, id: impl Into<String>) -> Self {
        self.with(Right::TransactionalId, id)
    }

    /// IdempotentWrite of the cluster: a producer id without a topic to write to.
    pub fn idempotent_write(self) -> Self {
        self.with(Right::IdempotentWrite, CLUSTER)
    }

    /// Create of the cluster: topics of any name.
    pub fn create_topics(self) -> Self {
        self.with(Right::CreateTopics, CLUSTER)
    }

    fn with(mut self, right: Right, name: impl Into<String>) -> Self {
        self.rules.push((right, name.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_not() {
        let acls = Acls::new()
            .allow("alice", Allowed::new().write("orders"))
            .allow("alice", Allowed::new().read("log-*").group("*").create("mine"))
            .allow("*", Allowed::new().describe("public"))
            .allow("root", Allowed::everything());
        for (principal, right, name, allowed) in [
            ("alice", Right::Write, "orders", true),
            ("alice", Right::Write, "orders2", false),
            ("alice", Right::Read, "orders", false),
            ("alice", Right::Describe, "orders", true),
            ("alice", Right::Read, "log-", true),
            ("alice", Right::Read, "log-a", true),
            ("alice", Right::Read, "lo", false),
            ("alice", Right::Write, "log-a", false),
            ("alice", Right::Create, "mine", true),
            ("alice", Right::Describe, "mine", false),
            ("alice", Right::Describe, "public", true),
            ("alice", Right::DescribeGroup, "any", true),
            ("alice", Right::TransactionalId, "t", false),
            ("alice", Right::IdempotentWrite, "", false),
            ("bob", Right::Describe, "public", true),
            ("bob", Right::Describe, "orders", false),
            ("root", Right::Delete, "orders", true),
            ("root", Right::CreateTopics, "", true),
        ] {
            assert_eq!(acls.may(principal, right, name), allowed, "{principal} {right:?} {name}");
        }
        assert!(acls.may_somewhere("alice", Right::Write));
        assert!(!acls.may_somewhere("bob", Right::Write));
        assert!(!Acls::new().may("alice", Right::Describe, "public"));
    }
}
