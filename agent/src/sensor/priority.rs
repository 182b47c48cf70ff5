//! The priority of sensor threads (Linux).

/// Niceness of a sensor's thread, where that is permitted.
const THREAD_NICENESS: i32 = -19;

/// A sensor must run as soon as something happens: what it has to read is in a buffer of the kernel that does not wait,
/// a process of a millisecond can be described only at once, and other sensors want to know it. It has little to do.
pub(super) fn raise() {
    // On Linux this is the priority of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, THREAD_NICENESS) {
        tracing::debug!(%error, "a sensor runs at normal priority");
    }
}
