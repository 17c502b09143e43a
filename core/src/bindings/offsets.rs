//! Offsets that a binding looks up: many in one call, each with a result of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::completion::{CompletionKind, Reply};
use super::handle::{Backend, HostClient};
use crate::admin::OffsetSpec;
use crate::error::{Error, ErrorKind, Result};

/// An offset to look up: topic, partition, and which.
pub type WantedOffset = (String, i32, OffsetSpec);

/// The results of a lookup in the order in which they were asked for; none until it is done. Cheap to clone; clones are
/// the same lookup.
#[derive(Clone, Debug, Default)]
pub struct Offsets(Arc<OnceLock<Vec<Result<i64>>>>);

impl Offsets {
    /// How many results there are: as many as were asked for, 0 until the lookup is done.
    pub fn len(&self) -> usize {
        self.0.get().map_or(0, Vec::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Result number `i`.
    pub fn get(&self, i: usize) -> Result<i64> {
        match self.0.get() {
            None => Err(Error::argument("the lookup is not done yet; wait for its completion")),
            Some(found) => match found.get(i) {
                None => Err(Error::argument(format!("offset {i} of a lookup of {}", found.len()))),
                Some(found) => found.clone(),
            },
        }
    }
}

impl HostClient {
    /// Looks up offsets; ends in an `OffsetsListed` completion, whatever comes of it. The completion has an error only if
    /// nobody could be asked: else each offset has a result of its own.
    pub fn list_offsets(&self, tag: u64, wanted: Vec<WantedOffset>) -> Offsets {
        let reply = Reply::queue(&self.0.queue, tag, CompletionKind::OffsetsListed);
        self.list_offsets_to(reply, wanted)
    }

    /// The same for a thread that waits, for `timeout` at most (`None`: the request's own).
    pub fn list_offsets_wait(
        &self,
        wanted: Vec<WantedOffset>,
        timeout: Option<Duration>,
    ) -> Result<Offsets> {
        let (reply, waiter) = Reply::waiter();
        let offsets = self.list_offsets_to(reply, wanted);
        match waiter.wait("list_offsets", timeout) {
            Ok(()) => Ok(offsets),
            Err(error) => Err(match self.backend() {
                Ok(Backend::Client(client)) if error.kind() == ErrorKind::Timeout => {
                    client.explain(error)
                }
                _ => error,
            }),
        }
    }

    fn list_offsets_to(&self, reply: Reply, wanted: Vec<WantedOffset>) -> Offsets {
        let offsets = Offsets::default();
        match self.backend() {
            Err(error) => reply.resolve(Err(error)),
            Ok(Backend::Echo(echo)) => {
                let found =
                    wanted.iter().map(|(topic, part, spec)| echo.offset(topic, *part, *spec));
                let _ = offsets.0.set(found.collect());
                reply.resolve(Ok(()));
            }
            Ok(Backend::Client(client)) => {
                let (admin, told) = (client.admin(), offsets.clone());
                let work = async move {
                    let found = admin.list_offsets(wanted).await?;
                    let _ = told.0.set(found.into_iter().map(|(_, found)| found).collect());
                    Ok(())
                };
                self.0.operations.start(&self.0.env, reply, work);
            }
        }
        offsets
    }
}
