//! The connection sensor on an eBPF program.
//!
//! Beginnings and ends are told by the kernel with all that is to know of them; what was connected before the agent
//! started is found by a look at the live sockets (`sock_diag`), which names them by the same cookies. Connections of
//! all network namespaces are told, looks show only those of the agent's own.
//!
//! Some ends the kernel does not tell (Linux 6.18: a few in a million accepted connections go away after they sent their
//! FIN, and `perf` on the same tracepoint is not told either): what two looks do not show any more has ended.
//!
//! A process that has just started may connect at once: records are used when the process sensor has told of their owners.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, Origin, Timestamp};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::{Owner, SocketOwners};
use crate::sensor::connection::ebpf_record::{self, Change, ConnectionRecord};
use crate::sensor::connection::sock_diag::{DiagClient, DiagSocket, TcpInfo, TcpState};
use crate::sensor::connection::table::{ConnectionTable, OwnConnections, Witness};
use crate::sensor::connection::{NAME, mode};
use crate::sensor::ebpf::RecordSource;
use crate::sensor::event_clock::EventClock;
use crate::sensor::maintenance::Maintenance;
use crate::sensor::process_progress::ProcessProgress;
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, priority};

/// Most records taken before something else gets its turn.
const RECORDS_PER_TURN_MAX: usize = 4096;
/// Most turns after the stop: more than a full ring buffer needs.
const LAST_TURNS_MAX: u32 = 8;
/// How long records rest before they are used. What follows a first one meanwhile costs no wake-up, and the process sensor
/// has told of their owners, mostly.
const REST: Duration = Duration::from_micros(3_500);
/// Time between two looks for ends that were not told, and how many of them an end takes: one alone may skip a socket
/// while others come and go.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
const LOOKS_OF_AN_END: u64 = 2;
/// Most sockets remembered that are used again and still live.
const REUSED_MAX: usize = 4096;

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    source: RecordSource,
    client: DiagClient,
    owners: SocketOwners,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let (stop, progress) = (environment.stop.clone(), environment.process_progress.clone());
    let user = rustix::process::geteuid();
    let own = OwnConnections {
        pid: environment.own_pid,
        remotes: environment.own_remotes.clone(),
        visible_user: (!user.is_root()).then_some(user.as_raw()),
    };
    environment.spawn(mode(Origin::AgentEbpf, ""), NAME, move |reporter| {
        priority::raise();
        let mut sensor = ConnectionSensor {
            reporter,
            source,
            client,
            owners,
            table: ConnectionTable::new(own),
            clock: EventClock::default(),
            own_network: own_network(),
            reused: HashMap::new(),
            resting: Vec::new(),
            evictions: 0,
            has_lost: false,
            looked: Instant::now(),
            progress,
        };
        sensor.look()?;
        let mut maintenance = Maintenance::new();
        while !stop.is_raised() {
            sensor.source.wait(maintenance.patience(), &stop)?;
            if sensor.take_records() > 0 {
                maintenance.hasten();
                sensor.rest();
                sensor.use_records();
            }
            if maintenance.is_due() {
                maintenance.done(sensor.maintain()?);
            }
        }
        // What was recorded before the stop is still told.
        sensor.tell_rest();
        for _ in 0..LOOKS_OF_AN_END {
            sensor.find_ended()?;
        }
        Ok(())
    })
}

/// What the connection of a socket is called.
fn named(reused: &HashMap<u64, u64>, cookie: u64) -> u64 {
    reused.get(&cookie).copied().unwrap_or(cookie)
}

/// The agent's own network namespace; 0 where it is not known.
fn own_network() -> u32 {
    let inode = std::fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino());
    inode.ok().and_then(|inode| u32::try_from(inode).ok()).unwrap_or(0)
}

struct ConnectionSensor<S> {
    reporter: Reporter<S>,
    source: RecordSource,
    client: DiagClient,
    owners: SocketOwners,
    table: ConnectionTable,
    clock: EventClock,
    own_network: u32,
    /// What the connections of sockets that are used again are called, by cookie.
    reused: HashMap<u64, u64>,
    resting: Vec<(Timestamp, ConnectionRecord)>,
    evictions: u64,
    /// Something was lost since the last look: what that does not show is forgotten.
    has_lost: bool,
    /// When the last look for ends was.
    looked: Instant,
    progress: ProcessProgress,
}

