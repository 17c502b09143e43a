//! What is read before a login and for it, by anybody's hand: messages of SCRAM and OAUTHBEARER, answers of token
//! endpoints, `sasl.jaas.config`, and properties.

use super::Verdict;
use crate::config::foreign::Owner;
use crate::config::properties::{Properties, read};
use crate::security::{fuzzed, jaas};

/// A byte for what is read, and it.
///
/// # Panics
/// If an answer that comes in pieces is not read as one that comes at once, or a login goes on with a message that its
/// mechanism does not have.
pub fn logins(input: &[u8]) -> Verdict {
    let Some((which, bytes)) = input.split_first() else { return Verdict::Unfit };
    let taken = match which % 6 {
        0 => fuzzed::scram(bytes),
        1 => fuzzed::bearer(bytes),
        2 => fuzzed::answer(bytes),
        3 => fuzzed::token(bytes),
        4 => match std::str::from_utf8(bytes) {
            Ok(text) => jaas::parse(text).is_ok(),
            Err(_) => return Verdict::Unfit,
        },
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => {
                let pairs = text.lines().filter_map(|line| line.split_once('='));
                read(Owner::Client, &Properties::from_iter(pairs)).is_ok()
            }
            Err(_) => return Verdict::Unfit,
        },
    };
    if taken { Verdict::Taken } else { Verdict::Refused }
}
