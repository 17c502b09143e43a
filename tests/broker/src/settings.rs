//! Settings of topics, by the names that Kafka has for them: what can be described and altered.
//!
//! Two of them do something here, `cleanup.policy` and `max.message.bytes`; the others are kept and told.

use std::collections::BTreeMap;

use crate::batch::{Refusal, Rules};
use crate::config::Config;
use crate::error_code as code;

/// What a value is, by the numbers of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// A setting of topics and its default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind) -> Setting {
    Setting { name, default, kind }
}

const POLICY: &str = "cleanup.policy";
const MAX_MESSAGE: &str = "max.message.bytes";
const MIN_INSYNC: &str = "min.insync.replicas";

/// Those of `TopicConfig`, by their names, with Kafka's defaults.
pub(crate) const SETTINGS: [Setting; 26] = [
    setting(POLICY, "delete", Kind::List),
    setting("compression.gzip.level", "-1", Kind::Int),
    setting("compression.lz4.level", "9", Kind::Int),
    setting("compression.type", "producer", Kind::String),
    setting("compression.zstd.level", "3", Kind::Int),
    setting("delete.retention.ms", "86400000", Kind::Long),
    setting("file.delete.delay.ms", "60000", Kind::Long),
    setting("flush.messages", "9223372036854775807", Kind::Long),
    setting("flush.ms", "9223372036854775807", Kind::Long),
    setting("follower.replication.throttled.replicas", "", Kind::List),
    setting("index.interval.bytes", "4096", Kind::Int),
    setting("leader.replication.throttled.replicas", "", Kind::List),
    setting("max.compaction.lag.ms", "9223372036854775807", Kind::Long),
    setting(MAX_MESSAGE, "1048588", Kind::Int),
    setting("message.timestamp.after.max.ms", "3600000", Kind::Long),
    setting("message.timestamp.before.max.ms", "9223372036854775807", Kind::Long),
    setting("message.timestamp.type", "CreateTime", Kind::String),
    setting("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    setting("min.compaction.lag.ms", "0", Kind::Long),
    setting(MIN_INSYNC, "1", Kind::Int),
    setting("preallocate", "false", Kind::Boolean),
    setting("retention.bytes", "-1", Kind::Long),
    setting("retention.ms", "604800000", Kind::Long),
    setting("segment.bytes", "1073741824", Kind::Int),
    setting("segment.ms", "604800000", Kind::Long),
    setting("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// What was set for a topic.
pub(crate) type Overrides = BTreeMap<String, String>;

/// The default of a setting in this cluster.
pub(crate) fn default_of(setting: &Setting, config: &Config) -> String {
    match setting.name {
        MAX_MESSAGE => config.max_message_bytes.to_string(),
        MIN_INSYNC => config.min_insync_replicas.to_string(),
        _ => setting.default.to_owned(),
    }
}

/// One thing to do with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Set(&'a str),
    /// To the default again.
    Delete,
    Append(&'a str),
    Subtract(&'a str),
}

/// Changes what was set, if that can be.
pub(crate) fn change(
    overrides: &mut Overrides,
    config: &Config,
    name: &str,
    change: Change<'_>,
) -> Result<(), Refusal> {
    let known = SETTINGS.iter().find(|setting| setting.name == name);
    let known = known.ok_or_else(|| invalid(format!("Unknown topic config name: {name}")))?;
    let value = match change {
        Change::Set(value) => value.to_owned(),
        Change::Delete => {
            overrides.remove(name);
            return Ok(());
        }
        Change::Append(_) | Change::Subtract(_) if known.kind != Kind::List => {
            return Err(invalid(format!("Can't change the list of {name}: it is none")));
        }
        Change::Append(more) => {
            let before = overrides.get(name).cloned();
            let before = before.unwrap_or_else(|| default_of(known, config));
            let mut list = items(&before);
            items(more).into_iter().for_each(|one| {
                if !list.contains(&one) {
                    list.push(one);
                }
            });
            list.join(",")
        }
        Change::Subtract(less) => {
            let before = overrides.get(name).cloned();
            let before = before.unwrap_or_else(|| default_of(known, config));
            let less = items(less);
            let left: Vec<&str> =
                items(&before).into_iter().filter(|one| !less.contains(one)).collect();
            left.join(",")
        }
    };
    let fits = match known.kind {
        Kind::Boolean => ["true", "false"].contains(&value.as_str()),
        Kind::Int => value.parse::<i32>().is_ok(),
        Kind::Long => value.parse::<i64>().is_ok(),
        Kind::Double => value.parse::<f64>().is_ok_and(f64::is_finite),
        Kind::List => {
            name != POLICY || items(&value).iter().all(|one| ["delete", "compact"].contains(one))
        }
        Kind::String => true,
    };
    if !fits {
        return Err(invalid(format!("Invalid value {value} for configuration {name}")));
    }
    overrides.insert(name.to_owned(), value);
    Ok(())
}

fn items(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|one| !one.is_empty()).collect()
}

fn invalid(words: String) -> Refusal {
    Refusal::new(code::INVALID_CONFIG, words)
}

/// What the settings of a topic make of the rules for its batches.
pub(crate) fn apply(overrides: &Overrides, config: &Config, rules: &mut Rules) {
    let policy = overrides.get(POLICY).map_or("delete", String::as_str);
    rules.compacted = items(policy).contains(&"compact");
    let bytes = overrides.get(MAX_MESSAGE).and_then(|bytes| bytes.parse().ok());
    rules.max_message_bytes = bytes.unwrap_or(config.max_message_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_in_the_order_of_their_names() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
    }

    #[test]
    fn what_fits_is_set_and_nothing_else() {
        let config = Config::default();
        let mut overrides = Overrides::new();
        for (name, what, value) in [
            (POLICY, Change::Set("compact"), Some("compact")),
            (POLICY, Change::Append("delete,compact"), Some("compact,delete")),
            (POLICY, Change::Subtract("compact"), Some("delete")),
            (POLICY, Change::Append("shred"), None),
            (POLICY, Change::Delete, Some("")),
            (POLICY, Change::Append("compact"), Some("delete,compact")),
            (MAX_MESSAGE, Change::Set("77"), Some("77")),
            (MAX_MESSAGE, Change::Set("many"), None),
            (MAX_MESSAGE, Change::Append("1"), None),
            ("preallocate", Change::Set("yes"), None),
            ("preallocate", Change::Set("true"), Some("true")),
            ("retention.ms", Change::Set("-1"), Some("-1")),
            ("min.cleanable.dirty.ratio", Change::Set("0.1"), Some("0.1")),
            ("min.cleanable.dirty.ratio", Change::Set("NaN"), None),
            ("no.such.setting", Change::Set("1"), None),
            ("no.such.setting", Change::Delete, None),
        ] {
            let before = overrides.clone();
            let done = change(&mut overrides, &config, name, what);
            assert_eq!(done.is_ok(), value.is_some(), "{name} {what:?}: {done:?}");
            match value {
                Some(value) => {
                    assert_eq!(overrides.get(name).map_or("", |value| value), value, "{what:?}");
                }
                None => assert_eq!(overrides, before, "{name} {what:?}"),
            }
        }
        let mut rules = config.rules();
        apply(&overrides, &config, &mut rules);
        assert_eq!((rules.max_message_bytes, rules.compacted), (77, true));
        apply(&Overrides::new(), &config, &mut rules);
        assert_eq!((rules.max_message_bytes, rules.compacted), (config.max_message_bytes, false));
    }
}
