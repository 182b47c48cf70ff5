#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;

#[test]
fn the_sample_shows_every_key_with_its_default() {
    let sample = include_str!("../../config/server.toml");
    let shown: toml::Table = sample.parse().unwrap();
    assert_eq!(shown, toml::Table::try_from(Config::default()).unwrap());
}

#[test]
fn files_fragments_variables_and_flags_in_this_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, "[pki]\nhost_certificate_days = 1\nserver_certificate_days = 1").unwrap();
    std::fs::create_dir(folder.path().join("server.d")).unwrap();
    std::fs::write(folder.path().join("server.d/10-a.toml"), "pki.host_certificate_days = 2").unwrap();
    std::fs::write(folder.path().join("server.d/20-b.toml"), "pki.host_certificate_days = 3").unwrap();
    std::fs::write(folder.path().join("server.d/notes.txt"), "not TOML").unwrap();
    let overrides = Overrides {
        config: Some(path),
        flags: vec![("--agent-address", "agent_listener.address", "127.0.0.1:0".into())],
    };
    let variables = [("PICKET_AGENT_LISTENER__ADDRESS".to_owned(), "127.0.0.1:9".to_owned())];
    let config = Config::load(&overrides, variables).unwrap();
    assert_eq!(config.pki.host_certificate_life(), Duration::from_secs(3 * 86_400));
    assert_eq!(config.pki.server_certificate_life(), Duration::from_secs(86_400));
    assert_eq!(config.agent_listener.address.port(), 0);
}

#[test]
fn errors_name_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("server.toml");
    let overrides = Overrides { config: Some(path.clone()), flags: Vec::new() };
    let error = Config::load(&overrides, []).unwrap_err().to_string();
    assert!(error.contains("server.toml: No such file"), "{error}");
    std::fs::write(&path, "[ingest]\nagent_burst = 1").unwrap();
    let error = Config::load(&overrides, []).unwrap_err().to_string();
    assert!(error.ends_with("unknown key `ingest.agent_burst`, the nearest is `ingest.agent_burst_bytes`"), "{error}");
    std::fs::write(&path, "ingest.agent_burst_bytes = 0").unwrap();
    let error = Config::load(&overrides, []).unwrap_err().to_string();
    assert!(error.contains("`ingest.agent_burst_bytes`: "), "{error}");
}
