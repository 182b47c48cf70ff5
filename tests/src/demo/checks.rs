//! What must hold at the end.

use super::summary::Summary;

/// Share of attack instances that must be found.
const RECALL_MIN: f64 = 0.8;

/// Share of benign subjects that may be alerted.
const BENIGN_ALERTED_MAX: f64 = 0.02;

/// Most memory of the agent, bytes.
const AGENT_MEMORY_MAX: u64 = 64 << 20;

/// Adds the checks over figures that are in the summary already.
pub fn add_figures(summary: &mut Summary) {
    let events = summary.events.clone();
    let lost: u64 = events.lost.values().sum();
    summary.check(
        "every event is stored or counted as lost",
        events.generated > 0 && events.unaccounted == 0,
        format!(
            "{} generated = {} stored + {lost} counted as lost, {} unaccounted",
            events.generated, events.stored, events.unaccounted
        ),
    );
    summary.check("no event is stored twice", events.duplicates == 0, format!("{} duplicates", events.duplicates));
    summary.check(
        "what happened while the server was gone arrived",
        events.offline > 0,
        format!("{} events of that time are stored", events.offline),
    );
    let vectors = summary.vectors;
    summary.check(
        "the server computes the agent's vectors bit for bit",
        vectors.compared > 0 && vectors.different == 0 && vectors.compared == vectors.agent,
        format!("{} of {} compared, {} different", vectors.compared, vectors.agent, vectors.different),
    );
    let two = summary.round_two.clone();
    let (played, found) =
        two.techniques.values().fold((0, 0), |(played, found), t| (played + t.played, found + t.found));
    summary.check(
        "round two: at least 80 % of the attacks found",
        played > 0 && two.recall >= RECALL_MIN,
        format!("{found} of {played}, {:.1} %", two.recall * 100.0),
    );
    let share = two.benign_alerted as f64 / two.benign_subjects.max(1) as f64;
    summary.check(
        "round two: at most 2 % of benign subjects alerted",
        two.benign_subjects > 0 && share <= BENIGN_ALERTED_MAX,
        format!("{} of {}, {:.2} %", two.benign_alerted, two.benign_subjects, share * 100.0),
    );
    let unplayed = [summary.round_one.failed.as_slice(), two.played.failed.as_slice()].concat();
    summary.check(
        "the range played as planned",
        unplayed.is_empty(),
        if unplayed.is_empty() { "every instance ran to its end".to_owned() } else { unplayed.join("; ") },
    );
    let peak = summary.agent.peak_rss_bytes;
    summary.check(
        "the agent stayed under 64 MB",
        peak > 0 && peak < AGENT_MEMORY_MAX,
        format!("{:.1} MiB at most", peak as f64 / f64::from(1 << 20)),
    );
}

/// The checks, for people.
pub fn report(summary: &Summary) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("\n");
    let mut write = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        writeln!(text, "{line}").ok();
    };
    for check in &summary.checks {
        write(format_args!("{}  {}: {}", if check.holds { "✔" } else { "✘" }, check.name, check.detail));
    }
    let failed = summary.checks.iter().filter(|check| !check.holds).count();
    let seconds = summary.seconds.get("total").copied().unwrap_or_default();
    let verdict = match (summary.passed, failed) {
        (true, _) => "all checks hold".to_owned(),
        (false, 0) => "the demo did not come to its end".to_owned(),
        (false, failed) => format!("{failed} of {} checks failed", summary.checks.len()),
    };
    write(format_args!("\n{verdict}; {seconds:.0} s"));
    text
}
