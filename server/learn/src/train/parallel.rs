//! Independent jobs on several threads, results in the order of the jobs.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Runs `work` for 0..`jobs` on up to `threads` threads. Which thread does what does not show in the result.
///
/// Stops handing out jobs after the first error and returns the error of the lowest-numbered job that failed.
pub(crate) fn try_map<R, E>(
    jobs: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E>
where
    R: Send,
    E: Send,
{
    if threads <= 1 || jobs <= 1 {
        return (0..jobs).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let finished: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(jobs));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    let result = work(job);
                    if result.is_err() {
                        next.fetch_max(jobs, Ordering::Relaxed);
                    }
                    finished.lock().push((job, result));
                }
            });
        }
    });
    let mut finished = finished.into_inner();
    finished.sort_by_key(|(job, _)| *job);
    finished.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let expected: Vec<usize> = (0..100).map(|job| job * job).collect();
        for threads in [1, 2, 7] {
            assert_eq!(try_map(100, threads, |job| Ok::<_, ()>(job * job)), Ok(expected.clone()));
        }
        assert_eq!(try_map(0, 4, |_| Ok::<(), ()>(())), Ok(vec![]));
    }

    #[test]
    fn an_error_ends_it() {
        assert_eq!(try_map(50, 3, |job| if job == 20 { Err("twenty") } else { Ok(job) }), Err("twenty"));
    }
}
