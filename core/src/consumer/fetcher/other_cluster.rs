//! Another cluster answers than the one that was read: offsets of the old one mean nothing there.

use uuid::Uuid;

use super::Fetcher;
use crate::consumer::reading::Source;

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
        let renewed = self.buffer.begin_anew();
        // Topics with the same names are other topics there.
        for topic in self.topics.values_mut() {
            topic.id = Uuid::nil();
            topic.was.clear();
            topic.behind = None;
            topic.told = None;
            topic.missing.clear();
            topic.rights.ended();
        }
        // Brokers with the same ids are other brokers: what is known of the old ones is forgotten.
        for source in self.sources.values_mut() {
            let Source { in_flight, asked, wanted, starting, checking, .. } =
                std::mem::take(source);
            *source = Source { in_flight, asked, wanted, starting, checking, ..Source::default() };
        }
        for (slot, incarnation) in renewed {
            // One that is assigned at this moment begins under the incarnation that it has then.
            let Some(reading) = self.reading.get_mut(slot) else { continue };
            reading.id = Uuid::nil();
            reading.incarnation = incarnation;
            reading.begin_again();
            reading.recovered();
            self.begun(slot);
        }
        true
    }
}
