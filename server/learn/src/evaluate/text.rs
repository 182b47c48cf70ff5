//! The report for people: plain text, 80 columns wide.

use std::fmt::Write as _;

use crate::evaluate::report::Figure;
use crate::evaluate::{Report, RocPoint, TechniqueResult};

/// Width of the histogram's bars and of the ROC picture, in characters.
const PICTURE_WIDTH: usize = 40;
/// Height of the ROC picture, in lines.
const ROC_HEIGHT: usize = 10;

/// The report as text. What was not defined is shown as `-` with the reason below.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write_all(&mut text, report).ok();
    text
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    write_figures(out, report)?;
    write_confusion(out, report)?;
    write_techniques(out, report)?;
    write_histogram(out, report)?;
    write_roc(out, &report.roc)?;
    for (key, reason) in &report.undefined {
        writeln!(out, "{key}: not defined, {reason}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn write_figures(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "{} rows, {} malicious; alert from score {:.4}", report.rows, report.positives, report.threshold)?;
    writeln!(out)?;
    writeln!(out, "{:<26} {:>8}   {:<18} {:>14}", "figure", "value", "95 % interval", "majority class")?;
    for Figure { name, key, value, baseline } in report.figures() {
        let interval = report
            .intervals
            .get(key)
            .map_or_else(String::new, |interval| format!("{:.3} to {:.3}", interval.low, interval.high));
        let baseline = baseline.map_or_else(String::new, |value| format!("{value:.3}"));
        writeln!(out, "{name:<26} {:>8}   {interval:<18} {baseline:>14}", figure(value))?;
    }
    Ok(())
}

fn write_confusion(out: &mut String, report: &Report) -> std::fmt::Result {
    let confusion = report.confusion;
    writeln!(out)?;
    writeln!(out, "{:<12} {:>10} {:>12}", "", "alerted", "not alerted")?;
    writeln!(out, "{:<12} {:>10} {:>12}", "malicious", confusion.tp, confusion.fn_)?;
    writeln!(out, "{:<12} {:>10} {:>12}", "benign", confusion.fp, confusion.tn)?;
    let groups = report.groups;
    writeln!(out)?;
    writeln!(
        out,
        "attacks found: {} of {}; benign pieces of work with an alert: {} of {}",
        groups.malicious_found, groups.malicious, groups.benign_alerted, groups.benign
    )
}

fn write_techniques(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.per_technique.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "{:<16} {:>8} {:>8} {:>8} {:>16}", "technique", "rows", "found", "recall", "attacks found")?;
    let line = |out: &mut String, name: &str, result: &TechniqueResult| {
        let attacks = format!("{} of {}", result.groups_found, result.groups);
        writeln!(out, "{name:<16} {:>8} {:>8} {:>8} {attacks:>16}", result.rows, result.found, figure(result.recall))
    };
    for (technique, result) in &report.per_technique {
        line(out, technique, result)?;
    }
    line(out, "known in training", &report.known_techniques)?;
    line(out, "unseen", &report.unseen_techniques)
}

fn write_histogram(out: &mut String, report: &Report) -> std::fmt::Result {
    let histogram = &report.score_histogram;
    let largest = histogram.benign.iter().chain(&histogram.malicious).copied().max().unwrap_or(0);
    if largest == 0 {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "scores (b benign, m malicious; bar lengths are logarithmic)")?;
    let bins = histogram.benign.len().max(1);
    for (bin, (benign, malicious)) in histogram.benign.iter().zip(&histogram.malicious).enumerate() {
        let low = bin as f64 / bins as f64;
        for (mark, rows) in [('b', benign), ('m', malicious)] {
            if *rows > 0 {
                writeln!(out, "{low:.2} {mark} {:<PICTURE_WIDTH$} {rows}", bar(*rows, largest))?;
            }
        }
    }
    Ok(())
}

/// A bar that grows with the logarithm of the rows.
pub(super) fn bar(rows: u64, largest: u64) -> String {
    let share = (rows as f64).ln_1p() / (largest as f64).ln_1p();
    "#".repeat(((share * PICTURE_WIDTH as f64).round() as usize).clamp(1, PICTURE_WIDTH))
}

fn write_roc(out: &mut String, roc: &[RocPoint]) -> std::fmt::Result {
    if roc.is_empty() {
        return Ok(());
    }
    let mut picture = vec![vec![' '; PICTURE_WIDTH]; ROC_HEIGHT];
    for (column, cell) in (0..PICTURE_WIDTH).map(|column| (column, column as f64 / (PICTURE_WIDTH - 1) as f64)) {
        let reached = roc.iter().filter(|point| point.fpr <= cell).map(|point| point.tpr).fold(0.0, f64::max);
        let line = ((1.0 - reached) * (ROC_HEIGHT - 1) as f64).round() as usize;
        picture[line.min(ROC_HEIGHT - 1)][column] = '*';
    }
    writeln!(out)?;
    writeln!(out, "ROC curve (true-positive rate over false-positive rate)")?;
    for (line, cells) in picture.iter().enumerate() {
        let label = match line {
            0 => "1.0",
            line if line == ROC_HEIGHT - 1 => "0.0",
            _ => "",
        };
        writeln!(out, "{label:>4} |{}", cells.iter().collect::<String>().trim_end())?;
    }
    writeln!(out, "     +{}", "-".repeat(PICTURE_WIDTH))?;
    writeln!(out, "      0.0{:>width$}", "1.0", width = PICTURE_WIDTH - 3)
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}
