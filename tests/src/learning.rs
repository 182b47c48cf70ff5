//! Models through the real path: stored events, labels, a data set, training. For tests that need a model in force.

use picket_proto::v1;

use crate::admin::{AdminClient, AdminError};

/// Process starts that are one piece of work together. A data set needs several of each verdict.
const GROUP_SIZE: usize = 10;

/// Labels the process starts that `is_malicious` has an opinion on, by their executable, and trains the algorithms on
/// them. Returns one model for each algorithm, none of them in force yet.
///
/// # Errors
/// The server refused: for instance there are too few events to learn from.
pub fn train_on_process_starts(
    admin: &mut AdminClient,
    host_id: &str,
    algorithms: &[&str],
    is_malicious: impl Fn(&str) -> Option<bool>,
) -> Result<Vec<v1::Model>, AdminError> {
    admin.commit_lake()?;
    let rows = admin.query(&format!(
        "SELECT epoch, sequence, executable FROM process_activity \
         WHERE host_id = '{host_id}' AND activity = 'start' AND NOT seeded ORDER BY epoch, sequence"
    ))?;
    let mut counts = [0_usize; 2];
    let mut labels = Vec::new();
    for row in rows {
        let number = |key: &str| row.get(key).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let executable = row.get("executable").and_then(serde_json::Value::as_str).unwrap_or_default();
        let Some(malicious) = is_malicious(executable) else { continue };
        let count = &mut counts[usize::from(malicious)];
        let (verdict, name) =
            if malicious { (v1::Verdict::Malicious, "attack") } else { (v1::Verdict::Benign, "work") };
        labels.push(v1::Label {
            event: Some(v1::EventReference {
                host_id: host_id.to_owned(),
                epoch: number("epoch"),
                sequence: number("sequence"),
            }),
            verdict: verdict.into(),
            technique: if malicious { "T1036".to_owned() } else { String::new() },
            source: "test".to_owned(),
            group: format!("{name}-{}", *count / GROUP_SIZE),
            ..v1::Label::default()
        });
        *count += 1;
    }
    admin.add_labels(&labels)?;
    let dataset = admin.build_dataset("process_start", 0.0, &mut |_| ())?;
    let request = v1::TrainRequest {
        dataset_id: dataset.dataset_id,
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        seed: 1,
        ..v1::TrainRequest::default()
    };
    admin.train(request, &mut |_| ())
}
