//! Another cluster than the one that was read: offsets of the old one say nothing there.

use uuid::Uuid;

use super::Fetcher;

impl Fetcher {
    /// Looks whether there is another cluster. `false`: this consumer does not go on with it, and the
    /// application is told why.
    pub(super) fn goes_on(&mut self) -> bool {
        if let Err(error) = self.pool.check() {
            self.buffer.end(error);
            return false;
        }
        let incarnation = self.pool.identity().incarnation();
        if std::mem::replace(&mut self.incarnation, incarnation) == incarnation {
            return true;
        }
        let generations = self.buffer.begin_anew();
        // Nor are these the topics that were there.
        for topic in self.topics.values_mut() {
            topic.id = Uuid::nil();
            topic.was.clear();
            topic.behind = None;
        }
        for (key, reading) in &mut self.reading {
            reading.id = Uuid::nil();
            reading.generation = generations.get(key).copied().unwrap_or(reading.generation);
            reading.begin_again();
            reading.recovered();
        }
        true
    }
}
