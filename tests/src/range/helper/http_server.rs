//! A small HTTP server: `/blob/<n>` answers n bytes, a POST is read and thanked for, anything else gets a few bytes.
//! Who names an instance of the range (`?i=<number>`) is noted: so the ground truth knows the ports of programs that do
//! not note them themselves.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::client::{self, ConnectionRecord};
use super::{BODY_BYTES_MAX, announce, serve};

/// How long a client may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of an answer to whoever does not ask for a size.
const SHORT_ANSWER_BYTES: usize = 16;

/// Requests served on one connection.
const REQUESTS_PER_CONNECTION_MAX: usize = 1000;

/// A connection whose client said which instance it is part of.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Visit {
    /// The instance's number.
    pub instance: usize,
    /// The connection, seen from the client.
    pub connection: ConnectionRecord,
}

/// Serves on `port` of loopback until the process is stopped; notes visits in `record`, one [`Visit`] a line.
///
/// # Errors
/// The port cannot be had, or a file cannot be written.
pub fn run(port: u16, ready: &Path, record: &Path) -> io::Result<()> {
    let visits = Mutex::new(File::create(record)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    announce(ready, listener.local_addr()?.port())?;
    serve(&listener, |stream| answer(stream, &visits))
}

fn answer(stream: TcpStream, visits: &Mutex<File>) -> io::Result<()> {
    let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
    let time_unix_ns = client::unix_ns();
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    for number in 0..REQUESTS_PER_CONNECTION_MAX {
        let first = connection.fill_buf()?.first().copied();
        // Whoever does not speak HTTP sends bytes until it has enough, and is read to the end.
        if !first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            io::copy(&mut connection.by_ref().take(BODY_BYTES_MAX as u64), &mut io::sink())?;
            return Ok(());
        }
        let head = client::read_head(&mut connection)?;
        let path = head.first_line.split(' ').nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if let (0, Some(instance)) = (number, query.strip_prefix("i=").and_then(|number| number.parse().ok())) {
            let connection = ConnectionRecord { time_unix_ns, local: client, remote: server, established: true };
            note(visits, &Visit { instance, connection })?;
        }
        let body = head.content_bytes.min(BODY_BYTES_MAX) as u64;
        io::copy(&mut connection.by_ref().take(body), &mut io::sink())?;
        let size = path.strip_prefix("/blob/").and_then(|size| size.parse().ok());
        let answer_bytes = size.unwrap_or(SHORT_ANSWER_BYTES).min(BODY_BYTES_MAX);
        let head_line = format!("HTTP/1.1 200 OK\r\nContent-Length: {answer_bytes}\r\n\r\n");
        connection.get_mut().write_all(head_line.as_bytes())?;
        client::write_body(connection.get_mut(), answer_bytes)?;
        if head.close {
            return Ok(());
        }
    }
    Ok(())
}

fn note(visits: &Mutex<File>, visit: &Visit) -> io::Result<()> {
    let mut line = serde_json::to_vec(visit)?;
    line.push(b'\n');
    visits.lock().map_err(|_| io::Error::other("another connection's thread died"))?.write_all(&line)
}
