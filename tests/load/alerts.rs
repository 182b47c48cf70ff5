//! When alerts became visible in the agent's file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::generator::Spawned;

/// How often the file is looked at: the error of every latency.
const INTERVAL: Duration = Duration::from_millis(1);

/// Follows an alert file until it is dropped.
pub(crate) struct AlertWatch {
    seen: Arc<Mutex<Vec<(u32, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AlertWatch {
    pub(crate) fn start(path: &Path) -> Self {
        let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let follower = Follower { path: path.to_owned(), offset: 0, rest: Vec::new(), seen: Arc::clone(&seen) };
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || follower.run(&told));
        Self { seen, stop, thread: Some(thread) }
    }

    /// From just before the process was started until its alert could be read. None when it could not in time.
    pub(crate) fn latency(&self, process: &Spawned, deadline: Duration) -> Option<Duration> {
        let begun = Instant::now();
        loop {
            let of_this = |(pid, at): &&(u32, Instant)| *pid == process.pid && *at >= process.before;
            let found = self.seen.lock().unwrap().iter().find(of_this).map(|(_, at)| *at - process.before);
            if found.is_some() || begun.elapsed() > deadline {
                return found;
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Drop for AlertWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Follower {
    path: PathBuf,
    offset: u64,
    /// A line that is not complete yet.
    rest: Vec<u8>,
    seen: Arc<Mutex<Vec<(u32, Instant)>>>,
}

impl Follower {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.look();
            std::thread::sleep(INTERVAL);
        }
    }

    fn look(&mut self) {
        // There is none before the first alert.
        let Ok(mut file) = File::open(&self.path) else { return };
        if file.metadata().is_ok_and(|metadata| metadata.len() == self.offset) {
            return;
        }
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let read = file.read_to_end(&mut self.rest).unwrap();
        self.offset += read as u64;
        let now = Instant::now();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let alert: Value = serde_json::from_slice(&line).unwrap();
            if let Some(pid) = alert.pointer("/event/process/pid").and_then(Value::as_u64) {
                self.seen.lock().unwrap().push((u32::try_from(pid).unwrap(), now));
            }
        }
    }
}
