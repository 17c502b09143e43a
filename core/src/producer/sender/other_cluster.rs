//! What the sender does when another cluster answers at the same addresses. Producer ids, sequences and
//! partitions of the old cluster mean nothing there: a batch that is sent with them may be taken for a
//! duplicate of somebody else's, and be acknowledged without being written.

use crate::error::Error;

use super::Sender;
use super::leaders::Leaders;
use super::producer_id::ProducerIdState;

impl Sender {
    /// Looks whether the cluster is another one now. `false`: this client does not go on with it, and every
    /// batch it had to send has failed.
    pub(in crate::producer) fn goes_on(&mut self) -> bool {
        let Some(pool) = self.tasks.pool() else { return true };
        let incarnation = pool.identity().incarnation();
        if incarnation == self.settings.born && incarnation == self.incarnation {
            return true;
        }
        if let Err(error) = self.settings.check(&pool) {
            self.fail_where(|_| true, &error);
            return false;
        }
        if incarnation != self.incarnation {
            self.incarnation = incarnation;
            self.begin_anew(&pool.identity().changed());
            self.leaders.learn(&pool);
        }
        true
    }

    /// Forgets what belongs to the old cluster. Batches that it may have written fail; those that were never sent
    /// go to the new cluster.
    fn begin_anew(&mut self, error: &Error) {
        let now = self.env.now();
        self.id_state = ProducerIdState::new(self.acks);
        self.leaders = Leaders::new(now, self.leaders.chooser().clone());
        // Responses to these requests would name batches that are resolved, or that get other sequences.
        self.in_flight.clear();
        self.topics.change_all(|topic| topic.begin_anew(error));
    }
}
