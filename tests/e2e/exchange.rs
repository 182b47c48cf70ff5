//! Models of other tools are imported, score rows as their tools do, and leave as ONNX.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use picket_tests::process;
use picket_tests::role::Role;
use picket_tests::sandbox::printed;
use serde_json::Value;

use crate::support::{executable, sandbox};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn control(folder: &Path, arguments: &[&str]) -> Output {
    process::output(Role::Control.command(executable()).current_dir(folder).args(arguments)).unwrap()
}

#[test]
fn models_of_other_tools_come_and_go() {
    let sandbox = sandbox();
    let folder = sandbox.folder();
    let fixture = |name: &str| repository("server/learn/fixtures").join(name).display().to_string();
    for (name, rows) in [("lightgbm.txt", "rows.csv"), ("xgboost.ubj", "rows.csv"), ("logistic.onnx", "rows-whole.csv")]
    {
        let (from, rows) = (fixture(name), fixture(rows));
        let line =
            ["-o", "json", "model", "import", "--from", &from, "--to", name, "--rows", &rows, "--predictions", name];
        let output = control(folder, &line);
        assert!(output.status.success(), "{}", printed(&output));
        let imported: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(imported["rows_compared"], 80);
        assert!(imported["difference_max"].as_f64().unwrap() < 1e-6, "{imported}");
        let output = control(folder, &line);
        assert_eq!(output.status.code(), Some(2), "there is one already: {}", printed(&output));

        let (scores, onnx) = (format!("{name}.csv"), format!("{name}.onnx"));
        let output = control(folder, &["model", "score", "--model", name, "--input", &rows, "--to", &scores]);
        assert!(output.status.success(), "{}", printed(&output));
        let output = control(folder, &["model", "convert", "--model", name, "--to", &onnx]);
        assert!(output.status.success(), "{}", printed(&output));
        check_by_onnx_runtime(folder, &onnx, &rows, &scores);
    }
    // Without rows some are made.
    let output = control(folder, &["model", "import", "--from", &fixture("xgboost.json"), "--to", "made.picket"]);
    assert!(printed(&output).contains("on 2000 rows that were made"), "{}", printed(&output));

    std::fs::write(folder.join("model.pkl"), b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.").unwrap();
    let refused = |from: &str, reason: &str| {
        let output = control(folder, &["model", "import", "--from", from, "--to", "none.picket"]);
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(reason), "{}", printed(&output));
        assert!(!folder.join("none.picket").exists());
    };
    refused("model.pkl", "reading a pickle runs whatever program is in it");
    refused(&fixture("refused-lightgbm-categorical.txt"), "categorical splits");
}

/// What is exported scores alike in ONNX Runtime, where there is one.
fn check_by_onnx_runtime(folder: &Path, onnx: &str, rows: &str, scores: &str) {
    /// What the script ends with when it finds no ONNX Runtime.
    const MISSING: i32 = 3;
    let python = std::env::var_os("PICKET_PYTHON").unwrap_or_else(|| "python3".into());
    let script = repository("tests/peers/exchange/check.py");
    let output = Command::new(python).current_dir(folder).arg(script).args([onnx, rows, scores]).output();
    match output {
        Ok(output) if output.status.code() == Some(MISSING) => println!("skipped: {}", printed(&output)),
        Ok(output) => assert!(output.status.success(), "{onnx}: {}", printed(&output)),
        Err(error) => println!("skipped: no Python: {error}"),
    }
}
