//! A profile as one page that needs nothing else.

use std::fmt::Write as _;

use crate::evaluate::page::STYLE;
use crate::evaluate::page::chart::{escaped, ranking};
use crate::table::profile::{ColumnProfile, Profile};

/// Columns in the plot of what tells the label.
const RANKED_MAX: usize = 20;

/// The page. Every text that comes from the table is escaped.
pub fn render(profile: &Profile, title: &str) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    write_all(&mut page, profile, title).ok();
    page
}

fn write_all(out: &mut String, profile: &Profile, title: &str) -> std::fmt::Result {
    let title = escaped(title);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p>{} rows, {} columns; {} rows without a label are left out.</p>\n",
        profile.rows,
        profile.columns.len(),
        profile.counts.unlabelled
    )?;
    writeln!(out, "<h2>To mind</h2>")?;
    if profile.findings.is_empty() {
        writeln!(out, "<p>Nothing.</p>")?;
    }
    for finding in &profile.findings {
        let column =
            finding.column.as_deref().map_or_else(String::new, |name| format!("<code>{}</code> ", escaped(name)));
        writeln!(out, "<p class=\"note\">{column}{}</p>", escaped(&finding.text))?;
    }
    write_rows(out, profile)?;
    write_charts(out, profile)?;
    write_columns(out, &profile.columns)?;
    writeln!(out, "</body></html>")
}

fn write_rows(out: &mut String, profile: &Profile) -> std::fmt::Result {
    writeln!(out, "<h2>Rows</h2>\n<table>")?;
    for (value, rows) in &profile.labels {
        writeln!(out, "<tr><th>label <code>{}</code></th><td class=\"number\">{rows}</td></tr>", escaped(value))?;
    }
    let mut fact =
        |name: &str, value: String| writeln!(out, "<tr><th>{name}</th><td class=\"number\">{value}</td></tr>");
    if let Some(malicious) = profile.malicious {
        fact("malicious", malicious.to_string())?;
    }
    fact("repeat an earlier row", profile.duplicates.to_string())?;
    fact("equal a row with the other label", profile.contradictions.to_string())?;
    if let Some(drift) = &profile.drift {
        let auc = drift.auc.map_or_else(|| "–".to_owned(), |auc| format!("{auc:.3}"));
        fact(&format!("AUC of late against early benign rows, by {}", drift.by), auc)?;
    }
    writeln!(out, "</table>")
}

fn write_charts(out: &mut String, profile: &Profile) -> std::fmt::Result {
    let ranked = |auc: fn(&ColumnProfile) -> Option<f64>| {
        let mut entries: Vec<(&str, f64)> =
            profile.columns.iter().filter_map(|column| Some((column.name.as_str(), auc(column)?))).collect();
        entries.sort_by(|a, b| b.1.total_cmp(&a.1));
        entries.truncate(RANKED_MAX);
        entries
    };
    writeln!(out, "<h2>Single columns</h2>\n<div class=\"charts\">")?;
    for (name, detail, entries) in [
        (
            "What tells the label",
            "AUC of each column alone; near 1 it may be the label in other words",
            ranked(|c| c.label_auc),
        ),
        ("What drifts", "AUC of late against early benign rows", ranked(|c| c.drift_auc)),
    ] {
        if !entries.is_empty() {
            let svg = ranking(&entries);
            writeln!(out, "<figure><figcaption>{name}<small>{detail}</small></figcaption>{svg}</figure>")?;
        }
    }
    writeln!(out, "</div>")
}

fn write_columns(out: &mut String, columns: &[ColumnProfile]) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Columns</h2>\n<table><tr><th>column</th><th>holds</th><th class=\"number\">missing</th>\
         <th class=\"number\">values</th><th class=\"number\">least</th><th class=\"number\">mean</th>\
         <th class=\"number\">greatest</th><th>most frequent</th><th class=\"number\">label AUC</th>\
         <th class=\"number\">drift AUC</th></tr>"
    )?;
    let number = |value: Option<f64>| value.map_or_else(String::new, short);
    let auc = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
    for column in columns {
        let kind = if column.is_feature { column.kind.to_owned() } else { format!("{}, ignored", column.kind) };
        let top: Vec<String> =
            column.top.iter().take(3).map(|(value, rows)| format!("<code>{}</code> {rows}", escaped(value))).collect();
        writeln!(
            out,
            "<tr><td><code>{}</code></td><td>{kind}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            escaped(&column.name),
            column.missing,
            column.distinct,
            number(column.minimum),
            number(column.mean),
            number(column.maximum),
            top.join(", "),
            auc(column.label_auc),
            auc(column.drift_auc)
        )?;
    }
    writeln!(out, "</table>")
}

fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.3e}") }
}
