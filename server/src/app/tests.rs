#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::tests::agent::{Agent, Target};
use crate::api::tests::frames::Frames;

fn config(state: &Path) -> Config {
    let mut config = Config::default();
    config.server.state_dir = state.to_owned();
    config.agent_listener.address.set_port(0);
    config.admin_listener.address.set_port(0);
    config
}

async fn handshake(address: SocketAddr, ca: &Path) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("picket-server").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.map(drop)
}

#[tokio::test]
async fn a_server_says_where_it_answers_while_it_does() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let server = Server::start(config(&state)).await.unwrap();
    let file: serde_json::Value = serde_json::from_slice(&fs::read(state.join("run/endpoints.json")).unwrap()).unwrap();
    let endpoints = server.endpoints();
    assert_eq!(file["agent"], endpoints.agent.to_string());
    assert_eq!(file["admin"], endpoints.admin.to_string());
    for address in [endpoints.agent, endpoints.admin] {
        assert_ne!(address.port(), 0);
        handshake(address, &state.join("ca.pem")).await.unwrap();
    }
    for (path, mode) in [("", 0o700), ("admin.token", 0o600), ("pki/authority.pem", 0o600)] {
        assert_eq!(state.join(path).metadata().unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    server.stop().await.unwrap();
    assert!(!state.join("run/endpoints.json").exists());
    TcpStream::connect(endpoints.agent).await.unwrap_err();
    TcpStream::connect(endpoints.admin).await.unwrap_err();
}

#[tokio::test]
async fn a_restarted_server_is_the_same_one() {
    let folder = TempDir::new().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let server = Server::start(config(folder.path())).await.unwrap();
        let files = ["ca.pem", "admin.token"].map(|name| fs::read(folder.path().join(name)).unwrap());
        seen.push(files);
        server.stop().await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn one_server_for_each_state_folder() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(config(folder.path())).await.unwrap();
    let error = Server::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, StartError::StateDir(StateDirError::Locked { .. })), "{error}");
    assert!(folder.path().join("run/endpoints.json").exists(), "the first one is not disturbed");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for listener in ["agents", "admin"] {
        let mut config = config(folder.path());
        match listener {
            "agents" => config.agent_listener.address = address,
            _ => config.admin_listener.address = address,
        }
        let error = Server::start(config).await.unwrap_err();
        assert!(matches!(&error, StartError::Bind(error) if error.is_address_in_use()));
        assert!(error.to_string().starts_with(&format!("cannot listen on {address} ({listener}): ")), "{error}");
    }
    drop(taken);
    let server = Server::start(config(folder.path())).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn endpoints_of_a_server_that_was_killed_are_not_believed() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("run/endpoints.json"), "{}").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(folder.path());
    config.agent_listener.address = taken.local_addr().unwrap();
    Server::start(config).await.unwrap_err();
    assert!(!folder.path().join("run/endpoints.json").exists());
}

#[tokio::test]
async fn a_server_runs_until_it_is_asked_to_stop() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(config(folder.path())).await.unwrap();
    let (ask, asked) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        asked.await.ok();
    }));
    assert!(folder.path().join("run/endpoints.json").exists());
    drop(ask);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_lake_when_the_server_has_stopped() {
    const EVENTS: u64 = 40;
    let folder = TempDir::new().unwrap();
    let mut slow = config(folder.path());
    slow.lake.commit_interval_s = NonZeroU32::MAX;
    let server = Server::start(slow.clone()).await.unwrap();

    let authority = CertificateDer::from_pem_file(folder.path().join("ca.pem")).unwrap();
    let token = join_token(folder.path()).await;
    let target = Target { address: server.endpoints().agent, authority };
    let agent = Agent::enrolled(&target, &token).await.unwrap();
    let mut delivery = agent.deliver().await.unwrap();
    let mut frames = Frames::new(7);
    for _ in 0..4 {
        delivery.send(frames.next(EVENTS / 4)).await.unwrap();
    }
    // In the middle of a stream.
    server.stop().await.unwrap();
    assert!(delivery.answer().await.is_err());

    let wal = Arc::new(Wal::open(&folder.path().join("wal"), WalConfig::default()).unwrap());
    let lake = Lake::open(&folder.path().join("lake"), wal, slow.lake.lake_config()).await.unwrap();
    let stored = lake.events_stored().await.unwrap();
    assert_eq!(stored[&agent.host()].values().sum::<u64>(), EVENTS);
}

/// A join token, made beside the running server.
async fn join_token(state: &Path) -> String {
    let metastore = Metastore::open(&state.join("metadata.sqlite")).await.unwrap();
    let now = UnixSeconds::now();
    let authorities = Arc::new(Authorities::open(state, now).unwrap());
    let life = Duration::from_secs(60);
    let config = EnrollmentConfig { host_certificate_life: life, model_verifying_keys: Vec::new() };
    let enrollment = Enrollment::new(authorities, metastore.clone(), config);
    let token = enrollment.create_token("test", life, 1, now).await.unwrap();
    metastore.close().await;
    token.text.rsplit_once('.').unwrap().0.to_owned()
}
