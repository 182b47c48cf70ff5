//! A process that is named to harm whoever looks at it arrives as it is, and is shown escaped.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use picket_common::event::ByteString;
use picket_common::event::limits::{ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX};
use picket_tests::process;
use picket_tests::sandbox::printed;

use crate::support::{control, executable, is_root, rows, sandbox};

const SENSORS: &str = "[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n";

/// What a file may be called that shall erase the screen, end the line, turn text round, and be no UTF-8.
const FILE_NAME: &[u8] = b"\x1b[2J\x1b]0;owned\x07 \xff\xfe\n\xe2\x80\xaegpj.\t\\x41'\"; DROP";

/// Arguments of the same kind.
const ARGUMENTS: [&[u8]; 6] = [
    b"\x1b[31mred",
    b"line\nNov 23 04:21:03 host sshd[1]: Accepted password for root",
    b"\xc2\x9b31m\xc0\x80\xf5",
    b"",
    b"\x01\x02\x7f\r",
    b"<script>alert(1)</script>",
];

/// Further arguments: two million bytes.
const LONG_ARGUMENTS: usize = 16;
const LONG_ARGUMENT_BYTES: usize = 125_000;

fn text(bytes: &[u8]) -> String {
    ByteString::from(bytes).to_string()
}

#[test]
fn a_hostile_process_arrives_intact_and_is_shown_escaped() {
    if !is_root("a_hostile_process_arrives_intact_and_is_shown_escaped") {
        return;
    }
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let agent = sandbox.agent("agent").config(SENSORS);
    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();

    let path = sandbox.folder().canonicalize().unwrap().join(OsStr::from_bytes(FILE_NAME));
    fs::copy("/bin/true", &path).unwrap();
    let long: Vec<OsString> = (0..LONG_ARGUMENTS).map(|_| OsString::from("x".repeat(LONG_ARGUMENT_BYTES))).collect();
    let mut command = Command::new(&path);
    command.arg0(OsStr::from_bytes(FILE_NAME)).args(ARGUMENTS.map(OsStr::from_bytes)).args(&long);
    assert!(command.status().unwrap().success());

    // All of it, up to the limits, is in the table.
    let mut admin = server.admin().unwrap();
    let wanted = "FROM process_activity WHERE activity = 'start' AND executable LIKE '%DROP'";
    let row = rows(&mut admin, &format!("SELECT executable, arguments, arguments_truncated {wanted}"), 1).remove(0);
    let unescaped = ByteString::unescape(row["executable"].as_str().unwrap()).unwrap();
    assert_eq!(unescaped.as_bytes(), path.as_os_str().as_bytes());
    assert_eq!(row["arguments_truncated"], true);
    let arguments: Vec<ByteString> = row["arguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| ByteString::unescape(argument.as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(arguments[0].as_bytes(), FILE_NAME);
    for (argument, given) in arguments[1..].iter().zip(ARGUMENTS) {
        assert_eq!(argument.as_bytes(), given);
    }
    let bytes: usize = arguments.iter().map(ByteString::len).sum();
    assert!(arguments.len() <= ARGUMENTS_MAX && bytes <= ARGUMENTS_BYTES_MAX, "{bytes} bytes");
    assert!(bytes > ARGUMENTS_BYTES_MAX / 2, "as much as the limits permit: {bytes}");

    // Nothing that is printed of it can do anything to a terminal or to whoever reads lines.
    let query = format!("SELECT executable, arguments[1] AS name, arguments[3] AS line, user_name {wanted}");
    for format in ["table", "json", "ndjson"] {
        let output =
            process::output(server.control(executable()).args(["event", "query", "--sql", &query, "-o", format]))
                .unwrap();
        let shown = printed(&output);
        assert!(output.status.success(), "{shown}");
        let harmful = |character: &char| {
            (character.is_control() && *character != '\n') || matches!(character, '\u{200e}'..='\u{202e}')
        };
        assert_eq!(shown.chars().find(harmful), None, "{format}: {shown:?}");
        assert!(shown.contains("\\x1b[2J") || shown.contains("\\\\x1b[2J"), "{format}: {shown}");
        // One that ends the line would begin one of its own.
        assert!(!shown.lines().any(|line| line.starts_with("Nov 23")), "{format}: {shown}");
    }
    let (rows, _) = control(&server, &["event", "query", "--sql", &query]);
    assert_eq!(rows[0]["executable"], text(path.as_os_str().as_bytes()));
    assert_eq!(rows[0]["line"], text(ARGUMENTS[1]));
    // And the agent did not print it into its own log, either.
    assert!(!running.log_tail().contains('\u{1b}'), "{}", running.log_tail());
    running.stop().unwrap();
    server.stop().unwrap();
}
