//! What a label may say, and how labels are kept.

use picket_common::event::Timestamp;
use picket_common::id::{Epoch, EventId, EventKey, HostId, Sequence};

use super::*;
use crate::metastore::{LabelStore as _, Metastore};

fn event(sequence: u64) -> EventId {
    EventId {
        host: HostId::from_random([3; 16]),
        key: EventKey { epoch: Epoch(1_800_000_000_000_000_000), sequence: Sequence(sequence) },
    }
}

fn parts(verdict: Verdict, technique: &'static str, group: &'static str) -> LabelParts<'static> {
    LabelParts { event: event(1), verdict, technique, group, source: "analyst" }
}

#[test]
fn techniques_follow_the_syntax_of_attack_ids() {
    for good in ["T1046", "T1059.004"] {
        assert_eq!(good.parse::<Technique>().unwrap().as_str(), good);
    }
    for bad in ["", "T", "1046", "t1046", "T104", "T10466", "T1059.", "T1059.04", "T1059.0044", "TA0001", "T1046 "] {
        assert!(bad.parse::<Technique>().is_err(), "{bad:?}");
    }
}

#[test]
fn parts_that_cannot_be_are_named() {
    let error = |parts| Label::new(parts).unwrap_err().to_string();
    assert!(error(parts(Verdict::Malicious, "scan", "")).contains("\"scan\""));
    assert!(error(parts(Verdict::Benign, "T1046", "")).contains("a benign label has no technique"));
    assert!(error(parts(Verdict::Benign, "", "~mine")).contains("~mine"));
    assert!(error(parts(Verdict::Benign, "", "a\u{1b}[2Jb")).contains("control"));
    let long = "x".repeat(GROUP_BYTES_MAX + 1);
    assert!(error(LabelParts { group: &long, ..parts(Verdict::Benign, "", "") }).contains("at most"));
    assert!(error(LabelParts { source: &long, ..parts(Verdict::Benign, "", "") }).contains("at most"));
    assert!("evil".parse::<Verdict>().is_err());
}

#[test]
fn what_nobody_said_stays_unsaid() {
    let label = Label::new(LabelParts { source: "", ..parts(Verdict::Malicious, "", "") }).unwrap();
    assert_eq!((label.technique(), label.group(), label.source()), ("", None, "unspecified"));
}

async fn store() -> (tempfile::TempDir, Metastore) {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
    (folder, store)
}

fn label(sequence: u64, verdict: Verdict) -> Label {
    let technique = if verdict == Verdict::Malicious { "T1046" } else { "" };
    Label::new(LabelParts { event: event(sequence), ..parts(verdict, technique, "scan-1") }).unwrap()
}

#[tokio::test]
async fn later_labels_supersede_but_a_snapshot_stays() {
    let (_folder, store) = store().await;
    assert_eq!(store.label_snapshot().await.unwrap(), 0);
    let first = [label(7, Verdict::Benign), label(3, Verdict::Benign)];
    store.add_labels(&first, "ada", Timestamp(1)).await.unwrap();
    let snapshot = store.label_snapshot().await.unwrap();
    store.add_labels(&[label(7, Verdict::Malicious)], "bob", Timestamp(2)).await.unwrap();

    let old = store.labels_in_force(snapshot, 10).await.unwrap();
    assert_eq!(old.iter().map(|record| record.label.clone()).collect::<Vec<_>>(), [first[1].clone(), first[0].clone()]);
    let new = store.labels_in_force(store.label_snapshot().await.unwrap(), 10).await.unwrap();
    assert_eq!(new.len(), 2);
    assert_eq!((new[1].label.verdict(), new[1].author.as_str()), (Verdict::Malicious, "bob"));
    assert_eq!(new[1].created, Timestamp(2));
    assert_eq!(store.labels_in_force(99, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let (_folder, store) = store().await;
    let labels: Vec<Label> = (0..7).map(|sequence| label(sequence, Verdict::Benign)).collect();
    store.add_labels(&labels, "ada", Timestamp(1)).await.unwrap();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = store.labels_after(after, 3).await.unwrap();
        assert_eq!(page.total, 7);
        seen.extend(page.labels.iter().map(|record| record.label.clone()));
        after = page.labels.last().unwrap().label_id;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, labels);
}

#[tokio::test]
async fn labels_cannot_be_changed_or_removed() {
    let (_folder, store) = store().await;
    store.add_labels(&[label(1, Verdict::Benign)], "ada", Timestamp(1)).await.unwrap();
    for statement in ["UPDATE labels SET verdict = 'malicious'", "DELETE FROM labels"] {
        let mut transaction = store.write().await.unwrap();
        let error = sqlx::query(statement).execute(&mut *transaction).await.unwrap_err();
        assert!(error.to_string().contains("labels are only added"), "{error}");
    }
}
