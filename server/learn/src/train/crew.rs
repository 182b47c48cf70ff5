//! Threads that stay for a whole fit and take small tasks together.
//!
//! A boosted model is thousands of short steps, each of which waits for the one before: starting threads for each would
//! cost as much as the work. Helpers look for work a short while before they sleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// How often an idle thread looks for work before it sleeps: some tens of microseconds.
const LOOKS_BEFORE_SLEEP: u32 = 3_000;

/// A task with its place in the results.
type Numbered<T> = (usize, T);

struct Shared<T, R> {
    tasks: Mutex<Vec<Numbered<T>>>,
    /// Tasks nobody has taken; read without the lock.
    waiting: AtomicUsize,
    /// Tasks without a result.
    unfinished: AtomicUsize,
    results: Mutex<Vec<Numbered<R>>>,
    /// There are tasks, or the end has come.
    work: Condvar,
    /// The last result is there.
    done: Condvar,
    end: AtomicBool,
    /// A helper has panicked: its result will never come.
    broken: AtomicBool,
}

/// Takes tasks together; see [`with_crew`].
pub(super) struct Crew<'a, T, R> {
    shared: &'a Shared<T, R>,
    work: &'a (dyn Fn(T) -> R + Sync),
    threads: usize,
}

/// Runs `body` with a crew of `threads` threads, the calling one among them, that does `work`.
pub(super) fn with_crew<T: Send, R: Send, O>(
    threads: usize,
    work: &(dyn Fn(T) -> R + Sync),
    body: impl FnOnce(&Crew<'_, T, R>) -> O,
) -> O {
    let shared = Shared {
        tasks: Mutex::new(Vec::new()),
        waiting: AtomicUsize::new(0),
        unfinished: AtomicUsize::new(0),
        results: Mutex::new(Vec::new()),
        work: Condvar::new(),
        done: Condvar::new(),
        end: AtomicBool::new(false),
        broken: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| help(&shared, work));
        }
        let _end = End(&shared);
        body(&Crew { shared: &shared, work, threads })
    })
}

impl<T: Send, R: Send> Crew<'_, T, R> {
    /// Does all tasks; the results are in the order of the tasks. Earlier tasks are begun first.
    pub(super) fn run(&self, tasks: Vec<T>) -> Vec<R> {
        if self.threads <= 1 || tasks.len() <= 1 {
            return tasks.into_iter().map(self.work).collect();
        }
        let shared = self.shared;
        let count = tasks.len();
        shared.unfinished.store(count, Ordering::Release);
        let mut waiting = shared.tasks.lock();
        waiting.extend(tasks.into_iter().enumerate().rev());
        shared.waiting.store(count, Ordering::Release);
        drop(waiting);
        shared.work.notify_all();
        while let Some(task) = shared.take() {
            shared.finish(task, self.work);
        }
        shared.wait();
        let mut results = std::mem::take(&mut *shared.results.lock());
        results.sort_unstable_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

impl<T, R> Shared<T, R> {
    fn take(&self) -> Option<Numbered<T>> {
        let mut tasks = self.tasks.lock();
        let task = tasks.pop();
        self.waiting.store(tasks.len(), Ordering::Release);
        task
    }

    fn finish(&self, (index, task): Numbered<T>, work: &(dyn Fn(T) -> R + Sync)) {
        let result = work(task);
        let mut results = self.results.lock();
        results.push((index, result));
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_all();
        }
    }

    /// Until every task has its result.
    fn wait(&self) {
        let finished = || self.unfinished.load(Ordering::Acquire) == 0;
        for _ in 0..LOOKS_BEFORE_SLEEP {
            if finished() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut results = self.results.lock();
        while !finished() {
            assert!(!self.broken.load(Ordering::Acquire), "a helping thread panicked");
            self.done.wait(&mut results);
        }
    }
}

fn help<T, R>(shared: &Shared<T, R>, work: &(dyn Fn(T) -> R + Sync)) {
    let broken = Broken(shared);
    loop {
        for _ in 0..LOOKS_BEFORE_SLEEP {
            if shared.waiting.load(Ordering::Acquire) > 0 || shared.end.load(Ordering::Acquire) {
                break;
            }
            std::hint::spin_loop();
        }
        let mut tasks = shared.tasks.lock();
        while tasks.is_empty() && !shared.end.load(Ordering::Acquire) {
            shared.work.wait(&mut tasks);
        }
        let Some(task) = tasks.pop() else { break };
        shared.waiting.store(tasks.len(), Ordering::Release);
        drop(tasks);
        shared.finish(task, work);
    }
    std::mem::forget(broken);
}

/// Sends the helpers home, also when the body panics.
struct End<'a, T, R>(&'a Shared<T, R>);

impl<T, R> Drop for End<'_, T, R> {
    fn drop(&mut self) {
        let _tasks = self.0.tasks.lock();
        self.0.end.store(true, Ordering::Release);
        self.0.work.notify_all();
    }
}

/// Tells the one who waits that a helper is gone; forgotten when it goes in order.
struct Broken<'a, T, R>(&'a Shared<T, R>);

impl<T, R> Drop for Broken<'_, T, R> {
    fn drop(&mut self) {
        let _results = self.0.results.lock();
        self.0.broken.store(true, Ordering::Release);
        self.0.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_tasks() {
        for threads in [1, 2, 5] {
            let work = |number: usize| number * number;
            with_crew(threads, &work, |crew| {
                for round in 0..200 {
                    let tasks: Vec<usize> = (0..round % 17).collect();
                    let expected: Vec<usize> = tasks.iter().map(|number| number * number).collect();
                    assert_eq!(crew.run(tasks), expected);
                }
            });
        }
    }

    #[test]
    fn a_panic_does_not_hang() {
        let outcome = std::panic::catch_unwind(|| {
            let work = |number: usize| assert!(number != 3, "three");
            with_crew(3, &work, |crew| crew.run((0..64).collect()));
        });
        assert!(outcome.is_err());
    }
}
