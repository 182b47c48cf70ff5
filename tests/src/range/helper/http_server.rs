//! A small HTTP server: `/blob/<n>` answers n bytes, a POST is read and thanked for, anything else gets a few bytes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{BODY_BYTES_MAX, announce, client, serve};

/// How long a client may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Requests served on one connection.
const REQUESTS_PER_CONNECTION_MAX: usize = 1000;

/// Serves on `port` of loopback until the process is stopped.
///
/// # Errors
/// The port cannot be had, or `ready` cannot be written.
pub fn run(port: u16, ready: &Path) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    announce(ready, listener.local_addr()?.port())?;
    serve(&listener, answer)
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    for _ in 0..REQUESTS_PER_CONNECTION_MAX {
        let first = connection.fill_buf()?.first().copied();
        // Whoever does not speak HTTP sends bytes until it has enough, and is read to the end.
        if !first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            io::copy(&mut connection.by_ref().take(BODY_BYTES_MAX as u64), &mut io::sink())?;
            return Ok(());
        }
        let head = client::read_head(&mut connection)?;
        let body = head.content_bytes.min(BODY_BYTES_MAX) as u64;
        io::copy(&mut connection.by_ref().take(body), &mut io::sink())?;
        let answer_bytes = head
            .first_line
            .split(' ')
            .nth(1)
            .and_then(|path| path.strip_prefix("/blob/"))
            .and_then(|size| size.parse().ok())
            .unwrap_or(16)
            .min(BODY_BYTES_MAX);
        let head_line = format!("HTTP/1.1 200 OK\r\nContent-Length: {answer_bytes}\r\n\r\n");
        connection.get_mut().write_all(head_line.as_bytes())?;
        client::write_body(connection.get_mut(), answer_bytes)?;
        if head.close {
            return Ok(());
        }
    }
    Ok(())
}
