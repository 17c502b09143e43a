//! What every experiment needs: the cluster, a fleet that has settled, and a place for what was
//! found.

use std::time::{Duration, Instant};

use ottla::NewTopic;
use ottla_relay::load::{Load, Outcome, check, latencies, quantile, read_back};
use ottla_relay::{Log, Relay, RelayedCluster};

use crate::fleet::{Fleet, Library};
use crate::report::Found;

/// Partitions of the topic that the fleet writes to.
const PARTITIONS: i32 = 60;

/// Of each client.
const PACE: Duration = Duration::from_millis(100);

/// Records every client has acknowledged before it counts as started.
const SETTLED: usize = 20;

/// How long the undisturbed state is looked at, and then left alone: a record that is on its way
/// when the disturbance begins is no part of it.
const STEADY: Duration = Duration::from_secs(5);
const APART: Duration = Duration::from_secs(2);

pub(crate) struct Lab {
    pub(crate) cluster: RelayedCluster,
    pub(crate) library: Library,
    pub(crate) count: usize,
    pub(crate) found: Found,
    outcomes: Vec<Outcome>,
}

/// A fleet under load.
pub(crate) struct Run {
    pub(crate) fleet: Fleet,
    pub(crate) born: Instant,
    /// The undisturbed seconds.
    pub(crate) steady: (Instant, Instant),
    load: Load,
}

impl Lab {
    pub(crate) async fn new(
        cluster: RelayedCluster,
        library: Library,
        count: usize,
    ) -> Result<Self, String> {
        let mut lab =
            Self { cluster, library, count, found: Found::default(), outcomes: Vec::new() };
        let client = ottla::Client::connect(lab.around()).await.map_err(|e| e.to_string())?;
        let topic = NewTopic::new(lab.topic(), PARTITIONS, 3);
        client.admin().create_topic(topic).await.map_err(|e| e.to_string())?;
        lab.cluster.cluster.wait_in_sync(&[&lab.topic()]).map_err(|e| e.to_string())?;
        // Brokers that have just started are slow, and clients would be judged by it.
        let run = lab.run("warm").await?;
        lab.end(run).await;
        Ok(lab)
    }

    pub(crate) fn relay(&self) -> &Relay {
        &self.cluster.relay
    }

    /// Bootstrap addresses that do not lead through the relay.
    pub(crate) fn around(&self) -> &str {
        self.cluster.cluster.bootstrap()
    }

    pub(crate) fn topic(&self) -> String {
        format!("behaviour-{}", self.library.name())
    }

    /// Starts clients and load, and waits until both have settled and the undisturbed seconds are
    /// over.
    pub(crate) async fn run(&self, name: &str) -> Result<Run, String> {
        let born = Instant::now();
        let bootstrap = self.relay().bootstrap();
        let prefix = format!("{name}-{}-", self.library.name());
        let fleet = Fleet::start(self.library, &bootstrap, &prefix, self.count).await?;
        let load = Load::start(&fleet.clients, name, &self.topic(), PACE);
        load.reached(SETTLED).await;
        let settled = Instant::now();
        tokio::time::sleep(STEADY + APART).await;
        Ok(Run { fleet, born, steady: (settled, settled + STEADY), load })
    }

    /// Waits for the fate of all records and ends the clients.
    pub(crate) async fn end(&mut self, run: Run) -> Vec<Outcome> {
        let Run { fleet, load, .. } = run;
        let outcomes = load.stop().await;
        // Dropping the clients of another library may block.
        let _ = tokio::task::spawn_blocking(move || drop(fleet)).await;
        self.outcomes.extend(outcomes.iter().cloned());
        outcomes
    }

    pub(crate) fn log(&self, from: Instant, to: Instant) -> Log {
        self.relay().log().between(from, to)
    }

    /// How much of what was sent in a stretch of time a broker acknowledged, in per cent: what there
    /// was to lose. Nothing that this program does moves a leader.
    pub(crate) fn share_of(
        &self,
        broker: u32,
        outcomes: &[Outcome],
        (from, to): (Instant, Instant),
    ) -> Result<f64, String> {
        let words = |e| format!("asking who leads {}: {e}", self.topic());
        let leaders = self.cluster.cluster.partitions(&self.topic()).map_err(words)?;
        let led = |partition| {
            let found = leaders.iter().find(|p| p.index == partition);
            found.is_some_and(|p| u32::try_from(p.leader) == Ok(broker))
        };
        let sent: Vec<_> = outcomes.iter().filter(|o| o.sent >= from && o.sent < to).collect();
        let there = sent.iter().filter(|o| o.fate.as_ref().is_ok_and(|at| led(at.partition)));
        Ok(100.0 * there.count() as f64 / sent.len() as f64)
    }

    /// Compares everything the experiments sent with what the topic holds.
    pub(crate) async fn compare(&mut self) -> Result<(), String> {
        let rows = read_back(self.around(), &self.topic()).await?;
        let lost: Vec<_> =
            self.outcomes.iter().filter(|o| o.value.starts_with("lost/")).cloned().collect();
        if !lost.is_empty() {
            let verdict = check(&lost, &rows);
            self.found.put("lost_lost", verdict.lost as f64);
            self.found.put("lost_duplicated", verdict.duplicated as f64);
            self.found.put("lost_out_of_order", verdict.out_of_order as f64);
        }
        let verdict = check(&self.outcomes, &rows);
        eprintln!("{}: {verdict:?}", self.library.name());
        self.found.put("all_failed", verdict.failed as f64);
        self.found.put("all_lost", verdict.lost as f64);
        self.found.put("all_misplaced", verdict.misplaced as f64);
        self.found.put("all_duplicated", verdict.duplicated as f64);
        if let Some(failed) = self.outcomes.iter().find_map(|o| o.fate.as_ref().err()) {
            eprintln!("{}: the first failure: {failed}", self.library.name());
        }
        Ok(())
    }
}

/// Seconds that 99 of 100 records sent in a stretch of time did not exceed.
pub(crate) fn p99(outcomes: &[Outcome], (from, to): (Instant, Instant)) -> f64 {
    quantile(latencies(outcomes, from, to), 0.99).as_secs_f64()
}

/// How many records sent in a stretch of time took longer than a second, and how many there were.
pub(crate) fn over_1s(outcomes: &[Outcome], (from, to): (Instant, Instant)) -> (usize, usize) {
    let all = latencies(outcomes, from, to);
    (all.iter().filter(|latency| **latency > Duration::from_secs(1)).count(), all.len())
}
