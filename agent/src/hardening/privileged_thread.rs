//! The thread that keeps the rights the agent was started with, for as long as the start takes.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What it does.
type Job = Box<dyn FnOnce() + Send>;

/// A thread from before the restrictions. Threads that it starts are not restricted either, until they do so themselves.
#[derive(Debug)]
pub struct PrivilegedThread {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl PrivilegedThread {
    /// Starts it. It does nothing until it is asked to, and ends when this is dropped.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn() -> io::Result<Self> {
        let (jobs, received) = sync_channel::<Job>(1);
        let thread = std::thread::Builder::new().name("start".to_owned()).spawn(move || {
            if let Ok(job) = received.recv() {
                job();
            }
        })?;
        Ok(Self { jobs, thread })
    }

    /// Runs `job` there, and ends the thread.
    ///
    /// # Errors
    /// The job panicked.
    pub fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, answered) = sync_channel(1);
        // Neither fails but when the other side panicked, which shows below.
        self.jobs.send(Box::new(move || drop(answer.send(job())))).ok();
        let result = answered.recv();
        let ended = self.thread.join();
        match (result, ended) {
            (Ok(result), Ok(())) => Ok(result),
            _ => Err(io::Error::other("the start of the sensors failed")),
        }
    }
}
