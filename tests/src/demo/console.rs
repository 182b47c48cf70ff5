//! What the demo shows: a line for each stage and finding, and in between what it is doing, as a moving line on a
//! terminal and as a plain line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often progress is written where nothing moves.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// How often the moving line moves.
const TICK: Duration = Duration::from_millis(100);

/// Where the demo writes. Shared between threads.
pub struct Console {
    started: Instant,
    /// The moving line, on a terminal.
    bar: Option<ProgressBar>,
    /// When progress was last written, elsewhere.
    last: Mutex<Instant>,
}

impl Console {
    /// A console for this process's streams. The moving line goes to standard error, everything else to standard
    /// output.
    pub fn new() -> Self {
        let moves = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = moves.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        let now = Instant::now();
        Self { started: now, bar, last: Mutex::new(now) }
    }

    /// Seconds since the demo began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The headline of a stage.
    pub fn stage(&self, title: &str) {
        self.write(&format!("\n[{:5.1} s] {title}", self.seconds()));
        self.now(title);
    }

    /// A finding.
    pub fn line(&self, text: &str) {
        for line in text.lines() {
            self.write(&format!("          {line}"));
        }
    }

    /// What is being done at this moment.
    pub fn now(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("[{:5.1} s] {text}", self.seconds())),
            None => {
                let Ok(mut last) = self.last.lock() else { return };
                if last.elapsed() >= PLAIN_INTERVAL {
                    *last = Instant::now();
                    println!("          … {text}");
                }
            }
        }
    }

    /// Ends the moving line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn write(&self, text: &str) {
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}
