//! The survey for people: plain text.

use std::fmt::Write as _;

use crate::evaluate::Survey;
use crate::evaluate::text::bar;

/// The survey as text.
pub fn render(survey: &Survey) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write_all(&mut text, survey).ok();
    text
}

/// How many rows are alerted, in words.
pub fn alerted(survey: &Survey) -> String {
    let percent = |share: f64| 100.0 * share;
    let interval = survey.share_alerted_interval.map_or_else(String::new, |interval| {
        format!(", 95 % interval {:.2} to {:.2} %", percent(interval.low), percent(interval.high))
    });
    let training = survey.training_share_alerted.map_or_else(String::new, |share| {
        format!("; {:.2} % of the training rows, by models that had not seen them", percent(share))
    });
    format!(
        "{} of {} rows alerted ({:.2} %{interval}) from score {:.4} on{training}",
        survey.alerted,
        survey.rows,
        percent(survey.share_alerted),
        survey.threshold
    )
}

fn write_all(out: &mut String, survey: &Survey) -> std::fmt::Result {
    writeln!(out, "{}", alerted(survey))?;
    writeln!(out, "\nscores (bar lengths are logarithmic)")?;
    let largest = survey.score_histogram.iter().copied().max().unwrap_or(0).max(1);
    let bins = survey.score_histogram.len().max(1);
    for (bin, rows) in survey.score_histogram.iter().enumerate().filter(|(_, rows)| **rows > 0) {
        writeln!(out, "{:.2} {} {rows}", bin as f64 / bins as f64, bar(*rows, largest))?;
    }
    let mut list = |title: &str, entries: Vec<(&str, f64)>| -> std::fmt::Result {
        if entries.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{title}")?;
        for (name, number) in entries {
            writeln!(out, "{number:>8.4} {name}")?;
        }
        Ok(())
    };
    let importances = survey.importances.iter().map(|entry| (entry.feature.as_str(), entry.contribution));
    list("features, by their mean absolute contribution", importances.collect())?;
    let drift = survey.drift.iter().map(|shift| (shift.column.as_str(), shift.auc));
    list("these rows against those learned from, by column (AUC; 0.5 is no drift)", drift.collect())?;
    writeln!(out)?;
    for note in &survey.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
