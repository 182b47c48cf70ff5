//! The report as one page that needs nothing else: for screens and for print.

use std::fmt::Write as _;

use crate::evaluate::page::chart::{Chart, escaped, ranking};
use crate::evaluate::report::Figure;
use crate::evaluate::{Interval, Report, TechniqueResult};

pub(crate) mod chart;
#[cfg(test)]
mod tests;

/// The style of every page.
pub(crate) const STYLE: &str = include_str!("page/page.css");

/// What the page says about the model besides its figures: a model card (Mitchell et al., Model Cards for Model
/// Reporting, 2019).
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// The headline.
    pub title: String,
    /// Facts by section, in order: how it was made, what it learned from, what it is for.
    pub sections: Vec<CardSection>,
}

/// Some facts of a [`Card`].
#[derive(Clone, Debug, Default)]
pub struct CardSection {
    /// What they are about.
    pub title: String,
    /// Names and values.
    pub facts: Vec<(String, String)>,
}

/// The page. Every text of the card and the report is escaped.
pub fn render(report: &Report, card: &Card) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    write_all(&mut page, report, card).ok();
    page
}

fn write_all(out: &mut String, report: &Report, card: &Card) -> std::fmt::Result {
    write_head(out, card)?;
    writeln!(
        out,
        "<p>Judged on {} held-out rows, {} of them malicious, of attacks and work it did not learn from; an alert from \
         score {:.4} on.</p>",
        report.rows, report.positives, report.threshold
    )?;
    for note in report.notes.iter().chain(report.undefined.values()) {
        writeln!(out, "<p class=\"note\">{}</p>", escaped(note))?;
    }
    write_figures(out, report)?;
    write_verdicts(out, report)?;
    write_charts(out, report)?;
    write_techniques(out, report)?;
    write_sections(out, card)
}

/// Everything up to the headline.
pub(super) fn write_head(out: &mut String, card: &Card) -> std::fmt::Result {
    let title = escaped(&card.title);
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>"
    )
}

/// The facts, and the end.
pub(super) fn write_sections(out: &mut String, card: &Card) -> std::fmt::Result {
    for section in &card.sections {
        writeln!(out, "<h2>{}</h2>\n<table>", escaped(&section.title))?;
        for (name, value) in &section.facts {
            writeln!(out, "<tr><th>{}</th><td><code>{}</code></td></tr>", escaped(name), escaped(value))?;
        }
        writeln!(out, "</table>")?;
    }
    writeln!(out, "</body></html>")
}

fn write_figures(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Figures</h2>\n<p>Intervals: 95 %, by bootstrap over whole attacks and pieces of work. FPR is the \
         false-positive rate; the larger class is what judging every row as that class gives.</p>\n\
         <table><tr><th>figure</th><th class=\"number\">value</th><th class=\"number\">interval</th>\
         <th class=\"number\">larger class</th></tr>"
    )?;
    for Figure { name, key, value, baseline } in report.figures() {
        let baseline = baseline.map_or_else(String::new, |value| format!("{value:.3}"));
        let interval = report.intervals.get(key).map_or_else(String::new, interval);
        writeln!(
            out,
            "<tr><td>{name}</td><td class=\"number\">{}</td><td class=\"number\">{interval}</td>\
             <td class=\"number\">{baseline}</td></tr>",
            figure(value)
        )?;
    }
    writeln!(out, "</table>")
}

fn write_verdicts(out: &mut String, report: &Report) -> std::fmt::Result {
    let (confusion, groups) = (report.confusion, report.groups);
    writeln!(
        out,
        "<h2>Verdicts</h2>\n<table><tr><th></th><th class=\"number\">alerted</th><th class=\"number\">not alerted</th>\
         <th>as a whole</th></tr>\n\
         <tr><td>malicious rows</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td>{} of {} attacks found</td></tr>\n\
         <tr><td>benign rows</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td>{} of {} pieces of work alerted</td></tr></table>",
        confusion.tp,
        confusion.fn_,
        groups.malicious_found,
        groups.malicious,
        confusion.fp,
        confusion.tn,
        groups.benign_alerted,
        groups.benign
    )
}

