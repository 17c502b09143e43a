//! What is measured, what it may be, and what the best of other clients showed in the same
//! experiment (40 clients x 10 records/s in default settings, 60 partitions, three brokers).

/// What a figure may be at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    /// So many times the same figure of who was undisturbed, in the same run.
    TimesSteady(f64),
    /// Shown for the reader alone.
    None,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) limit: Limit,
    /// The best of librdkafka, the Java client, franz-go, confluent-kafka (Rust) and krafka.
    pub(crate) best_peer: Option<f64>,
}

/// The experiments, by the word that names each of their figures, in the order they run.
pub(crate) const EXPERIMENTS: [(&str, &str); 8] = [
    ("steady", "started together, then undisturbed"),
    ("reset", "all connections reset at once"),
    ("unreachable", "one broker unreachable for 30 s and still named leader"),
    ("hole", "one broker black-holed for 30 s and still named leader"),
    ("throttled", "one broker asks for 5 s of silence"),
    ("topics", "1,000 topics, one record each, one client"),
    ("process", "8 producers and a consumer in one process"),
    ("lost", "20 answers lost after the records were written"),
];

const fn figure(
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    limit: Limit,
    best_peer: f64,
) -> Figure {
    Figure { name, about, unit, limit, best_peer: Some(best_peer) }
}

const fn own(name: &'static str, about: &'static str, unit: &'static str, limit: Limit) -> Figure {
    Figure { name, about, unit, limit, best_peer: None }
}

/// All figures.
pub(crate) const FIGURES: &[Figure] = {
    use Limit::{AtMost, None, TimesSteady};
    &[
        figure("start_connects", "connects per client", "", AtMost(3.0), 2.9),
        figure("start_metadata", "Metadata requests per client", "", AtMost(1.0), 1.0),
        figure("start_peak", "most connects within 100 ms, all clients", "", AtMost(22.0), 22.0),
        figure("steady_open", "open connections per client", "", AtMost(3.0), 3.0),
        figure("steady_open_most", "the same, at most", "", AtMost(4.0), 3.0),
        own("steady_ack_p99", "ack p99", "s", None),
        own("reset_dropped", "connections dropped", "", None),
        figure("reset_connects", "connects afterwards", "", AtMost(41.0), 41.0),
        figure("reset_peak", "most connects within 10 ms", "", AtMost(4.0), 4.0),
        figure("reset_ack_p99", "ack p99 of the 2 s after", "s", AtMost(0.13), 0.13),
        own("unreachable_before", "share of records that went to it before", "%", None),
        figure("unreachable_attempts", "dials to it per client", "", AtMost(3.9), 4.0),
        figure("unreachable_metadata", "Metadata requests per client", "", AtMost(2.9), 3.0),
        own("unreachable_steady_ack_p99", "ack p99 before", "s", None),
        figure("unreachable_ack_p99", "ack p99 meanwhile", "s", TimesSteady(2.0), 29.4),
        own("unreachable_over_1s", "share over 1 s", "%", None),
        own("hole_before", "share of records that went to it before", "%", None),
        figure("hole_ack_p99", "ack p99 meanwhile", "s", AtMost(1.0), 28.8),
        figure("hole_over_1s", "share over 1 s", "%", AtMost(1.0), 23.0),
        own("hole_requests", "Produce requests into it per client", "", None),
        own("hole_connects", "connects to it per client", "", None),
        own("hole_metadata", "Metadata requests per client", "", None),
        own("throttled_before", "share of records that went to it before", "%", None),
        figure(
            "throttled_clients",
            "clients that sent on a muted connection",
            "",
            AtMost(0.0),
            0.0,
        ),
        own("throttled_requests", "requests sent on a muted connection", "", AtMost(0.0)),
        figure("throttled_over_1s", "records over 1 s", "", AtMost(0.0), 0.0),
        own("throttled_steady_ack_p99", "ack p99 before", "s", None),
        own("throttled_ack_p99", "ack p99 meanwhile", "s", TimesSteady(2.0)),
        figure("topics_produce", "Produce requests", "", AtMost(6.0), 3.0),
        figure("topics_metadata", "Metadata requests", "", AtMost(2.0), 1.0),
        own("topics_sent", "until the last Produce request", "s", None),
        own("topics_known_ack_p99", "ack p99 of a client that knows them all", "s", None),
        figure("topics_ack_p99", "ack p99", "s", TimesSteady(2.0), 0.13),
        figure("process_open", "open connections, at most", "", AtMost(7.0), 28.0),
        figure("lost_lost", "records lost", "", AtMost(0.0), 0.0),
        figure("lost_duplicated", "records duplicated", "", AtMost(0.0), 0.0),
        figure(
            "lost_out_of_order",
            "records out of order in their partition",
            "",
            AtMost(0.0),
            0.0,
        ),
        own("all_failed", "records failed, whole run", "", AtMost(0.0)),
        own("all_lost", "records lost, whole run", "", AtMost(0.0)),
        own("all_misplaced", "records elsewhere than acknowledged", "", AtMost(0.0)),
        own("all_duplicated", "records duplicated, whole run", "", AtMost(0.0)),
    ]
};

/// The figure by that name.
///
/// # Panics
/// If there is none: names are written in this program alone.
pub(crate) fn named(name: &str) -> &'static Figure {
    let found = FIGURES.iter().find(|figure| figure.name == name);
    found.unwrap_or_else(|| panic!("no figure is named {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_listed_and_what_is_listed_is_measured() {
        // A name that is wrong would show after minutes.
        let sources = [include_str!("experiments.rs"), include_str!("lab.rs")].concat();
        let words = sources.split('"').collect::<Vec<_>>();
        let puts = |pair: &&[&str]| pair[0].ends_with("put(") || pair[0].ends_with("put_beside(");
        let mut measured: Vec<_> = words.windows(2).filter(puts).map(|pair| pair[1]).collect();
        let mut listed: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
        measured.sort_unstable();
        listed.sort_unstable();
        assert_eq!(measured, listed);
    }

    #[test]
    fn every_figure_belongs_to_an_experiment_and_has_a_name_of_its_own() {
        for (i, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES[..i].iter().all(|other| other.name != figure.name), "{}", figure.name);
            let (word, _) = figure.name.split_once('_').unwrap();
            let known = EXPERIMENTS.iter().any(|(name, _)| *name == word);
            assert!(known || ["start", "all"].contains(&word), "{word}");
        }
    }
}
