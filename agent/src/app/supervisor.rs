//! The one place where tasks are started.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

/// A part that ended although nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {part} ended unexpectedly")]
pub struct Failure {
    /// Which.
    pub part: &'static str,
}

/// Tasks that are meant to run until they are stopped.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    tasks: JoinSet<&'static str>,
}

impl Supervisor {
    /// Starts a task.
    pub(crate) fn spawn(&mut self, part: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            part
        });
    }

    /// Waits for the first task to end. Never, when there are none.
    pub(crate) async fn failure(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(Ok(part)) => Failure { part },
            Some(Err(error)) => {
                tracing::error!(%error, "a task panicked");
                Failure { part: "uplink" }
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for all tasks. `false`: some still run when the time is over.
    pub(crate) async fn wait_all(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, async { while self.tasks.join_next().await.is_some() {} }).await.is_ok()
    }
}
