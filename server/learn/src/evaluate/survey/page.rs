//! The survey as one page that needs nothing else.

use std::fmt::Write as _;

use crate::evaluate::Survey;
use crate::evaluate::page::chart::{Chart, escaped, ranking};
use crate::evaluate::page::{Card, write_figure, write_head, write_sections};
use crate::evaluate::survey::text::alerted;

/// The page. Every text of the card and the survey is escaped.
pub fn render(survey: &Survey, card: &Card) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    write_all(&mut page, survey, card).ok();
    page
}

fn write_all(out: &mut String, survey: &Survey, card: &Card) -> std::fmt::Result {
    write_head(out, card)?;
    writeln!(out, "<p>On held-out rows without labels: {}.</p>", escaped(&alerted(survey)))?;
    for note in &survey.notes {
        writeln!(out, "<p class=\"note\">{}</p>", escaped(note))?;
    }
    let rows = survey.rows.max(1) as f64;
    let shares: Vec<f64> = survey.score_histogram.iter().map(|rows_of| *rows_of as f64 / rows).collect();
    let scores = Chart::new("score", "share of rows", 1.0)
        .bars("benign", 0, &shares)
        .upright("threshold", survey.threshold)
        .finish();
    writeln!(out, "<div class=\"charts\">")?;
    let legend = "<span class=\"legend\"><span class=\"threshold\">┆ threshold</span></span>";
    write_figure(out, "Scores", legend, &scores)?;
    let mut list = |name: &str, detail: &str, entries: Vec<(&str, f64)>| {
        if entries.is_empty() { Ok(()) } else { write_figure(out, name, detail, &ranking(&entries)) }
    };
    let importances = survey.importances.iter().map(|entry| (entry.feature.as_str(), entry.contribution));
    list("Features", "mean absolute contribution to these rows' scores", importances.collect())?;
    let drift = survey.drift.iter().map(|shift| (shift.column.as_str(), shift.auc));
    list("Drift", "AUC of these rows against those learned from; 0.5 is none", drift.collect())?;
    writeln!(out, "</div>")?;
    write_sections(out, card)
}
