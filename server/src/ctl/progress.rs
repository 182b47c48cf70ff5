//! Progress of long work, on a terminal only.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use picket_proto::v1;

use crate::ctl::output::safe;

/// A progress bar on stderr; nothing when stderr is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant; a bar without it shows the same in another form.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg:40} {bar:30} {percent:>3} % {elapsed}, {eta} left")
        {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub(super) fn show(&self, step: &v1::Progress) {
        self.set(&step.stage, step.done, step.total);
    }

    pub(super) fn set(&self, stage: &str, done: u64, total: u64) {
        self.bar.set_message(safe(stage));
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
