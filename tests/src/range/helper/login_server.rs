//! A login service: greets, reads `user password`, lets in or not. At most [`TRIES_MAX`] tries a connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{announce, serve};

/// Tries before the service hangs up.
pub const TRIES_MAX: usize = 6;

/// What a look at the password costs, as with any real password hash.
const CHECK_TIME: Duration = Duration::from_millis(4);

const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const LINE_BYTES_MAX: u64 = 256;
const SESSION_LINES_MAX: usize = 1000;

/// The password that lets `user` in.
pub fn password_of(user: &str) -> String {
    format!("correct-{user}-horse")
}

/// Serves on a free port of loopback until the process is stopped.
///
/// # Errors
/// No port can be had, or `ready` cannot be written.
pub fn run(accounts: &[String], ready: &Path) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(ready, listener.local_addr()?.port())?;
    serve(&listener, |stream| answer(accounts, stream))
}

fn answer(accounts: &[String], stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    connection.get_mut().write_all(b"login service ready\n")?;
    for _ in 0..TRIES_MAX {
        let line = read_line(&mut connection)?;
        let (user, password) = line.split_once(' ').unwrap_or((&line, ""));
        std::thread::sleep(CHECK_TIME);
        if accounts.iter().any(|account| account == user) && password == password_of(user) {
            connection.get_mut().write_all(b"welcome\n")?;
            return session(&mut connection);
        }
        connection.get_mut().write_all(b"denied\n")?;
    }
    Ok(())
}

fn session(connection: &mut BufReader<TcpStream>) -> io::Result<()> {
    for number in 0..SESSION_LINES_MAX {
        let line = read_line(connection)?;
        let answer = format!("{line}: {}\n", "row ".repeat(8 + number % 40));
        connection.get_mut().write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
