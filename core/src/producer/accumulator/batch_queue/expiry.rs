//! How batches leave a queue without being sent: because their delivery timeout has passed, because the close
//! of their producer may wait no longer, or because the sender has ended for good.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Accumulator, BatchAttempts, BatchQueue, BatchQueueInner, Full};
use crate::error::Error;
use crate::producer::batch::Batch;
use crate::record::Compression;

impl BatchQueue {
    /// The earliest delivery deadline of the batches here. It is not always that of the batch at the front:
    /// records that waited for their partition are older than the batches before them.
    pub(crate) fn first_deadline(&self, accumulator: &Accumulator) -> Option<Instant> {
        let inner = self.lock();
        let sealed = inner.full.iter().filter_map(Full::deadline);
        sealed.chain(inner.open_deadline(accumulator)).min()
    }

    /// Takes the batches whose delivery deadline has passed. One that is being compressed is not among them: it
    /// announces itself when that is done.
    pub(in crate::producer) fn take_expired(
        &self,
        accumulator: &Arc<Accumulator>,
        now: Instant,
    ) -> Vec<Batch> {
        let mut inner = self.lock();
        let late = |at: Instant| at <= now;
        let mut gone = Vec::new();
        for full in std::mem::take(&mut inner.full) {
            match full {
                Full::Sealed(batch) if late(batch.deadline) => gone.push(*batch),
                stays => inner.full.push_back(stays),
            }
        }
        let open = match inner.open_deadline(accumulator) {
            Some(at) if late(at) => inner.close(),
            _ => None,
        };
        drop(inner);
        if let Some(mut open) = open {
            // Nobody will send it.
            open.compression = Compression::None;
            gone.extend(open.seal(self.partition, BatchAttempts::default()));
        }
        gone
    }

    /// Fails every batch here. One that is being compressed fails when that is done.
    pub(in crate::producer) fn fail(&self, error: &Error) {
        let mut inner = self.lock();
        let open = inner.close();
        let (mut sealed, mut sealing) = (Vec::new(), VecDeque::new());
        for full in inner.full.drain(..) {
            match full {
                Full::Sealed(batch) => sealed.push(batch),
                Full::Sealing(number) => sealing.push_back(Full::Ended(number, error.clone())),
                ended @ Full::Ended(..) => sealing.push_back(ended),
            }
        }
        inner.full = sealing;
        drop(inner);
        for batch in sealed {
            batch.resolve(Err(error.clone()));
        }
        if let Some(mut open) = open {
            open.ledger.resolve(&Err(error.clone()));
        }
    }

    /// Drops every batch here, which resolves it: nobody is left to send it.
    pub(in crate::producer) fn clear(&self) {
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }
}

impl Full {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Sealed(batch) => Some(batch.deadline),
            Self::Sealing(_) | Self::Ended(..) => None,
        }
    }
}

impl BatchQueueInner {
    /// The delivery deadline of the open batch, if it has records.
    fn open_deadline(&self, accumulator: &Accumulator) -> Option<Instant> {
        let open = self.open.as_ref().filter(|open| open.builder.len_records() > 0)?;
        Some(open.opened + accumulator.config.delivery_timeout)
    }
}
