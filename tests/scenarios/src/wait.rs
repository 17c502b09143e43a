//! Waiting in tests: for a condition, never for a time.

use std::time::Duration;

/// Longer than anything takes on a busy machine; what ends a test that would hang.
pub const SOON: Duration = Duration::from_secs(60);

/// The output of a future that must be ready before [`SOON`].
///
/// # Panics
/// With `what` if it is not.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing within {SOON:?}"),
    }
}

/// Waits until a condition holds, looking again every millisecond.
///
/// # Panics
/// With `what` if it does not hold before [`SOON`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
