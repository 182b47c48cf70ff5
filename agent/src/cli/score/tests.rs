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
