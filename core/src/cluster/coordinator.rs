//! Who coordinates a group: any broker tells (FindCoordinator). The answer is as good as a leader in metadata: what it
//! names may have lost the group by the time that it is asked, and says so then.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Handle;
use crate::config::Endpoint;
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result};
use crate::metrics::Api;
use crate::net::Connection;

/// Versions of FindCoordinator: those that have a list of keys.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<FindCoordinatorRequest>(4, 6);

/// The key is a group's id.
const GROUP: i8 = 0;

impl Handle {
    /// The id of the broker that coordinates a group. It is part of the cluster for the pool from then on.
    ///
    /// # Errors
    /// Those of any call; COORDINATOR_NOT_AVAILABLE (retriable) while there is none; `Authorization`.
    pub(crate) async fn find_coordinator(&self, group: &str) -> Result<i32> {
        let request = FindCoordinatorRequest::default()
            .with_key_type(GROUP)
            .with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())]);
        let check = |id: i32, connection: &Connection, response: &_| {
            let found = found(response, group, connection.name())?;
            if found.error_code == NONE {
                return place(found, connection.name()).map(drop);
            }
            self.metrics().broker(id).error_response(Api::FindCoordinator);
            let what = format!("{}: the coordinator of group '{group}'", connection.name());
            Err(Error::broker(found.error_code, what, found.error_message.as_deref()))
        };
        let asked = self.call_anybody(self.caller(), &request, VERSIONS, None, check, |_| {}).await;
        let (by, response) = asked?;
        let by = format!("broker {by}");
        let found = found(&response, group, &by)?;
        let (id, endpoint) = place(found, &by)?;
        if self.broker(id).is_none() {
            self.metadata().place(id, &endpoint, |all, named| self.brokers_changed(all, named));
        }
        Ok(id)
    }
}

fn found<'a>(
    response: &'a FindCoordinatorResponse,
    group: &str,
    by: &str,
) -> Result<&'a Coordinator> {
    let found = response.coordinators.iter().find(|found| *found.key == *group);
    found.ok_or_else(|| not_told(by))
}

fn place(found: &Coordinator, by: &str) -> Result<(i32, Endpoint)> {
    let endpoint = Endpoint::of_broker(&found.host, found.port).ok_or_else(|| not_told(by))?;
    if found.node_id.0 < 0 { Err(not_told(by)) } else { Ok((found.node_id.0, endpoint)) }
}

fn not_told(by: &str) -> Error {
    let words = format!("{by}: the response names no coordinator, and no error");
    Error::new(ErrorKind::NotKafka, words).advise(NOT_THE_PROTOCOL)
}
