//! What a member subscribes to: topics by their names, and patterns of names. No topic's name begins with `^`, so what does
//! is a pattern, as librdkafka has it.
//!
//! A pattern has to match the whole name, as with Java's client and with the coordinators of the next generation (RE2/J's
//! `matches`). Those evaluate it themselves; of a classic group each member does.

use std::fmt;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

use crate::config::check_topic;
use crate::error::{Error, Result};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) pattern: Option<Pattern>,
}

/// One that stands for all of a member's.
#[derive(Clone)]
pub(crate) struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// What a pattern begins with.
const MARK: char = '^';

/// How long one may be, and how much memory it may take once it is compiled.
const LONGEST: usize = 4 << 10;
const LARGEST: usize = 1 << 20;

pub(crate) fn is_pattern(topic: &str) -> bool {
    topic.starts_with(MARK)
}

impl Wish {
    /// # Errors
    /// `InvalidArgument` for what is neither a name nor a pattern.
    pub(crate) fn new<T: AsRef<str>>(topics: impl IntoIterator<Item = T>) -> Result<Self> {
        let (mut names, mut patterns) = (Vec::<Arc<str>>::new(), Vec::new());
        for topic in topics {
            let topic = topic.as_ref();
            if is_pattern(topic) {
                check(topic)?;
                patterns.push(topic.to_owned());
            } else {
                check_topic(topic)?;
                names.push(Arc::from(topic));
            }
        }
        let text = match patterns.as_slice() {
            [] => return Ok(Self { names, pattern: None }),
            [one] => one.clone(),
            many => {
                let each: Vec<String> = many.iter().map(|one| format!("(?:{one})")).collect();
                each.join("|")
            }
        };
        let regex = check(&text)?;
        Ok(Self { names, pattern: Some(Pattern { text: Arc::from(text), regex }) })
    }
}

fn check(text: &str) -> Result<Regex> {
    let refused = |why: &dyn fmt::Display| {
        let shown: String = text.chars().take(100).collect();
        let words = format!("'{}' is not a pattern of topics: {why}", shown.escape_debug());
        Error::argument(words).advise("write it as RE2 has it, for the whole name: ^orders-.*")
    };
    if text.len() > LONGEST {
        return Err(refused(&format_args!("it has {} bytes; {LONGEST} at most", text.len())));
    }
    // By itself too: one that closes a group which it did not open would be another with this around it.
    let compiled = |text: &str| RegexBuilder::new(text).size_limit(LARGEST).build();
    compiled(text)
        .and_then(|_| compiled(&format!(r"\A(?:{text})\z")))
        .map_err(|error| refused(&error))
}

impl Pattern {
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.regex.is_match(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn wish(topics: &[&str]) -> Wish {
        Wish::new(topics).unwrap()
    }

    #[test]
    fn names_and_patterns_are_told_apart() {
        let wish = wish(&["orders", "^pay-.*", "^log|audit"]);
        assert_eq!(wish.names, [Arc::from("orders")]);
        let pattern = wish.pattern.unwrap();
        assert_eq!(&**pattern.text(), "(?:^pay-.*)|(?:^log|audit)");
        for (name, matches) in [
            ("pay-in", true),
            ("pay-", true),
            ("pay", false),
            ("log", true),
            ("logs", false),
            ("audit", true),
            ("my-audit", false),
            ("orders", false),
        ] {
            assert_eq!(pattern.matches(name), matches, "{name}");
        }
    }

    #[test]
    fn one_pattern_goes_to_the_coordinator_as_it_is() {
        let pattern = wish(&["^orders-[0-9]+"]).pattern.unwrap();
        assert_eq!(&**pattern.text(), "^orders-[0-9]+");
        assert!(pattern.matches("orders-12") && !pattern.matches("orders-12b"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        let many = format!("^{}", "a".repeat(LONGEST));
        for odd in ["a b", "", "^(", "^a)|(b", "^[z-a]", "^a{1000}{1000}{1000}", &many] {
            let error = Wish::new([odd]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{odd}");
            assert!(error.to_string().len() < 500, "{error}");
        }
    }
}
