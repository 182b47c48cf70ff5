//! Looking around: the machine's ports, and the machine.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::{DiscoveryStyle, ScanStyle};
use crate::range::activity::{Launch, Prepared, Program, Stage};
use crate::range::helper::NetStep;

/// Where scanned ports come from: below the ports the kernel hands out, above the well-known ones.
const SCANNED_PORTS: Range<u16> = 15_000..30_000;

/// How long a banner is waited for.
const BANNER_MS: u64 = 60;

pub(super) fn port_scan(stage: &mut Stage<'_>, style: ScanStyle, count: usize, gap_ms: u64) -> io::Result<Prepared> {
    let taken = listening_ports()?;
    let width = u16::try_from(count).unwrap_or(u16::MAX);
    let first = stage.rng.random_range(SCANNED_PORTS.start..SCANNED_PORTS.end - width);
    let mut ports: Vec<u16> = (first..first + width).filter(|port| !taken.contains(port)).collect();
    let exclusive_ports = ports.clone();
    // A scan also finds something: the range's services.
    ports.extend(stage.services.http().iter().map(SocketAddr::port));
    ports.push(stage.services.login.port());
    if style != ScanStyle::Sequential {
        ports.shuffle(&mut stage.rng);
    }
    let directory = stage.folders.tmp.clone();
    let launch = match (style, &stage.tools.bash, &stage.tools.python) {
        (ScanStyle::Bash, Some(bash), _) => {
            let list: Vec<String> = ports.iter().map(u16::to_string).collect();
            let script = format!(
                "for p in {}; do (: </dev/tcp/127.0.0.1/$p) 2>/dev/null && echo $p; done; true",
                list.join(" ")
            );
            let program =
                Program::Command { path: bash.clone(), arguments: vec!["-c".to_owned(), script], input: None };
            Launch { program, directory, record: None }
        }
        (ScanStyle::Python, _, Some(python)) => {
            let code = format!(
                "import socket, time\nfor port in {ports:?}:\n    s = socket.socket()\n    s.settimeout(1)\n    \
                 s.connect_ex(('127.0.0.1', port))\n    s.close()\n    time.sleep({})\n",
                gap_ms as f64 / 1000.0
            );
            let program =
                Program::Command { path: python.clone(), arguments: vec!["-c".to_owned(), code], input: None };
            Launch { program, directory, record: None }
        }
        _ => {
            let banner_ms = if style == ScanStyle::Banner { BANNER_MS } else { 0 };
            let mut steps = Vec::new();
            for port in ports {
                steps.push(NetStep::Probe { address: (Ipv4Addr::LOCALHOST, port).into(), banner_ms });
                if gap_ms > 0 {
                    steps.push(NetStep::Pause { ms: stage.rng.random_range(gap_ms / 2..=gap_ms * 3 / 2) });
                }
            }
            stage.tool(stage.services.web, steps)
        }
    };
    Ok(Prepared { exclusive_ports, ..Prepared::root(launch) })
}

/// Ports something listens on now, on any address.
fn listening_ports() -> io::Result<BTreeSet<u16>> {
    const LISTEN: &str = "0A";
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match std::fs::read_to_string(table) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if state == LISTEN
                && let Some(port) = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok())
            {
                ports.insert(port);
            }
        }
    }
    Ok(ports)
}

pub(super) fn look_around(stage: &mut Stage<'_>, style: DiscoveryStyle, looks: usize) -> io::Result<Prepared> {
    let directory = stage.folders.tmp.clone();
    let mut commands = vec![
        "whoami",
        "id",
        "uname -a",
        "hostname",
        "ps aux || ps",
        "ss -tan || netstat -an",
        "who",
        "w",
        "ip addr || ifconfig",
        "cat /etc/os-release",
        "cat /etc/passwd",
        "last -n 5",
        "lscpu",
        "mount",
        "env",
        "df -h",
        "groups",
        "uptime",
        "ls -la /home",
        "ls /etc/cron.d",
        "getent passwd",
        "ip route",
        "lsmod",
    ];
    let mut files = vec![
        "/etc/passwd",
        "/etc/os-release",
        "/proc/version",
        "/proc/net/tcp",
        "/proc/net/route",
        "/etc/hosts",
        "/etc/group",
        "/proc/cpuinfo",
        "/proc/mounts",
        "/etc/resolv.conf",
        "/proc/meminfo",
        "/etc/fstab",
    ];
    commands.shuffle(&mut stage.rng);
    commands.truncate(looks);
    files.shuffle(&mut stage.rng);
    files.truncate(looks);
    let quiet: Vec<String> = commands.iter().map(|command| format!("{{ {command}; }} >/dev/null 2>&1")).collect();
    let command = |path: &std::path::Path, flag: &str, code: String| Program::Command {
        path: path.to_owned(),
        arguments: vec![flag.to_owned(), code],
        input: None,
    };
    let program = match (style, &stage.tools.python, &stage.tools.perl) {
        (DiscoveryStyle::Script, ..) => {
            let folder = stage.folder_in(&directory)?;
            Program::Script {
                path: folder.join("run.sh"),
                script: format!("{}\ntrue\n", quiet.join("\n")),
                tools: Vec::new(),
            }
        }
        (DiscoveryStyle::Python, Some(python), _) => {
            let calls: Vec<String> = commands.iter().map(|command| format!("{:?}", first_words(command))).collect();
            let code = format!(
                "import os, platform, subprocess\nos.uname(); platform.platform(); os.getuid()\nfor c in [{}]:\n    \
                 subprocess.run(c, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n",
                calls.join(", ")
            );
            command(python, "-c", code)
        }
        (DiscoveryStyle::Perl, _, Some(perl)) => {
            let calls: Vec<String> =
                commands.iter().map(|command| format!("`{} 2>/dev/null`;", first_words(command))).collect();
            command(perl, "-e", calls.join(" "))
        }
        (DiscoveryStyle::Files, ..) => {
            let reads: Vec<String> = files.iter().map(|file| format!("cat {file} >/dev/null 2>&1")).collect();
            Program::Shell { script: format!("{}\nls -la /tmp /home >/dev/null 2>&1\ntrue", reads.join("\n")) }
        }
        _ => Program::Shell { script: format!("{}\ntrue", quiet.join("\n")) },
    };
    Ok(Prepared::root(Launch { program, directory, record: None }))
}

/// The command before an alternative.
fn first_words(command: &str) -> &str {
    command.split(" || ").next().unwrap_or(command)
}
