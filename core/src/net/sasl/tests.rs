use super::*;

/// They end up in terminals and logs.
#[test]
fn a_brokers_words_are_bounded_and_cannot_change_what_is_shown() {
    assert_eq!(printable("Authentication failed: über"), "Authentication failed: über");
    assert_eq!(printable("a\u{1b}[31m\r\nb\u{202e}c\u{200b}d\0"), "a[31mbcd");
    assert_eq!(printable(&"x".repeat(MAX_WORDS + 1)).len(), MAX_WORDS);
}
