//! A status for people.

use std::fmt::Write as _;

use crate::app::reload::ConfigReport;
use crate::budget::governor::BudgetReport;
use crate::status::file::Reading;
use crate::status::{EpochReport, Snapshot};

/// Epochs shown; older ones are in the JSON.
const EPOCHS_SHOWN: usize = 5;

/// Lines of `name  value`.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{name:<18} {value}").ok();
    }
}

/// The status as text.
pub(crate) fn table(reading: &Reading) -> String {
    let snapshot = &reading.snapshot;
    let mut lines = Lines(String::new());
    let state = match (reading.is_running, snapshot.degraded.is_empty()) {
        (false, _) => "not running".to_owned(),
        (true, true) => format!("running (pid {})", snapshot.pid),
        (true, false) => format!("running, degraded (pid {})", snapshot.pid),
    };
    lines.add("agent", format_args!("{state}, version {}", snapshot.agent_version));
    for reason in &snapshot.degraded {
        lines.add("", format_args!("! {}", escaped(reason)));
    }
    let uplink = &snapshot.uplink;
    let phase = uplink.phase.words();
    lines.add("server", format_args!("{} {phase}", if uplink.server.is_empty() { "-" } else { &uplink.server }));
    if !uplink.host_id.is_empty() {
        lines.add("host", &uplink.host_id);
    }
    lines.add(
        "buffer",
        format_args!(
            "{} of {} in {} batches, {} unacknowledged",
            bytes(snapshot.buffer_bytes),
            bytes(snapshot.buffer_bytes_max),
            snapshot.buffer.records,
            uplink.batches_unacknowledged
        ),
    );
    budget(&mut lines, &snapshot.budget);
    config(&mut lines, &snapshot.config);
    for sensor in &snapshot.sensors {
        let reason = if sensor.reason.is_empty() { String::new() } else { format!(" ({})", escaped(&sensor.reason)) };
        lines.add("sensor", format_args!("{} {}, {} events{reason}", sensor.name, sensor.mode, sensor.events_total));
    }
    let hardening = &snapshot.hardening;
    for applied in &hardening.applied {
        lines.add("hardening", escaped(applied));
    }
    for missing in &hardening.not_applied {
        lines.add("hardening", format_args!("! not applied: {}", escaped(missing)));
    }
    for model in &snapshot.active_models {
        let digest: String = model.model_digest.chars().take(12).collect();
        let text = if digest.is_empty() { "none".to_owned() } else { format!("{} {digest}", model.algorithm) };
        lines.add("model", format_args!("{}: {text}", model.subject));
    }
    detector(&mut lines, snapshot);
    lines.add(
        "cost",
        format_args!(
            "{:.1} s processor time, {} memory, {} at most",
            snapshot.cpu_seconds,
            bytes(snapshot.resident_bytes),
            bytes(snapshot.resident_bytes_peak)
        ),
    );
    let mut text = lines.0;
    epochs(&mut text, &snapshot.epochs);
    text
}

fn budget(lines: &mut Lines, budget: &BudgetReport) {
    let at_most =
        |max: u64, show: &dyn Fn(u64) -> String| if max == 0 { String::new() } else { format!(" of {}", show(max)) };
    let percent = |milliseconds: u64| format!("{:.1} %", milliseconds as f64 / 10.0);
    let per_second = |count: u64| format!("{}/s", bytes(count));
    lines.add(
        "budget",
        format_args!(
            "{}; processor {}{}, memory {}{}, disk {}{}",
            if budget.rung.is_empty() { "-" } else { &budget.rung },
            percent(budget.cpu_milliseconds_per_second),
            at_most(budget.cpu_milliseconds_per_second_max, &percent),
            bytes(budget.resident_bytes),
            at_most(budget.resident_bytes_max, &bytes),
            per_second(budget.disk_write_bytes_per_second),
            at_most(budget.disk_write_bytes_per_second_max, &per_second),
        ),
    );
    if budget.steps_total > 0 {
        lines.add(
            "",
            format_args!(
                "{} steps, the last because: {}; {} events left out",
                budget.steps_total, budget.cause, budget.left_out_total
            ),
        );
    }
}

fn config(lines: &mut Lines, config: &ConfigReport) {
    if !config.last_error.is_empty() {
        lines
            .add("configuration", format_args!("refused, the one before is in force: {}", escaped(&config.last_error)));
    }
    if !config.needs_restart.is_empty() {
        lines.add("configuration", format_args!("needs a restart: {}", escaped(&config.needs_restart.join(", "))));
    }
}

fn detector(lines: &mut Lines, snapshot: &Snapshot) {
    let detector = &snapshot.detector;
    lines.add(
        "detector",
        format_args!(
            "{} scored, {} alerts ({} suppressed), not scored: {} no model, {} queue full",
            detector.scored,
            snapshot.alerts_total,
            detector.alerts_suppressed,
            detector.not_scored_no_model,
            detector.not_scored_queue_full
        ),
    );
    let latency = &detector.alert_latency;
    if latency.count > 0 {
        lines.add(
            "",
            format_args!(
                "event to alert: half within {:.0} ms, 99 % within {:.0} ms, at most {:.0} ms",
                latency.p50_ms, latency.p99_ms, latency.max_ms
            ),
        );
    }
}

fn epochs(text: &mut String, epochs: &[EpochReport]) {
    text.push_str("\nepoch                   accepted   delivered     waiting   in flight        lost\n");
    for report in epochs.iter().rev().take(EPOCHS_SHOWN) {
        let lost: u64 = report.lost.values().sum();
        writeln!(
            text,
            "{:<20} {:>11} {:>11} {:>11} {:>11} {:>11}",
            report.epoch, report.accepted, report.delivered, report.waiting, report.in_flight, lost
        )
        .ok();
        for (cause, count) in &report.lost {
            writeln!(text, "{:<20} {cause}: {count}", "").ok();
        }
    }
}

/// What came from elsewhere must not control the terminal.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn bytes(count: u64) -> String {
    const KIB: f64 = 1024.0;
    let count = count as f64;
    if count < KIB {
        format!("{count} B")
    } else if count < KIB * KIB {
        format!("{:.1} KiB", count / KIB)
    } else {
        format!("{:.1} MiB", count / KIB / KIB)
    }
}
