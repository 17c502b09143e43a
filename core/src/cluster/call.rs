//! Short calls that any broker can answer. They go to a broker that is connected, and if it is silent to a
//! second one as well. Such calls are tried again here and nowhere else.

use std::sync::Arc;

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::protocol::Request;
use tokio::time::Instant;

use super::budgets::BudgetKind;
use super::pool::Pool;
use crate::config::Caller;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{CallError, Connection};
use crate::policy::retry_budget::Cost;
use crate::protocol::Throttle;

/// How many brokers are asked in one call. After that its error is given to the caller, who paces further calls.
const ASKED: usize = 3;

impl Pool {
    /// A call that may be made twice without harm. A broker that is silent for long is joined by a
    /// second one, and the first response wins; one that is lost is replaced. So is one whose response
    /// cannot be read, or that `check` finds an error in: what one broker says condemns nothing but
    /// itself. An error that trying again will not help comes back only if every broker that was asked
    /// gave one. `hedged` hears of each further broker that is asked. Gives the response and whose it is.
    pub(crate) async fn call_anybody<R>(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        request: &R,
        versions: (i16, i16),
        not: Option<i32>,
        check: impl Fn(i32, &Connection, &R::Response) -> Result<()> + Sync,
        hedged: impl Fn(i32),
    ) -> Result<(i32, R::Response)>
    where
        R: Request + Sync,
        R::Response: Throttle + Send,
    {
        let mut not = Vec::from_iter(not);
        let mut errors: Vec<Error> = Vec::new();
        // Metadata itself finds out which cluster answers.
        let vouched = R::KEY != MetadataRequest::KEY;
        let call = Call { caller, request, versions, vouched, check: &check };
        loop {
            let (id, connection) = match self.control_but(&not).await {
                Ok(found) => found,
                // What a broker that was reached has said counts more than that others are not to be had.
                Err(e) => {
                    errors.push(e);
                    return Err(verdict(errors));
                }
            };
            if errors.is_empty() {
                self.budgets().first_request(BudgetKind::Fetch, self.env().now());
            } else {
                hedged(id);
            }
            let connection = connection.on_behalf_of(caller);
            match self.call_hedged(&call, id, &connection, !errors.is_empty(), &hedged).await {
                Ok(found) => return Ok(found),
                Err(CallError::Unsent(e) | CallError::InDoubt(e)) => {
                    errors.push(e);
                    if errors.len() >= ASKED {
                        return Err(verdict(errors));
                    }
                    self.pay().await;
                    not.push(id);
                }
            }
        }
    }

    /// Waits until the budget allows one more lookup.
    pub(crate) async fn pay(&self) {
        let mut told = false;
        while let Err(at) =
            self.budgets().retry(BudgetKind::Fetch, Cost::Definite, self.env().now())
        {
            if !std::mem::replace(&mut told, true) {
                self.budgets().delayed(BudgetKind::Fetch);
            }
            self.env().sleep_until(at).await;
        }
    }

    async fn call_hedged<R, C>(
        self: &Arc<Self>,
        call: &Call<'_, R, C>,
        id: i32,
        connection: &Connection,
        retry: bool,
        hedged: &impl Fn(i32),
    ) -> Result<(i32, R::Response), CallError>
    where
        R: Request + Sync,
        R::Response: Throttle + Send,
        C: Fn(i32, &Connection, &R::Response) -> Result<()> + Sync,
    {
        let since = self.env().now();
        let first = self.call_one(call, id, connection, retry, since);
        tokio::pin!(first);
        let patience = self.call_patience();
        tokio::select! {
            biased;
            response = &mut first => return response.map(|a| (id, a)),
            () = self.env().sleep(patience) => {}
        }
        // A dial to the second broker must not delay the response of the first.
        let second = async {
            let asked = connection.id();
            let (id, connection) = self.control_but(&[id]).await.map_err(CallError::Unsent)?;
            if connection.id() == asked {
                let words = format!("{}: there is nobody else to ask", connection.name());
                return Err(CallError::Unsent(Error::new(ErrorKind::Connect, words)));
            }
            self.pay().await;
            hedged(id);
            let since = self.env().now();
            let connection = connection.on_behalf_of(call.caller);
            Ok((id, self.call_one(call, id, &connection, true, since).await?))
        };
        tokio::pin!(second);
        tokio::select! {
            biased;
            response = &mut first => match response {
                Ok(response) => Ok((id, response)),
                Err(_) => second.await,
            },
            response = &mut second => match response {
                Ok(found) => Ok(found),
                Err(_) => first.await.map(|a| (id, a)),
            },
        }
    }

    async fn call_one<R, C>(
        self: &Arc<Self>,
        call: &Call<'_, R, C>,
        id: i32,
        connection: &Connection,
        retry: bool,
        since: Instant,
    ) -> Result<R::Response, CallError>
    where
        R: Request,
        R::Response: Throttle,
        C: Fn(i32, &Connection, &R::Response) -> Result<()>,
    {
        if call.vouched {
            self.vouch(id, connection).await.map_err(CallError::Unsent)?;
        }
        let response = connection.call(call.request, call.versions, retry).await?;
        self.called(connection.at_work_since(since));
        (call.check)(id, connection, &response).map_err(CallError::InDoubt)?;
        Ok(response)
    }
}

/// A call that any broker can answer, and the check of its response.
struct Call<'a, R, C> {
    caller: &'a Arc<Caller>,
    request: &'a R,
    versions: (i16, i16),
    /// It goes only over connections that are known to lead to the right cluster.
    vouched: bool,
    check: &'a C,
}

/// One error for the errors of several brokers. It is one that trying again will not help only if all of them
/// are.
fn verdict(mut errors: Vec<Error>) -> Error {
    let passing = errors.iter().position(|e| !e.is_final());
    // What brokers of another cluster cannot do does not matter.
    let changed = || errors.iter().position(|e| e.kind() == ErrorKind::ClusterChanged);
    let which = passing.or_else(changed).unwrap_or(0);
    errors.swap_remove(which)
}

#[cfg(test)]
mod tests;
