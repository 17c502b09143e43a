//! The protocol within the protocol: what consumers write into the metadata and the assignments of
//! classic groups. Coordinators read it for what a group subscribes to, and read and write it where
//! members of both kinds are in one group.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Highest version of either that is known; higher ones are read as this one.
const LATEST: i16 = 3;
/// First version that tells what a member has.
const OWNED: i16 = 1;
/// First version that tells the generation it has it from.
const GENERATION: i16 = 2;
/// First version that tells the rack.
const RACK: i16 = 3;

/// A `ConsumerProtocolSubscription`, as far as coordinators read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) version: i16,
    pub(crate) topics: Vec<String>,
    pub(crate) owned: Vec<(String, Vec<i32>)>,
    pub(crate) rack: Option<String>,
}

/// A `ConsumerProtocolAssignment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) partitions: Vec<(String, Vec<i32>)>,
    pub(crate) has_user_data: bool,
}

/// Topics of a subscription. All versions begin as the first; `None`: it is no such thing.
pub(crate) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut rest = metadata.clone();
    version(&mut rest)?;
    topics(&mut rest)
}

/// The whole of a subscription; `None`: it is no such thing.
pub(crate) fn subscription(metadata: &Bytes) -> Option<Subscription> {
    let mut rest = metadata.clone();
    let version = version(&mut rest)?;
    let topics = topics(&mut rest)?;
    bytes(&mut rest)?;
    let owned = if version >= OWNED { partitions(&mut rest)? } else { Vec::new() };
    if version >= GENERATION {
        rest.try_get_i32().ok()?;
    }
    let rack = if version >= RACK { nullable_string(&mut rest)? } else { None };
    Some(Subscription { version, topics, owned, rack })
}

/// An assignment; `None`: it is no such thing.
pub(crate) fn assignment(metadata: &Bytes) -> Option<Assigned> {
    let mut rest = metadata.clone();
    version(&mut rest)?;
    let partitions = partitions(&mut rest)?;
    let has_user_data = bytes(&mut rest)? > 0;
    Some(Assigned { partitions, has_user_data })
}

/// An assignment in the version of a member's subscription.
pub(crate) fn write_assignment(version: i16, partitions: &BTreeMap<&str, Vec<i32>>) -> Bytes {
    let mut written = BytesMut::new();
    written.put_i16(version);
    written.put_i32(partitions.len() as i32);
    for (topic, list) in partitions {
        written.put_i16(topic.len() as i16);
        written.put_slice(topic.as_bytes());
        written.put_i32(list.len() as i32);
        list.iter().for_each(|partition| written.put_i32(*partition));
    }
    written.put_i32(-1); // no user data
    written.freeze()
}

fn version(rest: &mut Bytes) -> Option<i16> {
    let version = rest.try_get_i16().ok()?;
    (version >= 0).then(|| version.min(LATEST))
}

fn topics(rest: &mut Bytes) -> Option<Vec<String>> {
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(nullable_string(rest)??);
    }
    Some(topics)
}

fn partitions(rest: &mut Bytes) -> Option<Vec<(String, Vec<i32>)>> {
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let topic = nullable_string(rest)??;
        let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(rest.try_get_i32().ok()?);
        }
        topics.push((topic, list));
    }
    Some(topics)
}

/// Passes bytes that may be null, and tells how many they are.
fn bytes(rest: &mut Bytes) -> Option<usize> {
    let len = usize::try_from(rest.try_get_i32().ok()?).unwrap_or(0);
    if len > rest.len() {
        return None;
    }
    rest.advance(len);
    Some(len)
}

fn nullable_string(rest: &mut Bytes) -> Option<Option<String>> {
    let len = rest.try_get_i16().ok()?;
    let Ok(len) = usize::try_from(len) else { return Some(None) };
    if len > rest.len() {
        return None;
    }
    String::from_utf8(rest.split_to(len).to_vec()).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_whatever_follows() {
        let of = |bytes: &[u8]| subscribed_topics(&Bytes::copy_from_slice(bytes));
        let two = |topics: &[&str]| Some(topics.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(of(&[0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 9, 9]), two(&["a", "bc"]));
        assert_eq!(of(&[0, 0, 0, 0, 0, 0]), two(&[]));
        for wrong in [
            &[][..],
            &[0],
            &[0xff, 0xff, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 1],
            &[0, 0, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0x7f, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 0, 1, 0, 5, b'a'],
            &[0, 0, 0, 0, 0, 1, 0, 1, 0xff],
            &[0, 0, 0, 0, 0, 1, 0xff, 0xff],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn all_versions_of_subscriptions_are_read() {
        let topics = &[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 9][..];
        let owned = &[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 5][..];
        let rest = &[0, 0, 0, 7, 0, 1, b'r'][..];
        for version in 0..=4u8 {
            let written = [&[0, version], topics, owned, rest].concat();
            let told = subscription(&Bytes::from(written)).expect("a subscription");
            assert_eq!(
                (told.version, &told.topics[..]),
                (i16::from(version.min(3)), &["a".to_owned()][..])
            );
            let owned = if version >= 1 { vec![("a".to_owned(), vec![3, 5])] } else { vec![] };
            assert_eq!(told.owned, owned);
            assert_eq!(told.rack.as_deref(), (version >= 3).then_some("r"));
        }
        let written = [&[0, 3], topics, owned, rest].concat();
        for len in 0..written.len() {
            assert_eq!(subscription(&Bytes::copy_from_slice(&written[..len])), None, "{len}");
        }
    }

    #[test]
    fn assignments_are_read_as_they_are_written() {
        let partitions = BTreeMap::from([("a", vec![0, 2]), ("b", vec![])]);
        let written = write_assignment(1, &partitions);
        let told = assignment(&written).expect("an assignment");
        assert_eq!(told.partitions, [("a".to_owned(), vec![0, 2]), ("b".to_owned(), vec![])]);
        assert!(!told.has_user_data);
        let with_data = [&written[..written.len() - 4], &[0, 0, 0, 1, 7]].concat();
        assert!(assignment(&Bytes::from(with_data)).expect("an assignment").has_user_data);
        assert_eq!(assignment(&Bytes::new()), None);
    }
}
