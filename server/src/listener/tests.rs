#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use picket_common::id::HostId;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::clock::UnixSeconds;
use crate::pki::{Authorities, ServerCertificate};

/// A socket whose first attempts to accept fail as they do when the system is short of something.
struct Failing {
    socket: TcpListener,
    failures: AtomicUsize,
    error: fn() -> io::Error,
}

impl Accept for Failing {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err((self.error)()) } else { self.socket.accept().await }
    }
}

fn config() -> ListenerConfig {
    ListenerConfig {
        name: "test",
        connections_max: 1,
        streams_max: 1,
        connection_age: None,
        timeouts: Timeouts::default(),
        hosts: None,
    }
}

fn tls() -> Arc<ServerConfig> {
    let folder = tempfile::TempDir::new().unwrap();
    let now = UnixSeconds::now();
    let authority = Arc::new(Authorities::open(folder.path(), now).unwrap());
    admin_tls(Arc::new(ServerCertificate::new(authority, Vec::new(), Duration::from_secs(60), now).unwrap())).unwrap()
}

#[tokio::test]
async fn the_accept_loop_outlives_what_accept_can_fail_with() {
    let too_many_files: fn() -> io::Error = || io::Error::from_raw_os_error(24);
    let aborted: fn() -> io::Error = || io::ErrorKind::ConnectionAborted.into();
    for (error, failures) in [(too_many_files, 1), (aborted, 1_000)] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let socket = Failing { socket, failures: AtomicUsize::new(failures), error };
        let stop = CancellationToken::new();
        let template = connection::Template::new(config(), tls(), Routes::default(), TaskTracker::new());
        let stopping = stop.clone();
        let accepting = tokio::spawn(async move { accept_loop(socket, 1, template, &stopping).await });
        // Not TLS: answered with an alert, and closed.
        let mut client = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"hello, is anybody there?").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.ok();
        assert_eq!(answer.first(), Some(&21), "a TLS alert");
        stop.cancel();
        accepting.await.unwrap();
    }
}

#[test]
fn being_out_of_file_descriptors_is_waited_out() {
    for number in [23, 24, 105, 12] {
        assert_eq!(pause_after(&io::Error::from_raw_os_error(number)), Some(ACCEPT_BACK_OFF));
    }
    assert_eq!(pause_after(&io::ErrorKind::ConnectionAborted.into()), None);
}

#[test]
fn a_host_takes_and_gives_back_its_places() {
    let hosts = Arc::new(HostConnections::default());
    let host = HostId::from_random([1; 16]);
    let first = hosts.enter(host).unwrap();
    let second = hosts.enter(host).unwrap();
    assert!(hosts.enter(host).is_none());
    assert!(hosts.enter(HostId::from_random([2; 16])).is_some());
    drop(first);
    let third = hosts.enter(host).unwrap();
    hosts.cut(host);
    assert!(second.cut().is_cancelled() && third.cut().is_cancelled());
    drop((second, third));
    assert_eq!(hosts.hosts_connected(), 0);
}
