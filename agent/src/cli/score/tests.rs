use ed25519_dalek::SigningKey;
use picket_common::feature::Subject;

use super::*;
use crate::model_store::tests::{key, model_file};

const RECORDING: &str = include_str!("../../../../common/tests/golden/events_v1.jsonl");

struct Fixture {
    dir: tempfile::TempDir,
    arguments: ScoreArguments,
}

impl Fixture {
    /// With a model of one decision: at most `threshold` is fine.
    fn new(threshold: f32, signer: &SigningKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ScoreArguments {
            model: dir.path().join("m.model"),
            input: dir.path().join("events.jsonl"),
            format: None,
            trusted_key: None,
            state_dir: None,
            output: ScoreOutput::Ndjson,
            findings_only: false,
            reasons: 5,
        };
        std::fs::write(&arguments.model, model_file(Subject::ProcessStart, threshold, signer)).unwrap();
        std::fs::write(&arguments.input, RECORDING).unwrap();
        Self { dir, arguments }
    }

    fn score(&self) -> (Result<u64, ScoreError>, String) {
        let mut out = Vec::new();
        let result = try_score(&self.arguments, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    fn error(&self) -> String {
        crate::error_text::chain(&self.score().0.unwrap_err())
    }
}

fn hex(key: &SigningKey) -> String {
    data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes())
}

#[test]
fn every_subject_gets_a_verdict_a_score_and_reasons() {
    let mut fixture = Fixture::new(-1.0, &key(1));
    fixture.arguments.trusted_key = Some(hex(&key(1)));
    let (findings, text) = fixture.score();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_finding = |line: &&Value| line["verdict"] == "finding";
    assert_eq!(lines.iter().filter(is_finding).count() as u64, findings.unwrap());
    let subjects = RECORDING.lines().filter(|line| line.contains(r#""class":"process_activity""#));
    let starts = subjects.filter(|line| line.contains(r#""seeded":false"#)).count();
    assert_eq!(lines.len(), starts);
    let line = lines.iter().find(is_finding).unwrap();
    assert_eq!((line["score"].as_f64(), line["threshold"].as_f64()), (Some(1.0), Some(0.5)));
    assert!(!line["reasons"][0]["words"].as_str().unwrap().is_empty());

    fixture.arguments.output = ScoreOutput::Json;
    let (_, text) = fixture.score();
    assert_eq!(serde_json::from_str::<Vec<Value>>(&text).unwrap(), lines);
    fixture.arguments.output = ScoreOutput::Table;
    let (_, text) = fixture.score();
    assert!(text.starts_with("VERDICT") && text.ends_with(" findings\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "what hosts say does not control the terminal");
}

#[test]
fn only_findings_when_asked_for() {
    let mut fixture = Fixture::new(1e30, &key(1));
    fixture.arguments.findings_only = true;
    fixture.arguments.output = ScoreOutput::Json;
    let (findings, text) = fixture.score();
    assert_eq!((findings.unwrap(), text.as_str()), (0, "[]\n"));
    assert_eq!(score(&fixture.arguments), ExitCode::SUCCESS);
}

#[test]
fn what_cannot_be_scored_is_refused_with_its_place() {
    let mut fixture = Fixture::new(1.0, &key(1));
    fixture.arguments.trusted_key = Some(hex(&key(2)));
    assert!(fixture.error().contains("not trusted"));
    fixture.arguments.trusted_key = Some("12".to_owned());
    assert!(fixture.error().contains("64 hexadecimal digits"));
    fixture.arguments.trusted_key = None;
    fixture.arguments.state_dir = Some(fixture.dir.path().to_owned());
    assert!(fixture.error().contains("holds no identity"));
    assert_eq!(score(&fixture.arguments), ExitCode::from(exit::IDENTITY));
    fixture.arguments.state_dir = None;

    let input = fixture.arguments.input.clone();
    for text in [b"rubbish\n{}\n".to_vec(), b"\xff\n".to_vec(), vec![b'x'; 2 << 20]] {
        std::fs::write(&input, text).unwrap();
        assert!(fixture.error().contains("holds no event: none of"), "{}", fixture.error());
    }
    std::fs::remove_file(&input).unwrap();
    assert!(fixture.error().contains("cannot read"));
    std::fs::write(&fixture.arguments.model, "rubbish").unwrap();
    assert!(fixture.error().contains("m.model"));
    assert_eq!(score(&fixture.arguments), ExitCode::from(exit::BAD_INPUT));
}

#[test]
fn a_bad_line_does_not_stop_the_rest() {
    let mut fixture = Fixture::new(-1.0, &key(1));
    let (good, _) = fixture.score();
    let (first, rest) = RECORDING.split_once('\n').unwrap();
    std::fs::write(&fixture.arguments.input, format!("{first}\nrubbish\n{{}}\n\u{1b}[2J\n{rest}")).unwrap();
    assert_eq!(fixture.score().0.unwrap(), good.unwrap());

    // A log of another program, found by what it looks like, and refused as what it is not.
    std::fs::write(
        &fixture.arguments.input,
        "type=SYSCALL msg=audit(1.5:1): success=yes ppid=1 pid=2 euid=0 egid=0 tty=pts0 exe=\"/usr/bin/id\"\n\
         type=EXECVE msg=audit(1.5:1): argc=1 a0=\"id\"\n",
    )
    .unwrap();
    let (findings, text) = fixture.score();
    assert_eq!((findings.unwrap(), text.lines().count()), (1, 1));
    assert!(text.contains("/usr/bin/id"), "{text}");
    fixture.arguments.format = Some(InputFormat::Zeek);
    assert!(fixture.error().contains("holds no event"));
}

/// A table model that finds what has more than 100 bytes.
fn table_model(signer: &SigningKey) -> Vec<u8> {
    use picket_common::model::{Algorithm, ModelBody, ModelDraft, ModelMetadata, NodeDraft, TreeDraft};
    use picket_common::table::{Encoder, Preparation, PreparedColumn};
    let column = PreparedColumn { name: "bytes".to_owned(), encoder: Encoder::Numeric };
    let preparation = Preparation { columns: vec![column] };
    let inner = NodeDraft::inner(0, 100.0, true, [1, 2]);
    let draft = ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm: Algorithm::DecisionTree,
            feature_spec_hash: preparation.hash(),
            feature_count: 1,
            threshold: 0.5,
            dataset_digest: picket_common::id::Digest::of(b""),
            training_run: "test".to_owned(),
            created: picket_common::event::Timestamp(0),
        },
        imputation: Vec::new(),
        body: ModelBody::Forest(vec![TreeDraft {
            nodes: vec![inner, NodeDraft::leaf(0.1, 3), NodeDraft::leaf(0.9, 1)],
        }]),
        self_test: vec![vec![7.0]],
    };
    TableModel::encode(&preparation, &draft.encode(signer).unwrap()).unwrap()
}

#[test]
fn rows_of_a_table_get_a_verdict_and_reasons() {
    let mut fixture = Fixture::new(0.0, &key(1));
    std::fs::write(&fixture.arguments.model, table_model(&key(1))).unwrap();
    fixture.arguments.trusted_key = Some(hex(&key(1)));
    fixture.arguments.input = fixture.dir.path().join("rows.csv");
    std::fs::write(&fixture.arguments.input, "name,bytes\na,7\nb,500\nc,\n").unwrap();
    let (findings, text) = fixture.score();
    assert_eq!(findings.unwrap(), 1);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["ok", "finding", "ok"]);
    assert_eq!(lines[1]["reasons"][0]["column"], "bytes");
    assert_eq!(lines[1]["reasons"][0]["value"], "500");
    // The same from packed JSON lines, as a table.
    fixture.arguments.output = ScoreOutput::Table;
    fixture.arguments.findings_only = true;
    fixture.arguments.input = fixture.dir.path().join("rows.jsonl.zst");
    let rows = "{\"bytes\": 7}\n{\"bytes\": 500}\n";
    std::fs::write(&fixture.arguments.input, zstd::encode_all(rows.as_bytes(), 1).unwrap()).unwrap();
    let (findings, text) = fixture.score();
    assert_eq!(findings.unwrap(), 1);
    assert!(text.contains("bytes=500 (+0.600)") && text.ends_with("2 scored, 1 findings\n"), "{text}");
}

#[test]
fn a_table_that_changed_and_a_model_of_another_key_are_refused() {
    let mut fixture = Fixture::new(0.0, &key(1));
    std::fs::write(&fixture.arguments.model, table_model(&key(1))).unwrap();
    fixture.arguments.input = fixture.dir.path().join("rows.csv");
    std::fs::write(&fixture.arguments.input, "name,octets\na,7\n").unwrap();
    assert!(fixture.error().contains("it lacks 1 of the model's columns: bytes"), "{}", fixture.error());
    std::fs::write(&fixture.arguments.input, "name,bytes\na,many\n").unwrap();
    assert!(fixture.error().contains("none of the 1 values in column \"bytes\" is a number"), "{}", fixture.error());
    std::fs::write(&fixture.arguments.input, "{\"octets\": 7}\n").unwrap();
    assert!(fixture.error().contains("no row has a key \"bytes\""), "{}", fixture.error());
    fixture.arguments.trusted_key = Some(hex(&key(2)));
    assert!(fixture.error().contains("not trusted"), "{}", fixture.error());
}
