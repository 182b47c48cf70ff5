//! The page is whole, says what the report says, and obeys nothing that a label says.

use std::collections::BTreeSet;

use super::*;
use crate::evaluate::{Importance, Options, ScoredRow, evaluate};

fn report(technique: &str) -> Report {
    let rows: Vec<ScoredRow<'_>> = (0..400)
        .map(|row| ScoredRow {
            score: f64::from(row % 100) / 99.0,
            malicious: row % 100 > 89 || row == 7,
            technique: if row % 100 > 89 { technique } else { "" },
            group: ["a", "b", "c", "d"][row as usize % 4],
        })
        .collect();
    let known = BTreeSet::from(["T1046".to_owned()]);
    let options = Options { threshold: 0.9, known_techniques: &known, resamples: 20, seed: 1 };
    let mut report = evaluate(&rows, &options).expect("rows of both classes");
    report.importances = vec![Importance { feature: "bytes_sent".to_owned(), contribution: 0.125 }];
    report
}

/// Every element that is opened is closed, in order.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 3] = ["meta", "!doctype", "br"];
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().expect("a tag ends");
        let name = tag.split([' ', '/', '\n']).find(|part| !part.is_empty()).expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "after …{open:?}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_well_formed_and_says_what_the_report_says() {
    let card = Card {
        title: "voting forest for connections".to_owned(),
        sections: vec![CardSection {
            title: "How it was made".to_owned(),
            facts: vec![("seed".to_owned(), "7".to_owned())],
        }],
    };
    let report = report("T1046");
    let page = render(&report, &card);
    assert_well_formed(&page);
    let confusion = report.confusion;
    for text in [
        "<title>voting forest for connections</title>",
        "<tr><th>seed</th><td><code>7</code></td></tr>",
        &format!("<tr><td>malicious rows</td><td class=\"number\">{}</td>", confusion.tp),
        &format!("{} of {} attacks found", report.groups.malicious_found, report.groups.malicious),
        "<td>T1046</td>",
        "bytes_sent",
        "0.1250",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<svg").count(), 5, "ROC, precision and recall, calibration, scores, features");
    assert!(!page.contains("http") && !page.contains("<script"), "it needs nothing from elsewhere");
}

#[test]
fn a_label_cannot_put_markup_into_the_page() {
    let page = render(&report("<img src=x onerror=alert(1)>\u{1b}[2J\"'"), &Card::default());
    assert_well_formed(&page);
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;\u{fffd}[2J&quot;&#39;"));
    assert!(!page.contains("<img"));
}

#[test]
fn an_evaluation_of_an_earlier_build_still_makes_a_page() {
    let mut json = serde_json::to_value(report("T1046")).expect("a report is JSON");
    let object = json.as_object_mut().expect("an object");
    for key in ["precision_recall", "calibration", "importances"] {
        assert!(object.remove(key).is_some());
    }
    let page = render(&serde_json::from_value(json).expect("a report"), &Card::default());
    assert_well_formed(&page);
    assert_eq!(page.matches("<svg").count(), 4);
}
