#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use picket_common::event::{ByteString, EventBody, Origin, StreamKind};

use crate::sensor::config::{ModeChoice, SensorConfig};
use crate::sensor::netlink::{NetlinkSocket, Received, TYPE_DONE, message, messages};
use crate::sensor::process::proc_event::{self, SequenceGaps};
use crate::sensor::test_sink::{DEADLINE, TestSink};
use crate::sensor::{Observation, SensorError, SensorSet};

mod program;

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

fn config(mode: ModeChoice) -> SensorConfig {
    let mut config = SensorConfig::all_off();
    config.process.mode = mode;
    config.process.poll_interval_ms = 20;
    config
}

/// The ways in which the kernel itself tells of processes.
const TOLD: [(ModeChoice, Origin); 2] =
    [(ModeChoice::Ebpf, Origin::AgentEbpf), (ModeChoice::Netlink, Origin::AgentNetlink)];

/// The sensor in a way, where that is permitted.
fn started(sink: &TestSink, mode: ModeChoice) -> Option<SensorSet> {
    match crate::sensor::start(&config(mode), sink.context()) {
        Ok(set) => {
            // What is there already is taken in first; until that is done, also a new process can be found in it.
            let mut marker = sleeper();
            while sink.wait_for_start(marker.id()).1.seeded {
                end(std::mem::replace(&mut marker, sleeper()));
            }
            end(marker);
            Some(set)
        }
        Err(SensorError::ModeUnavailable { reason, .. }) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs a test in each way that is permitted.
fn with_each_way(test: impl Fn(&TestSink, &SensorSet, Origin)) {
    for (mode, origin) in TOLD {
        let sink = TestSink::default();
        let Some(set) = started(&sink, mode) else { continue };
        test(&sink, &set, origin);
        assert_eq!(sink.lost(), 0);
        assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
    }
}

fn sleeper() -> Child {
    Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn each_of_many_short_processes_is_seen_once_with_its_end() {
    with_each_way(|sink, _, origin| {
        const COUNT: usize = 300;
        let mut pids = BTreeSet::new();
        for _ in 0..COUNT {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            assert!(pids.insert(child.id()), "the test cannot tell processes with one pid apart");
            child.wait().unwrap();
        }
        for &pid in &pids {
            sink.wait_for_exit(pid);
        }
        assert_eq!(sink.lost(), 0);
        let mut starts = BTreeMap::<_, u32>::new();
        let mut exits = BTreeMap::<_, u32>::new();
        let mut described = 0;
        for observation in sink.observations() {
            match observation.body {
                EventBody::ProcessStart(start) if pids.contains(&start.process.pid) => {
                    assert_eq!((observation.origin, start.seeded), (origin, false));
                    assert_eq!(start.parent.unwrap().pid, std::process::id());
                    assert!(start.process.start_time <= observation.time);
                    assert!(!start.user_name.is_empty() || start.user_id != Some(0));
                    described += usize::from(!start.executable.is_empty());
                    *starts.entry(start.process).or_default() += 1;
                }
                EventBody::ProcessExit(exit) if pids.contains(&exit.process.pid) => {
                    assert_eq!((exit.exit_code, exit.signal), (Some(0), None));
                    assert!(exit.duration_ns.unwrap() < DEADLINE.as_nanos() as u64);
                    *exits.entry(exit.process).or_default() += 1;
                }
                _ => {}
            }
        }
        assert_eq!(starts.len(), COUNT);
        assert!(starts.values().all(|&count| count == 1));
        assert_eq!(starts, exits, "every event of a process carries one identity");
        // They live for a millisecond: on a busy machine some are gone before they can be looked at.
        assert!(described > 0, "not one of {COUNT} was described");
        if origin == Origin::AgentEbpf {
            assert_eq!(described, COUNT, "what is told by the kernel cannot be missed");
        }
        eprintln!("{described} of {COUNT} processes of a millisecond were described");
    });
}

#[test]
fn a_start_says_who_and_how_and_an_end_says_why() {
    with_each_way(|sink, set, origin| {
        assert_eq!(set.modes.len(), 1);
        assert_eq!((set.modes[0].name.as_bytes(), set.modes[0].origin), (&b"process"[..], origin));
        let mut child = Command::new("/bin/sh")
            .args(["-c", "/bin/sleep 60; exit 3"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (_, shell) = sink.wait_for_start(child.id());
        let (_, sleep) = sink.wait_for("start of the shell's child", |observations| {
            observations.iter().find_map(|observation| match &observation.body {
                EventBody::ProcessStart(start) if start.parent == Some(shell.process) => {
                    Some((observation.time, (**start).clone()))
                }
                _ => None,
            })
        });
        let expected = ["/bin/sh", "-c", "/bin/sleep 60; exit 3"].map(ByteString::from);
        assert_eq!((&shell.arguments[..], shell.arguments_truncated), (&expected[..], false));
        assert_eq!(shell.working_directory, ByteString::from("/"));
        assert_eq!(shell.standard_streams[..2], [StreamKind::Null, StreamKind::Pipe]);
        assert_eq!(shell.user_id, Some(rustix::process::geteuid().as_raw()));
        assert_eq!(sleep.ancestors[0], shell.executable);
        assert_eq!(sleep.ancestors[1].as_bytes(), std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert_eq!(sleep.session_id, shell.session_id);
        assert_eq!(shell.executable_deleted, Some(false));

        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(sleep.process.pid).unwrap()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let (_, exit) = sink.wait_for_exit(sleep.process.pid);
        assert_eq!((exit.process, exit.exit_code, exit.signal), (sleep.process, None, Some(15)));
        let (_, exit) = sink.wait_for_exit(child.id());
        assert_eq!((exit.process, exit.exit_code, exit.signal), (shell.process, Some(3), None));
        assert_eq!(exit.executable, shell.executable);
        child.wait().unwrap();
        assert!(set.status()[0].events_total >= 4);
    });
}

#[test]
fn what_runs_already_is_seeded_and_the_agent_is_not_reported() {
    for (mode, _) in TOLD {
        let child = sleeper();
        let sink = TestSink::default();
        let Some(set) = started(&sink, mode) else {
            end(child);
            continue;
        };
        let (_, start) = sink.wait_for_start(child.id());
        assert!(start.seeded);
        let later = sleeper();
        let (_, start) = sink.wait_for_start(later.id());
        assert!(!start.seeded);
        let pids = [child.id(), later.id()];
        end(child);
        end(later);
        for pid in pids {
            assert_eq!(sink.wait_for_exit(pid).1.signal, Some(9));
            assert_eq!(sink.starts_of(pid).len(), 1);
        }
        assert_eq!(sink.starts_of(std::process::id()), []);
        set.stop_and_join(STOP_TIMEOUT);
    }
}

/// The sensor on eBPF programs, where that is permitted.
fn with_ebpf(test: impl FnOnce(&TestSink)) {
    let sink = TestSink::default();
    let Some(set) = started(&sink, ModeChoice::Ebpf) else { return };
    test(&sink);
    assert_eq!(sink.lost(), 0);
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

#[test]
fn ebpf_says_the_same_as_proc() {
    with_ebpf(|sink| {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c d/e");
        std::fs::create_dir_all(&deep).unwrap();
        let child = Command::new("/bin/sleep")
            .args(["60", "0"])
            .current_dir(&deep)
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(folder.path().join("out")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (_, start) = sink.wait_for_start(child.id());
        let clock = crate::enrich::boot_clock::BootClock::measure();
        let shown = crate::enrich::procfs::ProcReader::open(clock).unwrap().details(child.id()).unwrap();
        end(child);
        assert_eq!(start.working_directory.as_bytes(), deep.as_os_str().as_encoded_bytes());
        assert_eq!(start.standard_streams, [StreamKind::Pipe, StreamKind::File, StreamKind::Null]);
        assert_eq!(start.parent.unwrap().pid, std::process::id());
        // Boot was measured twice, each time exact to one tick.
        let distance = start.process.start_time.0.abs_diff(shown.start_time.unwrap().0);
        assert!(distance <= 2 * crate::enrich::boot_clock::TICK_NS.unsigned_abs(), "{distance}");
        assert_eq!(start.executable.as_bytes(), shown.executable);
        assert_eq!((start.executable_deleted, start.has_terminal), (shown.executable_deleted, shown.has_terminal));
        assert_eq!((start.arguments, start.arguments_truncated), (shown.arguments.values, shown.arguments.truncated));
        assert_eq!(
            (start.working_directory, start.standard_streams),
            (shown.working_directory, shown.standard_streams)
        );
        let ids = (shown.user_id, shown.group_id, shown.session_id);
        assert_eq!((start.user_id, start.group_id, start.session_id), ids);
        assert_eq!((start.executable_file, start.script), (shown.executable_file, ByteString::default()));
        assert!(start.executable_file.is_some());
        // Where the hierarchy is not mounted, only the kernel knows the id.
        assert!(shown.cgroup_id.is_none() || start.cgroup_id == shown.cgroup_id);
        assert_eq!((start.cgroup.is_empty(), start.cgroup), (false, shown.cgroup));
    });
}

#[test]
fn ebpf_gives_processes_the_ids_that_proc_gives_them() {
    let clock = crate::enrich::boot_clock::BootClock::measure();
    let mut reader = crate::enrich::procfs::ProcReader::open(clock).unwrap();
    let mut sources =
        crate::sensor::ebpf::EbpfLoading::begin_with(vec![&crate::sensor::ebpf::object::PROCESS], None).finish();
    let mut source = match sources.take(&crate::sensor::ebpf::object::PROCESS) {
        Ok(source) => source,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let child = sleeper();
    let deadline = Instant::now() + DEADLINE;
    let created_ns = loop {
        let record = source.next().and_then(|bytes| super::ebpf_record::parse(&bytes));
        match record {
            Some(record) if record.pid == child.id() => break record.created_ns,
            Some(_) => {}
            None => assert!(Instant::now() < deadline),
        }
    };
    let shown = reader.details(child.id()).unwrap().start_time;
    end(child);
    assert_eq!(Some(clock.created_at(created_ns)), shown);
}

#[test]
fn ebpf_takes_arguments_up_to_the_limit_and_says_what_was_cut() {
    with_ebpf(|sink| {
        // Read at once: the process is over before /proc could be asked.
        let arguments: Vec<String> = (0..50).map(|number| format!("{number}-{}", "x".repeat(100))).collect();
        let mut child = Command::new("/bin/true").args(&arguments).spawn().unwrap();
        child.wait().unwrap();
        let (_, start) = sink.wait_for_start(child.id());
        assert_eq!((start.arguments.len(), start.arguments_truncated), (51, false));
        assert_eq!(start.arguments[50].as_bytes(), arguments[49].as_bytes());
        let mut child = Command::new("/bin/true").arg("y".repeat(100_000)).spawn().unwrap();
        child.wait().unwrap();
        let (_, start) = sink.wait_for_start(child.id());
        assert!(start.arguments_truncated);
        let bytes: usize = start.arguments.iter().map(ByteString::len).sum();
        assert!((4000..=picket_common::event::limits::ARGUMENTS_BYTES_MAX).contains(&bytes), "{bytes}");
        assert_eq!(
            start.executable.as_bytes(),
            std::fs::canonicalize("/bin/true").unwrap().as_os_str().as_encoded_bytes()
        );
    });
}

#[test]
fn ebpf_knows_an_executable_that_has_no_name_any_more() {
    with_ebpf(|sink| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone");
        std::fs::copy("/bin/sleep", &path).unwrap();
        let script = format!("exec 3<{0}; rm {0}; exec /proc/self/fd/3 60", path.display());
        let child = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        let start = sink.wait_for("start of what was removed", |observations| {
            observations.iter().find_map(|observation| match &observation.body {
                EventBody::ProcessStart(start)
                    if start.process.pid == child.id()
                        && start.executable.as_bytes() == path.as_os_str().as_encoded_bytes() =>
                {
                    Some((**start).clone())
                }
                _ => None,
            })
        });
        assert_eq!(start.executable_deleted, Some(true));
        end(child);
    });
}

#[test]
fn ebpf_sees_each_process_of_a_burst() {
    const COUNT: usize = 2000;
    const AT_ONCE: usize = 100;
    with_ebpf(|sink| {
        let mut pids = BTreeSet::new();
        for _ in 0..COUNT / AT_ONCE {
            let children: Vec<_> = (0..AT_ONCE).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
            for mut child in children {
                assert!(pids.insert(child.id()), "the test cannot tell processes with one pid apart");
                child.wait().unwrap();
            }
        }
        let (mut described, mut ended) = (BTreeSet::new(), BTreeSet::new());
        sink.wait_for("end of the burst", |observations| {
            for observation in observations {
                match &observation.body {
                    EventBody::ProcessStart(start) if !start.executable.is_empty() && start.arguments.len() == 1 => {
                        described.insert(start.process.pid);
                    }
                    EventBody::ProcessExit(exit) => {
                        ended.insert(exit.process.pid);
                    }
                    _ => {}
                }
            }
            pids.is_subset(&ended).then_some(())
        });
        assert!(pids.is_subset(&described));
    });
}

/// Also run as a program of its own, by the next test.
#[test]
fn threads_come_and_go() {
    let threads: Vec<_> = (0..8_u32).map(|number| std::thread::spawn(move || number)).collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>(), 28);
}

#[test]
fn threads_are_not_processes() {
    with_each_way(|sink, _, _| {
        let name = "sensor::process::tests::threads_come_and_go";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, status) = (child.id(), child.wait().unwrap());
        assert!(status.success());
        sink.wait_for_exit(pid);
        assert_eq!(sink.starts_of(pid).len(), 1);
        let ends = |observation: &&Observation| match &observation.body {
            EventBody::ProcessExit(exit) => exit.process.pid == pid,
            _ => false,
        };
        assert_eq!(sink.observations().iter().filter(ends).count(), 1);
    });
}

#[test]
fn polling_sees_what_stays() {
    let before = sleeper();
    let sink = TestSink::default();
    let set = sink.start(&config(ModeChoice::Polling));
    assert_eq!(set.modes[0].origin, Origin::AgentPolling);
    assert!(!set.modes[0].reason.is_empty());
    let (observation, start) = sink.wait_for_start(before.id());
    assert_eq!((observation.origin, start.seeded), (Origin::AgentPolling, true));
    let child = sleeper();
    let (_, start) = sink.wait_for_start(child.id());
    assert!(!start.seeded);
    assert_eq!(start.parent.unwrap().pid, std::process::id());
    let executable = std::fs::canonicalize("/bin/sleep").unwrap();
    assert_eq!(start.executable.as_bytes(), executable.as_os_str().as_encoded_bytes());
    let pid = child.id();
    child_ends_for_polling(child);
    let (_, exit) = sink.wait_for_exit(pid);
    assert_eq!((exit.process, exit.exit_code), (start.process, None));
    assert!(exit.duration_ns.is_some());
    end(before);
    assert_eq!(sink.starts_of(std::process::id()), []);
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

/// A zombie has ended, also for a look at the process table.
fn child_ends_for_polling(mut child: Child) {
    child.kill().unwrap();
    std::thread::spawn(move || child.wait());
}

#[test]
fn off_is_off() {
    let set = TestSink::default().start(&config(ModeChoice::Off));
    assert!(set.modes.is_empty() && set.status().is_empty());
}

#[test]
fn losses_are_counted_exactly() {
    let opened = NetlinkSocket::open(netlink_sys::protocols::NETLINK_CONNECTOR, proc_event::GROUPS);
    let Ok(socket) = opened else { return eprintln!("skipped: no permission for the process connector") };
    socket.continue_after_overrun().unwrap();
    socket.set_receive_timeout(Duration::from_millis(20)).unwrap();
    socket.send(&message(TYPE_DONE, 0, 0, &proc_event::listen_request())).unwrap();
    let mut drain =
        Drain { socket, gaps: SequenceGaps::default(), processors: BTreeSet::new(), missing: 0, received: 0 };
    // The first message of each processor shows nothing about what was before.
    let processors = std::thread::available_parallelism().unwrap().get();
    let deadline = Instant::now() + DEADLINE;
    while drain.processors.len() < processors {
        drain.run();
        if drain.received == 0 {
            return eprintln!("skipped: the process connector does not answer");
        }
        assert!(Command::new("/bin/true").status().unwrap().success());
        assert!(Instant::now() < deadline);
    }
    assert_eq!((drain.socket.drops(), drain.missing), (Some(0), 0));
    drain.socket.enlarge_receive_buffer(4096);
    for _ in 0..50 {
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
    // A gap shows with the first message after it, of the same processor: a few more until all have shown.
    let deadline = Instant::now() + DEADLINE;
    loop {
        drain.run();
        let dropped = drain.socket.drops().unwrap();
        if dropped > 0 && drain.missing == dropped {
            break;
        }
        assert!(Instant::now() < deadline, "{} missing, {dropped} dropped", drain.missing);
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
    eprintln!("{} of {} messages were dropped, and counted", drain.missing, drain.missing + drain.received);
}

struct Drain {
    socket: NetlinkSocket,
    gaps: SequenceGaps,
    processors: BTreeSet<u32>,
    missing: u64,
    received: u64,
}

impl Drain {
    /// Reads until nothing comes.
    fn run(&mut self) {
        let mut buffer = vec![0; 4096];
        while let Received::Datagram(length) = self.socket.receive(&mut buffer).unwrap() {
            for message in messages(&buffer[..length]).filter_map(|message| proc_event::parse(message.payload)) {
                self.received += 1;
                self.processors.insert(message.processor);
                self.missing += self.gaps.observe(&message);
            }
        }
    }
}

#[test]
fn ebpf_counts_what_one_cgroup_does_in_excess() {
    const PER_SECOND: u32 = 50;
    const COUNT: u64 = 300;

    let sink = TestSink::default();
    let mut config = config(ModeChoice::Ebpf);
    config.process.starts_per_second_max = PER_SECOND;
    let set = match crate::sensor::start(&config, sink.context()) {
        Ok(set) => set,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let begin = Instant::now();
    let pids: Vec<u32> = (0..COUNT)
        .map(|_| {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            pid
        })
        .collect();
    let took = begin.elapsed().as_secs_f64();
    // Their ends are told all the same.
    for pid in &pids {
        sink.wait_for_exit(*pid);
    }
    let deadline = Instant::now() + DEADLINE;
    let seen = loop {
        let is_ours = |observation: &&Observation| match &observation.body {
            EventBody::ProcessStart(start) => pids.contains(&start.process.pid),
            _ => false,
        };
        let seen = sink.observations().iter().filter(is_ours).count() as u64;
        if seen + sink.throttled() >= COUNT {
            break seen;
        }
        assert!(Instant::now() < deadline, "{seen} seen, {} counted", sink.throttled());
        std::thread::sleep(Duration::from_millis(20));
    };
    let most = f64::from(PER_SECOND) * (took + 2.0);
    assert!(seen as f64 <= most && seen >= 1, "{seen} of {COUNT} in {took} s");
    assert_eq!(sink.lost(), 0);
    set.stop_and_join(STOP_TIMEOUT);
}
