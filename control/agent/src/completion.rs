//! Work that is finished whatever becomes of who asked for it: an API client that hangs up must not leave
//! a namespace or a membership half made.

use std::panic::resume_unwind;

/// Runs `work` to its end, also if the returned future is dropped.
pub(crate) async fn to_completion<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(work).await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
}

/// Runs `work` on a thread that may block.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_ends_though_nobody_waits_for_it() {
        let (begin, begun) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let waiting = to_completion(async move {
            begun.await.unwrap();
            end.send(()).unwrap();
        });
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, waiting).await;
        assert!(waiting.is_err(), "given up");
        begin.send(()).unwrap();
        ended.await.unwrap();
    }
}
