//! Both ends of the reverse-shell imitation. The commands come from the plan: they read and print, nothing else.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::announce;
use super::client::Recorder;

/// How long the operator waits for an answer before the next command.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// Waits for one connection and sends it `commands`, then `exit`.
///
/// # Errors
/// No port can be had, or the connection broke.
pub fn operate(ready: &Path, commands: &[String], pause_ms: u64) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(ready, listener.local_addr()?.port())?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    for command in commands {
        std::thread::sleep(Duration::from_millis(pause_ms));
        writeln!(stream, "{command}")?;
        // The answer is only taken off the wire; no answer in time is fine.
        let taken = stream.read(&mut [0; 16 << 10]);
        if matches!(taken, Ok(0)) {
            break;
        }
    }
    writeln!(stream, "exit")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the shell has gone.
    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
    Ok(())
}

/// Connects to the operator and runs a shell with its standard streams on the socket.
///
/// # Errors
/// The connection was refused, or there is no shell.
pub fn connect_back(address: SocketAddr, record: &Path) -> io::Result<()> {
    let stream = Recorder::create(record)?.connect(address)?;
    stream.set_read_timeout(None)?;
    let (output, error) = (stream.try_clone()?, stream.try_clone()?);
    Command::new("/bin/sh")
        .env_remove(super::PLAN_VARIABLE)
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::from(OwnedFd::from(error)))
        .status()?;
    Ok(())
}

/// Connects and copies both ways until the other end closes.
///
/// # Errors
/// The connection was refused or broke.
pub fn relay(address: SocketAddr, record: &Path) -> io::Result<()> {
    let stream = Recorder::create(record)?.connect(address)?;
    stream.set_read_timeout(None)?;
    let mut writer = stream.try_clone()?;
    // Not joined: a thread that waits for input ends with the process.
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut writer));
    let mut reader = stream;
    let mut output = io::stdout().lock();
    let mut chunk = [0; 4096];
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(()),
            read => {
                output.write_all(&chunk[..read])?;
                output.flush()?;
            }
        }
    }
}
