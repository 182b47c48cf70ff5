//! Waiting for facts, never for time to pass.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a fact is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A fact that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {seconds:.1} s for {what} in vain{last}")]
pub struct TimedOut {
    what: String,
    seconds: f64,
    last: String,
}

/// Calls `look` until it returns a value, at most for `deadline`.
///
/// # Errors
/// [`TimedOut`] with `what` and the last reason `look` gave.
pub fn until<T, E: Display>(
    what: impl Display,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let start = Instant::now();
    loop {
        let error = match look() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if start.elapsed() >= deadline {
            let last = error.to_string();
            let last = if last.is_empty() { last } else { format!(": {last}") };
            return Err(TimedOut { what: what.to_string(), seconds: start.elapsed().as_secs_f64(), last });
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Calls `look` until it is true, at most for `deadline`.
///
/// # Errors
/// [`TimedOut`].
pub fn until_true(what: impl Display, deadline: Duration, mut look: impl FnMut() -> bool) -> Result<(), TimedOut> {
    until(what, deadline, || if look() { Ok(()) } else { Err("") })
}
