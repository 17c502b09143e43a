//! The requests that are counted apart.

macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident = $key:literal),* $(,)?) => {
        /// A request by its API key, dense, so that counters are found by index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::enum_variant_names, reason = "the protocol's names")]
        pub(crate) enum Api {
            $($(#[$doc])* $name,)*
            /// Whatever has no line of its own here.
            Other,
        }

        impl Api {
            /// All of them, in the order of their discriminants.
            pub(crate) const ALL: [Self; Self::Other as usize + 1] = [$(Self::$name,)* Self::Other];

            pub(crate) const fn from_key(api_key: i16) -> Self {
                match api_key {
                    $($key => Self::$name,)*
                    _ => Self::Other,
                }
            }

            /// As the protocol's documentation spells it.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Other => "Other",
                }
            }
        }
    };
}

apis!(
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    SaslHandshake = 17,
    ApiVersions = 18,
    CreateTopics = 19,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    SaslAuthenticate = 36,
    DescribeProducers = 61,
    ConsumerGroupHeartbeat = 68,
);

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn keys_and_names_are_the_protocols() {
        for (i, api) in Api::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, i);
        }
        for key in 0..100 {
            let api = Api::from_key(key);
            if api != Api::Other {
                let theirs = ApiKey::try_from(key).expect("the protocol has this key");
                assert_eq!(api.name(), format!("{theirs:?}"));
            }
        }
        assert_eq!(Api::from_key(-1), Api::Other);
    }
}
