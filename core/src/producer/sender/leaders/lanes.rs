//! The produce lanes of a sender: when one more is wanted, and how they are opened and proved.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::Leaders;
use crate::cluster::Lane;
use crate::net::Connection;
use crate::policy::reconnect::DialUrgency;
use crate::producer::sender::tasks::Tasks;

/// When this many bytes (about a batch) were sent since the last lane was opened, one more lane is opened.
/// A client that sends a record a second stays with one broker for an hour; one that sends much has opened
/// all lanes of its subset after a few batches.
pub(super) const BYTES_PER_LANE: usize = 256 << 10;

/// With a single lane, a second one is opened after a number of seconds that is drawn from this range. So
/// the loss of the first makes no record wait, and a fleet that lost a broker does not dial in the same
/// second. A process that lives shorter never opens it.
const SPARE_AT_START: std::ops::Range<f64> = 1.0..10.0;
const SPARE_AFTER_LOSS: std::ops::Range<f64> = 5.0..60.0;

/// With several lanes, another one is opened after a number of seconds drawn from this range, so that a
/// broker that came back has work before the subset rotates.
const ROTATE_AFTER: std::ops::Range<f64> = 600.0..1_200.0;

impl Leaders {
    /// Whether one more lane is wanted: because much is sent on few lanes, because there is only one, or because it is
    /// time to use others. Lanes that are not used meanwhile close by their idle timeout.
    pub(crate) fn wants_more(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        if self.since_opened >= BYTES_PER_LANE {
            return true;
        }
        if self.lanes == 0 {
            return false;
        }
        // Drawn over minutes, so that a fleet does not dial together.
        let at = *self.spare_at.get_or_insert_with(|| {
            let seconds = match (self.lanes, self.lost_one) {
                (1, false) => SPARE_AT_START,
                (1, true) => SPARE_AFTER_LOSS,
                _ => ROTATE_AFTER,
            };
            now + Duration::from_secs_f64(rng.random_range(seconds))
        });
        at <= now
    }

    /// A lane is being opened.
    pub(crate) fn opening(&mut self) {
        self.since_opened = 0;
        self.spare_at = None;
    }

    /// Opens the produce lane to a broker, unless it is open or being opened: with the control lane's
    /// connection if that is idle, otherwise by a dial.
    pub(crate) fn dial(&mut self, id: i32, urgency: DialUrgency, now: Instant, tasks: &Tasks) {
        let Some(leader) = self.all.get_mut(&id) else { return };
        if leader.dialing.is_some() || leader.lane().is_some() {
            return;
        }
        if let Some(connection) = leader.broker.open(Lane::Produce) {
            leader.connection = Some(connection);
            // The round has passed this leader already. The next one finds the connection.
            tasks.run_again();
            return;
        }
        leader.dialing = Some(now);
        if leader.broker.is_unreachable() {
            leader.broker.metrics.probe();
        }
        self.opening();
        tasks.open_lane(id, urgency);
    }

    /// If a leader's connection was quiet for long: asks it for a sign of life, before records are trusted to it, and gives
    /// `true`.
    pub(crate) fn prove(&mut self, id: i32, now: Instant, tasks: &Tasks) -> bool {
        let Some(leader) = self.all.get_mut(&id).filter(|leader| leader.is_quiet(now)) else {
            return false;
        };
        leader.prove(now);
        tasks.open_lane(id, DialUrgency::Needed);
        true
    }

    /// The lane is open.
    pub(crate) fn connected(&mut self, id: i32, connection: Connection) {
        let used = self.is_used(id);
        if let Some(leader) = self.all.get_mut(&id) {
            if used && !leader.proving {
                self.left.succeeded();
            }
            leader.connected(connection);
        }
    }

    /// The lane could not be opened.
    pub(crate) fn dial_failed(&mut self, id: i32) {
        if let Some(leader) = self.all.get_mut(&id) {
            leader.dial_ended();
        }
    }

    /// Whether a suspect batch can go to this leader now; see [`Leader::takes_alone`](super::Leader::takes_alone).
    pub(crate) fn takes_alone(&mut self, id: i32) -> bool {
        self.all.get_mut(&id).is_some_and(|leader| leader.takes_alone())
    }
}
