//! The readers of what other members of a group write.

use super::Verdict;
use crate::consumer::group::wire::{
    Assignment, History, Partitions, Subscription, decode_generation, encode_generation,
};

/// Reads a subscription, an assignment, or the user data of `sticky` or `cooperative-sticky`: a byte for which, and
/// its bytes.
///
/// # Panics
/// If what was read is something else when it is written and read again, or is not in order.
pub fn membership(input: &[u8]) -> Verdict {
    let Some((&which, bytes)) = input.split_first() else { return Verdict::Unfit };
    let taken = match which {
        0 => Subscription::decode(bytes).is_ok_and(|read| {
            assert!(read.topics.is_sorted_by(|a, b| a < b), "topics: {read:?}");
            in_order(&read.owned);
            assert_eq!(Subscription::decode(&read.encode()).as_ref(), Ok(&read));
            true
        }),
        1 => Assignment::decode(bytes).is_ok_and(|read| {
            in_order(&read.partitions);
            assert_eq!(Assignment::decode(&read.encode()).as_ref(), Ok(&read));
            true
        }),
        2 => {
            let read = History::decode(Some(bytes));
            in_order(&read.partitions);
            assert_eq!(History::decode(Some(&read.encode())), read);
            read != History::default()
        }
        3 => {
            let generation = decode_generation(Some(bytes));
            assert_eq!(decode_generation(Some(&encode_generation(generation))), generation);
            generation >= 0
        }
        _ => return Verdict::Unfit,
    };
    if taken { Verdict::Taken } else { Verdict::Refused }
}

fn in_order(partitions: &Partitions) {
    assert!(partitions.is_sorted_by(|(a, _), (b, _)| a < b), "topics: {partitions:?}");
    for (topic, numbers) in partitions {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{topic}: {numbers:?}");
        assert!(numbers.first().is_some_and(|first| *first >= 0), "{topic}: {numbers:?}");
    }
}