impl<S: ObservationSink> ConnectionSensor<S> {
    /// Looks at all live sockets of this network namespace; says whether it saw all.
    fn look(&mut self) -> io::Result<bool> {
        let time = boot_clock::now();
        self.table.begin_look();
        let (table, reused) = (&mut self.table, &self.reused);
        let mut see = |socket: DiagSocket| {
            table.see(&DiagSocket { cookie: named(reused, socket.cookie), ..socket }, time, None);
        };
        let looked = match self.client.dump(false, &mut see) {
            // Listeners are dumped first: one that began meanwhile tells who began the connections it accepted.
            Ok(()) => self.client.dump_listening(&mut see),
            error => error,
        };
        match looked {
            Ok(()) => {}
            // A look that was cut short says nothing of what it did not show.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
            Err(error) => return Err(error),
        }
        self.find_owners();
        self.report_opened();
        self.report_listening();
        Ok(true)
    }

    fn find_owners(&mut self) {
        let table = &mut self.table;
        let mut wanted = table.wanted_owners();
        if !wanted.is_empty() {
            self.owners.find(&mut wanted, |cookie, owner| table.set_owner(cookie, owner));
        }
    }

    fn report_opened(&mut self) {
        for (time, body) in self.table.take_opened() {
            self.reporter.send(time, body);
        }
    }

    fn report_listening(&mut self) {
        for (time, body) in self.table.take_listening() {
            self.reporter.send(time, body);
        }
    }

    /// Uses all records that are there now; says whether it came to their end.
    fn tell_rest(&mut self) -> bool {
        for _ in 0..LAST_TURNS_MAX {
            let taken = self.take_records();
            self.use_records();
            if taken < RECORDS_PER_TURN_MAX {
                return true;
            }
        }
        false
    }