fn write_charts(out: &mut String, report: &Report) -> std::fmt::Result {
    let diagonal = [(0.0, 0.0), (1.0, 1.0)];
    let roc = Chart::new("false-positive rate", "recall", 1.0)
        .line("chance", diagonal)
        .line("curve", report.roc.iter().map(|point| (point.fpr, point.tpr)))
        .finish();
    let precision_recall = Chart::new("recall", "precision", 1.0)
        .line("curve", report.precision_recall.iter().map(|point| (point.recall, point.precision)))
        .finish();
    let calibration = Chart::new("score", "share malicious", 1.0)
        .line("chance", diagonal)
        .line("curve", report.calibration.iter().map(|bin| (bin.score, bin.malicious)))
        .dots(report.calibration.iter().map(|bin| {
            let text = format!("{} rows: score {:.3}, {:.1} % malicious", bin.rows, bin.score, 100.0 * bin.malicious);
            (bin.score, bin.malicious, text)
        }))
        .finish();
    writeln!(out, "<h2>Curves</h2>\n<div class=\"charts\">")?;
    write_figure(out, "ROC", "dashed: a blind ranking", &roc)?;
    write_figure(out, "Precision and recall", "over all thresholds", &precision_recall)?;
    write_figure(out, "Calibration", "dashed: scores that are probabilities", &calibration)?;
    write_figure(
        out,
        "Scores",
        "<span class=\"legend\"><span class=\"benign\">■ benign</span><span class=\"malicious\">■ malicious</span>\
         <span class=\"threshold\">┆ threshold</span></span> each as a share of its class",
        &histogram(report),
    )?;
    if !report.importances.is_empty() {
        let entries: Vec<(&str, f64)> =
            report.importances.iter().map(|entry| (entry.feature.as_str(), entry.contribution)).collect();
        write_figure(out, "Features", "mean absolute contribution to these rows' scores", &ranking(&entries))?;
    }
    writeln!(out, "</div>")
}

fn histogram(report: &Report) -> String {
    let shares = |bins: &[u64]| -> Vec<f64> {
        let all = bins.iter().sum::<u64>().max(1) as f64;
        bins.iter().map(|rows| *rows as f64 / all).collect()
    };
    let benign = shares(&report.score_histogram.benign);
    let malicious = shares(&report.score_histogram.malicious);
    Chart::new("score", "share of class", 1.0)
        .bars("benign", 0, &benign)
        .bars("malicious", 1, &malicious)
        .upright("threshold", report.threshold)
        .finish()
}

/// `detail` may hold markup.
pub(super) fn write_figure(out: &mut String, name: &str, detail: &str, svg: &str) -> std::fmt::Result {
    writeln!(out, "<figure><figcaption>{name}<small>{detail}</small></figcaption>{svg}</figure>")
}

fn write_techniques(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.per_technique.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Techniques</h2>\n<table><tr><th>technique</th><th class=\"number\">rows found</th>\
         <th class=\"number\">attacks found</th></tr>"
    )?;
    let totals =
        [("all that it learned", &report.known_techniques), ("all that were new to it", &report.unseen_techniques)];
    let listed = report.per_technique.iter().map(|(name, result)| (name.as_str(), result));
    for (name, result) in listed.chain(totals) {
        let TechniqueResult { rows, found, groups, groups_found, .. } = result;
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"number\">{found} of {rows}</td><td class=\"number\">{groups_found} of {groups}</td></tr>",
            escaped(name)
        )?;
    }
    writeln!(out, "</table>")
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

fn interval(interval: &Interval) -> String {
    format!("{:.3} to {:.3}", interval.low, interval.high)
}
