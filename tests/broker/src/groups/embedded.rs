//! The protocol within the protocol: what consumers write into the metadata of a classic group.
//! Coordinators read it, for what a group subscribes to.

use bytes::{Buf, Bytes};

/// Topics of a `ConsumerProtocolSubscription`. All versions begin as the first; `None`: it is no such
/// thing.
pub(crate) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut rest = metadata.clone();
    let version = rest.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(string(&mut rest)?);
    }
    Some(topics)
}

fn string(rest: &mut Bytes) -> Option<String> {
    let len = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    if len > rest.len() {
        return None;
    }
    String::from_utf8(rest.split_to(len).to_vec()).ok()
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
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
