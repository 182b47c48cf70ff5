//! A table of a user, with no server: profile, training, scores, on the server's side and on a host.

use std::path::Path;
use std::process::Output;

use picket_tests::process;
use picket_tests::role::Role;
use picket_tests::sandbox::printed;
use serde_json::Value;

use crate::support::{executable, sandbox};

/// Flows, of which those of ssh with many bytes are attacks; `verdict_id` gives the label away.
fn flows() -> String {
    let mut text = "start,service,bytes,verdict_id,label\n".to_owned();
    for row in 0..800_usize {
        let service = ["http", "dns", "smtp", "ssh"][row * 7919 % 4];
        let bytes = row * 104_729 % 1009;
        let attack = service == "ssh" && bytes > 500;
        let minute = format!("2026-01-01T{:02}:{:02}:00Z", row / 60, row % 60);
        let verdict = if attack { 9000 + row % 50 } else { row % 50 };
        text.push_str(&format!("{minute},{service},{bytes},{verdict},{}\n", if attack { "attack" } else { "benign" }));
    }
    text
}

fn run(role: Role, folder: &Path, line: &str) -> Output {
    process::output(role.command(executable()).current_dir(folder).args(line.split_whitespace())).unwrap()
}

#[test]
fn a_table_becomes_a_model_and_its_rows_get_verdicts() {
    let sandbox = sandbox();
    let folder = sandbox.folder();
    std::fs::write(folder.join("flows.csv"), flows()).unwrap();
    let control = |line: &str| run(Role::Control, folder, line);

    // The profile names the column that gives the label away; the schema takes it out.
    let output = control("-o json dataset profile --input flows.csv --to profile.html");
    assert!(output.status.success(), "{}", printed(&output));
    let profile: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(profile["findings"][0]["column"], "verdict_id", "{}", profile["findings"]);
    let page = std::fs::read_to_string(folder.join("profile.html")).unwrap();
    assert!(page.contains("verdict_id") && page.ends_with("</html>\n"));
    assert!(control("dataset schema --input flows.csv --to schema.toml").status.success());
    let schema = std::fs::read_to_string(folder.join("schema.toml")).unwrap();
    let schema = schema.replace("\"verdict_id\" = \"numeric\"", "\"verdict_id\" = \"ignore\"");
    std::fs::write(folder.join("schema.toml"), schema).unwrap();

    let output = control("-o json train --input flows.csv --schema schema.toml --to lab");
    assert!(output.status.success(), "{}", printed(&output));
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(manifest["split"]["rule"], "time");
    let auc = manifest["trainings"][0]["test"]["roc_auc"].as_f64().unwrap();
    assert!(auc > 0.99, "{auc}");

    // The server's side and the agent score alike.
    let output = control("model score --model lab/model.picket --input flows.csv --output scores.csv");
    assert!(output.status.success(), "{}", printed(&output));
    let scores = std::fs::read_to_string(folder.join("scores.csv")).unwrap();
    let output = run(Role::Agent, folder, "score --model lab/model.picket --input flows.csv -o ndjson");
    assert_eq!(output.status.code(), Some(1), "findings: {}", printed(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 800);
    for (line, row) in lines.lines().zip(scores.lines().skip(1)) {
        let verdict: Value = serde_json::from_str(line).unwrap();
        let fields: Vec<&str> = row.splitn(4, ',').collect();
        assert_eq!(verdict["score"].as_f64(), fields[1].parse().ok(), "{line} {row}");
        assert_eq!(verdict["verdict"], fields[2]);
    }

    // Made again, it has the same bytes; of other rows it is not made at all.
    let output = control("model rebuild lab --input flows.csv --verify");
    assert!(output.status.success() && printed(&output).contains("the same, byte for byte"), "{}", printed(&output));
    std::fs::write(folder.join("fewer.csv"), flows().replace("2026-01-01T00:00", "2026-01-01T00:01")).unwrap();
    let output = control("model rebuild lab --input fewer.csv --verify");
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("is not the flows.csv that the model was made of"), "{}", printed(&output));

    // The gate lets a model take its own place, and holds one that knows less.
    let output = control("train --input flows.csv --schema schema.toml --ignore bytes --to blind");
    assert!(output.status.success(), "{}", printed(&output));
    let compare = |first: &str, second: &str| {
        control(&format!(
            "-o json model compare {first}/model.picket {second}/model.picket --input flows.csv --schema schema.toml"
        ))
    };
    let output = compare("lab", "lab");
    assert!(output.status.success(), "{}", printed(&output));
    let output = compare("lab", "blind");
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(compared["gate"]["verdict"], "hold");
    let reasons = compared["gate"]["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason.to_string().contains("the model in force has")), "{compared}");

    // What changed is told, and nothing is written.
    std::fs::write(folder.join("other.csv"), flows().replace("bytes", "octets")).unwrap();
    let output = control("model score --model lab/model.picket --input other.csv --output none.csv");
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("it lacks 1 of the model's columns: bytes"), "{}", printed(&output));
    assert!(!folder.join("none.csv").exists());
    let output = control("-o json dataset diff flows.csv other.csv");
    assert!(output.status.success(), "{}", printed(&output));
    let difference: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&difference["columns_gone"][0], &difference["columns_new"][0]), (&"bytes".into(), &"octets".into()));
}
