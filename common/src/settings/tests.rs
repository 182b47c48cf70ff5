#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    listener: Listener,
    ingest: Ingest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listener {
    address: SocketAddr,
    names: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ingest {
    bytes_per_second: u32,
    ratio: f64,
    strict: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: Listener { address: "127.0.0.1:8443".parse().unwrap(), names: Vec::new() },
            ingest: Ingest { bytes_per_second: 100, ratio: 0.5, strict: false },
        }
    }
}

fn layers() -> Layers<Config> {
    Layers::new().unwrap()
}

fn document(text: &str) -> Document {
    Document { name: "server.toml".into(), text: text.into() }
}

fn refused(text: &str) -> String {
    layers().document(&document(text)).unwrap_err().to_string()
}

#[test]
fn the_later_layer_wins_key_by_key() {
    let mut layers = layers();
    layers.document(&document("[ingest]\nbytes_per_second = 1\nratio = 2\n[listener]\nnames = ['a']")).unwrap();
    layers.document(&document("ingest.bytes_per_second = 3")).unwrap();
    let variables = [
        ("PICKET_LISTENER__ADDRESS", "0.0.0.0:1"),
        ("PICKET_LISTENER__NAMES", "['b', 'c']"),
        ("PICKET_INGEST__STRICT", "true"),
        ("PICKET_TOKEN_FILE", "not a setting"),
        ("PATH", "/bin"),
    ];
    layers.environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    layers.text("--agent-address", "listener.address", "127.0.0.1:0").unwrap();
    let config = layers.finish();
    assert_eq!(config.ingest.bytes_per_second, 3);
    assert_eq!(config.ingest.ratio, 2.0);
    assert!(config.ingest.strict);
    assert_eq!(config.listener.names, ["b", "c"]);
    assert_eq!(config.listener.address.to_string(), "127.0.0.1:0");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (text, key, nearest) in [
        ("[ingest]\nbyte_per_second = 1", "ingest.byte_per_second", "ingest.bytes_per_second"),
        ("[listner]\naddress = 'x'", "listner", "listener"),
        ("address = 'x'", "address", "listener.address"),
    ] {
        assert_eq!(refused(text), format!("server.toml: unknown key `{key}`, the nearest is `{nearest}`"));
    }
    let variable = ("PICKET_INGEST__RATION".to_owned(), "1".to_owned());
    assert_eq!(
        layers().environment([variable]).unwrap_err().to_string(),
        "environment variable PICKET_INGEST__RATION: unknown key `ingest.ration`, the nearest is `ingest.ratio`"
    );
}

#[test]
fn a_value_that_does_not_fit_names_its_key_and_place() {
    assert_eq!(refused("ingest.strict = 1"), "server.toml: `ingest.strict`: expected boolean, found integer");
    assert_eq!(refused("ingest = 1"), "server.toml: `ingest`: is a section, not a key");
    assert_eq!(refused("ingest.ratio.x = 1"), "server.toml: `ingest.ratio`: expected float, found table");
    assert!(
        refused("listener.address = 'here'").starts_with("server.toml: `listener.address`: invalid socket address")
    );
    assert!(refused("ingest.bytes_per_second = -1").starts_with("server.toml: `ingest.bytes_per_second`: "));
    assert!(refused("listener.names = [1]").starts_with("server.toml: `listener.names`: "));
    let error = layers().text("--strict", "ingest.strict", "perhaps").unwrap_err();
    assert_eq!(error.to_string(), "--strict: `ingest.strict`: expected boolean, found string");
}

#[test]
fn what_is_not_toml_says_where() {
    let error = refused("[ingest\n");
    assert!(error.starts_with("server.toml is not valid TOML: TOML parse error at line 1"), "{error}");
}

#[test]
fn a_refused_value_changes_nothing() {
    let mut layers = layers();
    layers.document(&document("ingest.bytes_per_second = -1")).unwrap_err();
    assert_eq!(layers.finish().ingest.bytes_per_second, 100);
}
