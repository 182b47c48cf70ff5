//! Calls with many answers.

use std::future::Future;

use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status};

use crate::api::admin::CALL_TIME_MAX;
use crate::api::{ResponseStream, status};
use crate::listener::Connection;

/// Answers that wait for the caller to read them.
const ANSWERS_WAITING_MAX: usize = 16;

/// Where a call's work puts its answers. Sending fails when the caller has gone.
pub(super) type Answers<T> = mpsc::Sender<Result<T, Status>>;

/// The token that is cancelled when streams of the request's connection are to end.
pub(super) fn draining_of<T>(request: &Request<T>) -> CancellationToken {
    request.extensions().get::<Connection>().map(|connection| connection.draining.clone()).unwrap_or_default()
}

pub(super) fn too_long() -> Status {
    Status::deadline_exceeded(format!("a call takes at most {} s: call again", CALL_TIME_MAX.as_secs()))
}

/// Runs `work` as a task of its own, and streams what it sends; an error of its own comes last. The task ends when the
/// caller goes away, the time is over, or the connection drains; `place` is free again when it has ended.
pub(super) fn answers<T, F, W>(
    place: OwnedSemaphorePermit,
    draining: CancellationToken,
    work: impl FnOnce(Answers<T>) -> W,
) -> ResponseStream<T>
where
    T: Send + 'static,
    W: Future<Output = Result<F, Status>> + Send + 'static,
    F: Send,
{
    let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
    let work = work(sender.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let result = tokio::select! {
            result = work => result.map(drop),
            () = tokio::time::sleep(CALL_TIME_MAX) => Err(too_long()),
            () = draining.cancelled() => Err(status::draining()),
        };
        drop(place);
        if let Err(status) = result {
            // The caller may have gone.
            sender.send(Err(status)).await.ok();
        }
    }));
    Box::pin(ReceiverStream::new(receiver).map(move |answer| {
        // Dropping the stream drops the task.
        let _task = &task;
        answer
    }))
}
