//! Short calls that any broker can answer: to one that is connected, and if it is silent to a second
//! one as well. The one way in which such a call is tried again.

use std::sync::Arc;

use kafka_protocol::protocol::Request;
use tokio::time::Instant;

use super::budgets::Purse;
use super::pool::Pool;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{CallError, Connection};
use crate::policy::retry_budget::Cost;
use crate::protocol::Throttle;

/// Brokers asked in one call before its error is told: whoever called has a pace of its own.
const ASKED: usize = 3;

impl Pool {
    /// A call that may be made twice without harm. A broker that is silent for long is joined by a
    /// second one, and the first answer wins; one that is lost is replaced. `hedged` hears of each
    /// further broker that is asked. Gives the answer and whose it is.
    pub(crate) async fn call_anybody<R>(
        self: &Arc<Self>,
        request: &R,
        versions: (i16, i16),
        not: Option<i32>,
        hedged: impl Fn(i32),
    ) -> Result<(i32, R::Response)>
    where
        R: Request + Sync,
        R::Response: Throttle + Send,
    {
        let mut not = not;
        let mut asked = 0;
        loop {
            let (id, connection) = self.control(not).await?;
            asked += 1;
            if asked == 1 {
                self.budgets().first_request(Purse::Fetch, self.env().now());
            } else {
                hedged(id);
            }
            match self.call_hedged(request, versions, id, &connection, asked > 1, &hedged).await {
                Ok(found) => return Ok(found),
                Err(CallError::Unsent(e) | CallError::InDoubt(e)) => {
                    if asked >= ASKED || !e.is_retriable() {
                        return Err(e);
                    }
                    self.pay().await;
                    not = Some(id);
                }
            }
        }
    }

    /// Waits until the budget allows one more lookup.
    async fn pay(&self) {
        let mut told = false;
        while let Err(at) = self.budgets().retry(Purse::Fetch, Cost::Definite, self.env().now()) {
            if !std::mem::replace(&mut told, true) {
                self.budgets().delayed(Purse::Fetch);
            }
            self.env().sleep_until(at).await;
        }
    }

    async fn call_hedged<R>(
        self: &Arc<Self>,
        request: &R,
        versions: (i16, i16),
        id: i32,
        connection: &Connection,
        retry: bool,
        hedged: &impl Fn(i32),
    ) -> Result<(i32, R::Response), CallError>
    where
        R: Request + Sync,
        R::Response: Throttle + Send,
    {
        let since = self.env().now();
        let first = self.call_one(request, versions, connection, retry, since);
        tokio::pin!(first);
        let patience = self.call_patience();
        tokio::select! {
            biased;
            answer = &mut first => return answer.map(|a| (id, a)),
            () = self.env().sleep(patience) => {}
        }
        // A dial for the second one must not hold up the first one's answer.
        let second = async {
            let asked = connection.id();
            let (id, connection) = self.control(Some(id)).await.map_err(CallError::Unsent)?;
            if connection.id() == asked {
                let words = format!("{}: there is nobody else to ask", connection.name());
                return Err(CallError::Unsent(Error::new(ErrorKind::Connect, words)));
            }
            self.pay().await;
            hedged(id);
            let since = self.env().now();
            Ok((id, self.call_one(request, versions, &connection, true, since).await?))
        };
        tokio::pin!(second);
        tokio::select! {
            biased;
            answer = &mut first => match answer {
                Ok(answer) => Ok((id, answer)),
                Err(_) => second.await,
            },
            answer = &mut second => match answer {
                Ok(found) => Ok(found),
                Err(_) => first.await.map(|a| (id, a)),
            },
        }
    }

    async fn call_one<R>(
        &self,
        request: &R,
        versions: (i16, i16),
        connection: &Connection,
        retry: bool,
        since: Instant,
    ) -> Result<R::Response, CallError>
    where
        R: Request,
        R::Response: Throttle,
    {
        let answer = connection.call(request, versions, retry).await?;
        self.called(since);
        Ok(answer)
    }
}
