//! The network client: plays [`NetStep`]s and notes every connection, so that the ground truth knows its port.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};

use super::{BODY_BYTES_MAX, HttpRequest, NetStep};

/// How long a connection attempt, a read or a write may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest first word that is read from a service.
const BANNER_BYTES_MAX: u64 = 256;

/// Bytes written at a time when sending a body.
const PATTERN_BYTES: usize = 64 << 10;

/// One connection attempt of a helper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// When it began, nanoseconds since 1970.
    pub time_unix_ns: i64,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether it was established.
    pub established: bool,
}

/// Where connections are noted.
#[derive(Debug)]
pub struct Recorder(File);

impl Recorder {
    /// Creates (or empties) the file.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(Self)
    }

    /// Connects to `address` and notes the attempt, also when it fails.
    ///
    /// # Errors
    /// The connection was refused or timed out, or could not be noted.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        let time_unix_ns = unix_ns();
        let socket = rustix::net::socket_with(
            AddressFamily::of(address),
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            Some(ipproto::TCP),
        )?;
        let begun = rustix::net::connect(&socket, &address);
        // The port is known from here on, whatever becomes of the attempt.
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        let outcome = match begun {
            Err(rustix::io::Errno::INPROGRESS) => finish_connect(&socket),
            other => other.map_err(io::Error::from),
        };
        let record = ConnectionRecord { time_unix_ns, local, remote: address, established: outcome.is_ok() };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        outcome?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Nanoseconds since 1970; 0 on a machine that believes to be before.
pub(super) fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

trait FamilyOf {
    fn of(address: SocketAddr) -> Self;
}

impl FamilyOf for AddressFamily {
    fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::INET } else { Self::INET6 }
    }
}

fn finish_connect(socket: &std::os::fd::OwnedFd) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout))?;
    if ready == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    sockopt::socket_error(socket)?.map_err(io::Error::from)
}

/// Plays `steps` in order. A connection that is refused or denied does not end the play: that is what a client meets.
///
/// # Errors
/// The record file cannot be written.
pub fn run(steps: &[NetStep], record: &Path) -> io::Result<()> {
    let mut recorder = Recorder::create(record)?;
    for step in steps {
        match step {
            NetStep::Pause { ms } => std::thread::sleep(Duration::from_millis(*ms)),
            other => {
                play(other, &mut recorder).ok();
            }
        }
    }
    Ok(())
}

fn play(step: &NetStep, recorder: &mut Recorder) -> io::Result<()> {
    match step {
        NetStep::Http { address, requests, gap_ms } => {
            let mut connection = BufReader::new(recorder.connect(*address)?);
            for (index, request) in requests.iter().enumerate() {
                if index > 0 {
                    std::thread::sleep(Duration::from_millis(*gap_ms));
                }
                exchange(&mut connection, *address, request, index + 1 == requests.len())?;
            }
            Ok(())
        }
        NetStep::Probe { address, banner_ms } => {
            let stream = recorder.connect(*address)?;
            if *banner_ms > 0 {
                stream.set_read_timeout(Some(Duration::from_millis(*banner_ms)))?;
                // Most services wait for the client to speak first: silence is an answer too.
                io::copy(&mut stream.take(BANNER_BYTES_MAX), &mut io::sink()).ok();
            }
            Ok(())
        }
        NetStep::Login { address, tries, session_lines, pause_ms } => {
            log_in(recorder.connect(*address)?, tries, *session_lines, Duration::from_millis(*pause_ms))
        }
        NetStep::Send { address, bytes, chunk_bytes, gap_ms } => {
            let mut stream = recorder.connect(*address)?;
            let mut left = (*bytes).min(BODY_BYTES_MAX);
            while left > 0 {
                let chunk = left.min((*chunk_bytes).max(1));
                write_body(&mut stream, chunk)?;
                left -= chunk;
                std::thread::sleep(Duration::from_millis(*gap_ms));
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink())?;
            Ok(())
        }
        NetStep::Pause { .. } => Ok(()),
    }
}

fn exchange(
    connection: &mut BufReader<TcpStream>,
    address: SocketAddr,
    request: &HttpRequest,
    last: bool,
) -> io::Result<()> {
    let method = if request.post_bytes > 0 { "POST" } else { "GET" };
    let keep = if last { "close" } else { "keep-alive" };
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: {address}\r\nConnection: {keep}\r\nContent-Length: {}\r\n\r\n",
        request.path, request.post_bytes
    );
    connection.get_mut().write_all(head.as_bytes())?;
    write_body(connection.get_mut(), request.post_bytes)?;
    let length = read_head(connection)?.content_bytes;
    io::copy(&mut connection.take(length as u64), &mut io::sink())?;
    Ok(())
}

/// What matters of an HTTP message's head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// First line.
    pub first_line: String,
    /// `Content-Length`.
    pub content_bytes: usize,
    /// Whether the sender closes after this message.
    pub close: bool,
}

/// Reads the head of an HTTP message, at most 64 lines of 8 KiB.
///
/// # Errors
/// The connection ended, or the head is not one.
pub fn read_head(connection: &mut impl io::BufRead) -> io::Result<Head> {
    const LINES_MAX: usize = 64;
    const LINE_BYTES_MAX: u64 = 8 << 10;
    let mut head = Head::default();
    for index in 0..LINES_MAX {
        let mut line = String::new();
        if connection.take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(head);
        }
        if index == 0 {
            head.first_line = line;
        } else if let Some(value) = line.strip_prefix("content-length:") {
            head.content_bytes = value.trim().parse().map_err(io::Error::other)?;
        } else if line == "connection: close" {
            head.close = true;
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn log_in(stream: TcpStream, tries: &[(String, String)], session_lines: u32, pause: Duration) -> io::Result<()> {
    let mut connection = BufReader::new(stream);
    let mut line = String::new();
    connection.read_line(&mut line)?;
    for (user, password) in tries {
        writeln!(connection.get_mut(), "{user} {password}")?;
        line.clear();
        connection.read_line(&mut line)?;
        if line.trim_end() != "welcome" {
            std::thread::sleep(pause);
            continue;
        }
        for number in 0..session_lines {
            std::thread::sleep(pause);
            writeln!(connection.get_mut(), "show {number}")?;
            line.clear();
            connection.read_line(&mut line)?;
        }
        return Ok(());
    }
    Ok(())
}

/// Writes `bytes` bytes that mean nothing and do not compress.
///
/// # Errors
/// The other end went away.
pub fn write_body(writer: &mut impl io::Write, bytes: usize) -> io::Result<()> {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(PATTERN_BYTES).collect()
    });
    let mut left = bytes.min(BODY_BYTES_MAX);
    while left > 0 {
        let chunk = left.min(PATTERN_BYTES);
        writer.write_all(&pattern[..chunk])?;
        left -= chunk;
    }
    Ok(())
}
