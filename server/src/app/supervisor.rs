//! Every task of the server, by the stage in which it is stopped.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// When a task is stopped: the first stage first, the next when every task of the one before it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes work in: listeners.
    Intake,
    /// Finishes work: the lake's committer, reports of agents.
    Storage,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Intake, Self::Storage];
}

/// The tasks.
#[derive(Debug)]
pub(super) struct Supervisor {
    stages: [Tasks; Stage::ALL.len()],
}

#[derive(Debug, Default)]
struct Tasks {
    stop: CancellationToken,
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task ended that should have run until the server stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal error: the task {task} {how}")]
pub struct TaskFailure {
    task: &'static str,
    how: &'static str,
}

const ENDED: &str = "ended";

impl Supervisor {
    pub(super) fn new() -> Self {
        Self { stages: [Tasks::default(), Tasks::default()] }
    }

    /// Starts a task that runs until its stage's token is cancelled.
    pub(super) fn spawn<F>(&mut self, stage: Stage, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = &mut self.stages[stage as usize];
        let handle = tasks.running.spawn(task(tasks.stop.clone()));
        tasks.names.insert(handle.id(), name);
    }

    /// Waits until a task ends, which none should yet.
    pub(super) async fn failure(&mut self) -> TaskFailure {
        let [intake, storage] = &mut self.stages;
        tokio::select! {
            Some(failure) = intake.next() => failure,
            Some(failure) = storage.next() => failure,
            else => std::future::pending().await,
        }
    }

    /// Stops the stages in their order. A task that takes longer than `timeout` is left behind.
    pub(super) async fn stop(self, timeout: Duration) -> Result<(), TaskFailure> {
        let mut outcome = Ok(());
        for mut tasks in self.stages {
            tasks.stop.cancel();
            let ended = async {
                let mut outcome = Ok(());
                while let Some(failure) = tasks.next().await {
                    if failure.how != ENDED {
                        outcome = Err(failure);
                    }
                }
                outcome
            };
            let ended = tokio::time::timeout(timeout, ended).await;
            outcome = outcome.and(ended.unwrap_or_else(|_| Err(tasks.stuck())));
        }
        outcome
    }
}

impl Tasks {
    /// How the next task ended; `None` when there is none.
    async fn next(&mut self) -> Option<TaskFailure> {
        let ended = self.running.join_next_with_id().await?;
        let (id, how) = match &ended {
            Ok((id, ())) => (*id, ENDED),
            Err(error) => (error.id(), if error.is_panic() { "panicked" } else { "was cancelled" }),
        };
        Some(TaskFailure { task: self.names.remove(&id).unwrap_or("?"), how })
    }

    /// The tasks that are left.
    fn stuck(&self) -> TaskFailure {
        TaskFailure { task: self.names.values().next().unwrap_or(&"?"), how: "did not stop in time" }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn storage_stops_after_intake_has_ended() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::new();
        for (stage, name) in [(Stage::Storage, "storage"), (Stage::Intake, "intake")] {
            let order = Arc::clone(&order);
            supervisor.spawn(stage, name, |stop| async move {
                stop.cancelled().await;
                // Whoever is stopped first also gets the chance to be late.
                tokio::task::yield_now().await;
                order.lock().unwrap().push(name);
            });
        }
        supervisor.stop(LONG).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["intake", "storage"]);
    }

    #[tokio::test]
    async fn a_task_that_ends_too_early_is_a_failure() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Intake, "listener", |stop| async move { stop.cancelled().await });
        supervisor.spawn(Stage::Storage, "committer", |_| async {});
        assert_eq!(supervisor.failure().await.to_string(), "internal error: the task committer ended");
        supervisor.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_the_others_are_still_stopped() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Intake, "listener", |_| async { panic!("on purpose") });
        supervisor.spawn(Stage::Storage, "committer", |stop| async move { stop.cancelled().await });
        assert_eq!(supervisor.failure().await.to_string(), "internal error: the task listener panicked");
        supervisor.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_left_behind() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Intake, "stuck", |_| std::future::pending());
        let error = supervisor.stop(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "internal error: the task stuck did not stop in time");
    }
}
