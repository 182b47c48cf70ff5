use super::*;

const SAMPLE: &str = include_str!("../../config/agent.toml");

fn load(
    dir: &Path,
    text: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, ConfigError> {
    let path = dir.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    let flags = flags.iter().map(|(flag, key, value)| (*flag, *key, (*value).to_owned())).collect();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&Overrides { config: Some(path), flags }, variables)
}

#[test]
fn the_sample_shows_every_key_with_its_default() {
    let sample: toml::Table = SAMPLE.parse().unwrap();
    assert_eq!(sample, toml::Table::try_from(Config::default()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path(), SAMPLE, &[], &[]).unwrap(), load(dir.path(), "", &[], &[]).unwrap());
}

#[test]
fn the_later_layer_wins() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("agent.d")).unwrap();
    std::fs::write(dir.path().join("agent.d/10-a.toml"), "pipeline.batch_age_ms = 2\nlog.filter = 'debug'").unwrap();
    std::fs::write(dir.path().join("agent.d/20-b.toml"), "pipeline.batch_age_ms = 3").unwrap();
    std::fs::write(dir.path().join("agent.d/notes.txt"), "not TOML").unwrap();
    let config = load(
        dir.path(),
        "pipeline.batch_age_ms = 1\nagent.state_dir = '/a'\n[sensor.replay]\npath = 'r.jsonl'",
        &[("PICKET_BUFFER__BYTES_MAX", "2000000"), ("PICKET_SENSOR__PROCESS__MODE", "polling")],
        &[("--state-dir", "agent.state_dir", "/b")],
    )
    .unwrap();
    assert_eq!((config.pipeline.batch_age_ms, config.log.filter.as_str()), (3, "debug"));
    assert_eq!((config.buffer.bytes_max, config.agent.state_dir), (2_000_000, PathBuf::from("/b")));
    assert_eq!(config.sensor.process.mode, crate::sensor::config::ModeChoice::Polling);
    assert_eq!(config.sensor.replay.unwrap().path, PathBuf::from("r.jsonl"));
}

#[test]
fn no_path_means_no_replay() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path(), "", &[], &[]).unwrap().sensor.replay, None);
}

#[test]
fn errors_say_what_is_wrong_where() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str| load(dir.path(), text, &[], &[]).unwrap_err().to_string();
    assert!(refused("[bufer]\nbytes_max = 1").ends_with("unknown key `bufer`, the nearest is `buffer`"));
    assert!(
        refused("[buffer]\nbyte_max = 1").ends_with("unknown key `buffer.byte_max`, the nearest is `buffer.bytes_max`")
    );
    assert_eq!(refused("[buffer]\nbytes_max = 1"), "buffer.bytes_max is 1: must be between 1048576 and 1099511627776");
    assert!(refused("[sensor.process]\npoll_interval_ms = 1").starts_with("sensor.process.poll_interval_ms is 1"));
    assert!(refused("[detector]\nalert_reasons_max = 'many'").contains("expected integer, found string"));
    assert!(refused("[log]\nformat = 'xml'").contains("`log.format`"));
    let missing = Overrides { config: Some(dir.path().join("none.toml")), flags: Vec::new() };
    let error = Config::load(&missing, []).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}