    /// Looks for connections that have ended without being told. Where records were lost that is not done: their ends are
    /// counted already.
    fn find_ended(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        self.table.begin_look();
        let (table, reused) = (&mut self.table, &self.reused);
        match self.client.dump(false, |socket| table.mark_alive(named(reused, socket.cookie))) {
            Ok(()) => {}
            // A look that was cut short says nothing of what it did not show.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.table.take_back_look();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // What ended before the look has been recorded, and is told by that.
        self.rest();
        let is_all_told = self.tell_rest();
        self.has_lost |= self.count_losses();
        if is_all_told && !self.has_lost && self.reused.len() < REUSED_MAX {
            let time = boot_clock::now();
            for close in self.table.take_missing(LOOKS_OF_AN_END, time) {
                self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
            }
        }
        Ok(())
    }

    /// Lets records come, and the process sensor tell of their owners.
    fn rest(&self) {
        std::thread::sleep(REST);
        self.progress.wait_until_told();
    }

    /// Takes the records that are there; gives back how many.
    fn take_records(&mut self) -> usize {
        while self.resting.len() < RECORDS_PER_TURN_MAX
            && let Some(record) = self.source.next().map(|bytes| ConnectionRecord::parse(&bytes))
        {
            match record {
                Some(record) => {
                    let time = self.clock.wall_clock(record.monotonic_ns, boot_clock::now());
                    self.resting.push((time, record));
                }
                None => self.reporter.lost(1),
            }
        }
        self.resting.len()
    }

    fn use_records(&mut self) {
        Reporter::together(self, |sensor| &sensor.reporter, Self::tell_records);
    }

    fn tell_records(&mut self) {
        let mut records = std::mem::take(&mut self.resting);
        for (time, record) in records.drain(..) {
            match record.change {
                Change::Established => self.connection_began(time, &record),
                Change::Ended => self.connection_ended(time, &record),
                Change::Listens => self.listener_began(time, &record),
            }
        }
        self.resting = records;
    }

    fn connection_began(&mut self, time: Timestamp, record: &ConnectionRecord) {
        if record.ended_before > 0 && self.reused.len() < REUSED_MAX {
            self.reused.insert(record.cookie, record.id());
        }
        let witness = Witness { time, established: true, ..self.witness(time, record) };
        self.table.see(&self.socket(record, TcpState::ESTABLISHED), time, Some(witness));
        self.report_opened();
    }

    fn connection_ended(&mut self, time: Timestamp, record: &ConnectionRecord) {
        self.reused.remove(&record.cookie);
        let socket = DiagSocket { info: Some(counters(record)), ..self.socket(record, TcpState::CLOSE) };
        if record.from == TcpState::LISTEN {
            self.table.destroy(&DiagSocket { cookie: record.cookie, ..socket }, time, None);
            return;
        }
        let witness = self.witness(time, record);
        if !self.table.contains(socket.cookie) {
            // So that it is known whose it is; it is not opened by that.
            let begun = DiagSocket { state: TcpState::SYN_SENT, ..socket };
            self.table.see(&begun, witness.time, Some(witness.clone()));
        }
        if let Some(close) = self.table.destroy(&socket, time, Some(witness)) {
            self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
        }
    }

    fn listener_began(&mut self, time: Timestamp, record: &ConnectionRecord) {
        let socket = DiagSocket { cookie: record.cookie, ..self.socket(record, TcpState::LISTEN) };
        self.table.see(&socket, time, None);
        if let Some(owner) = self.owner(record) {
            self.table.set_owner(record.cookie, &owner);
        }
        self.report_listening();
    }

    fn socket(&self, record: &ConnectionRecord, state: TcpState) -> DiagSocket {
        DiagSocket {
            state,
            local: record.local,
            remote: record.remote,
            cookie: record.id(),
            network: if record.network == self.own_network { 0 } else { record.network },
            user_id: record.user_id,
            inode: 0,
            cgroup_id: NonZeroU64::new(record.cgroup),
            info: None,
        }
    }

    fn witness(&mut self, time: Timestamp, record: &ConnectionRecord) -> Witness {
        let since_begun = record.begun_ns.map_or(0, |begun| record.monotonic_ns.saturating_sub(begun));
        Witness {
            local: record.local,
            remote: record.remote,
            direction: record.direction,
            owner: self.owner(record),
            time: Timestamp(time.0.saturating_sub(i64::try_from(since_begun).unwrap_or(i64::MAX))),
            established: record.from != TcpState::SYN_SENT,
            outcome: record.outcome(),
        }
    }

    fn owner(&mut self, record: &ConnectionRecord) -> Option<Owner> {
        record.owner.map(|owner| self.owners.owner_created_at(owner.pid, owner.created_ns))
    }

    /// Says whether there is something to follow up.
    fn maintain(&mut self) -> io::Result<bool> {
        self.find_owners();
        self.report_listening();
        let evictions = self.table.evictions();
        if evictions > self.evictions {
            let count = evictions - self.evictions;
            tracing::warn!(count, "more connections than can be kept apart: some forgotten");
            self.evictions = evictions;
        }
        self.has_lost |= self.count_losses();
        if self.has_lost && self.look()? {
            self.has_lost = false;
            self.table.forget_lost();
        } else if self.looked.elapsed() >= LOOK_INTERVAL {
            self.find_ended()?;
        }
        Ok(self.has_lost || self.table.has_listeners_to_tell())
    }

    /// Reports what was lost; says whether anything was.
    fn count_losses(&mut self) -> bool {
        let losses = self.source.new_losses();
        let lost = |kind: u8| losses.full.get(usize::from(kind)).copied().unwrap_or(0);
        let kinds = [ebpf_record::ESTABLISHED, ebpf_record::ENDED, ebpf_record::LISTENS];
        self.reporter.lost(kinds.map(lost).into_iter().sum::<u64>() + losses.missed);
        self.reporter.throttled(losses.throttled);
        losses.missed > 0 || losses.full.iter().any(|&count| count > 0)
    }
}

/// The counters of an end. Those of an attempt may be left from before.
fn counters(record: &ConnectionRecord) -> TcpInfo {
    if record.from != TcpState::SYN_SENT {
        return record.info;
    }
    TcpInfo {
        round_trip_min_us: Some(u32::MAX),
        bytes_acknowledged: Some(0),
        bytes_received: Some(0),
        bytes_sent: Some(0),
        bytes_retransmitted: Some(0),
        ..record.info
    }
}
