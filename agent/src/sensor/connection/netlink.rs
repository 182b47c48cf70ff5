//! The connection sensor on the kernel's socket diagnosis.
//!
//! Ends are pushed by the kernel, with the byte counts. Beginnings are, too, where trace events may be used; each is
//! then completed by asking for its socket. Elsewhere openings and owners come from a look at the live sockets every now
//! and then. Where ends are not told, a socket that a look does not show any more has ended.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, SensorMode};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::SocketOwners;
use crate::sensor::config::ConnectionSensorConfig;
use crate::sensor::connection::NAME;
use crate::sensor::connection::attempts::Attempts;
use crate::sensor::connection::sock_diag::{DestroySubscription, DiagClient, DiagSocket, TcpState};
use crate::sensor::connection::state_trace::{StateChange, StateTrace};
use crate::sensor::connection::table::{ConnectionTable, OwnConnections};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor};

/// Most notifications taken before something else gets its turn.
const NOTIFICATIONS_PER_TURN: usize = 1024;
/// How often losses are looked for.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks where trace events tell of beginnings: only for what they may have missed.
const LOOK_INTERVAL_WITH_TRACE: Duration = Duration::from_secs(10);
/// How long what follows a first message is waited for, so that a burst does not cost a wake-up for each.
const BURST_DELAY: Duration = Duration::from_millis(2);

/// What the sensor works with.
pub(super) struct Parts {
    pub(super) client: DiagClient,
    pub(super) owners: SocketOwners,
    /// `None`: the kernel does not tell of ends.
    pub(super) destroyed: Option<DestroySubscription>,
    /// `None`: the kernel does not tell of beginnings.
    pub(super) states: Option<StateTrace>,
}

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    environment: &SensorEnvironment<S>,
    mode: SensorMode,
    parts: Parts,
) -> Result<StartedSensor, SensorError> {
    let interval = if parts.states.is_some() { LOOK_INTERVAL_WITH_TRACE } else { config.dump_interval() };
    let stop = environment.stop.clone();
    let user = rustix::process::geteuid();
    let own = OwnConnections {
        pid: environment.own_pid,
        remotes: environment.own_remotes.clone(),
        visible_user: (!user.is_root()).then_some(user.as_raw()),
    };
    environment.spawn(mode, NAME, move |reporter| {
        let mut sensor = ConnectionSensor {
            reporter,
            parts,
            table: ConnectionTable::new(own),
            attempts: Attempts::default(),
            changes: Vec::new(),
            ended: Vec::new(),
            evictions: 0,
            has_lost: false,
        };
        let mut next_look = Instant::now();
        let mut next_maintenance = Instant::now() + MAINTENANCE_INTERVAL;
        while !stop.is_raised() {
            let now = Instant::now();
            if now >= next_maintenance {
                next_maintenance = now + MAINTENANCE_INTERVAL;
                sensor.count_losses();
                sensor.find_owners();
                if sensor.has_lost {
                    next_look = now;
                }
            }
            if now >= next_look {
                next_look = now + interval;
                sensor.look()?;
            }
            sensor.wait_until(next_look.min(next_maintenance))?;
            sensor.take_messages()?;
        }
        // What has ended before the stop is still told.
        sensor.take_messages()
    })
}

struct ConnectionSensor<S> {
    reporter: Reporter<S>,
    parts: Parts,
    table: ConnectionTable,
    attempts: Attempts,
    changes: Vec<StateChange>,
    ended: Vec<DiagSocket>,
    evictions: u64,
    /// Something was lost since the last look: what that does not show is forgotten.
    has_lost: bool,
}

impl<S: ObservationSink> ConnectionSensor<S> {
    /// Looks at all live sockets.
    fn look(&mut self) -> io::Result<()> {
        let (table, attempts) = (&mut self.table, &mut self.attempts);
        let time = boot_clock::now();
        self.ended.clear();
        table.begin_look();
        // Counters are wanted only where the kernel will not tell them at the end.
        let with_info = self.parts.destroyed.is_none();
        let mut looked = self.parts.client.dump(with_info, |socket| table.see(&socket, time, attempts.take(&socket)));
        if looked.is_ok() && table.has_opened() {
            // Listeners are dumped first: one that began meanwhile tells who began the connections it accepted.
            looked = self.parts.client.dump_listening(|socket| table.see(&socket, time, None));
        }
        match looked {
            Ok(()) => {}
            // A look that was cut short says nothing of what it did not show.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(error),
        }
        // What began before the look has been told by now.
        self.take_changes()?;
        self.find_owners();
        self.report_opened();
        if std::mem::take(&mut self.has_lost) {
            self.table.forget_lost();
        }
        if self.parts.destroyed.is_none() {
            self.table.forget_missing_listeners();
            for close in self.table.take_missing(1, time) {
                self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
            }
        }
        Ok(())
    }

    fn find_owners(&mut self) {
        let table = &mut self.table;
        let mut wanted = table.wanted_owners();
        if !wanted.is_empty() {
            self.parts.owners.find(&mut wanted, |cookie, owner| table.set_owner(cookie, owner));
        }
    }

    fn report_opened(&mut self) {
        for (time, body) in self.table.take_opened() {
            self.reporter.send(time, body);
        }
    }

    /// Waits until the kernel tells something, or it is time for something else.
    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).min(STOP_CHECK_INTERVAL);
        let files = self.parts.states.iter().flat_map(|states| states.files());
        let mut sources: Vec<PollFd<'_>> = files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
        sources.extend(self.parts.destroyed.iter().map(|destroyed| PollFd::new(destroyed, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut sources, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => {
                std::thread::sleep(BURST_DELAY.min(left));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the kernel has told. Ends are taken first and used last: what began them has been told by then.
    fn take_messages(&mut self) -> io::Result<()> {
        let time = boot_clock::now();
        self.ended.clear();
        if let Some(destroyed) = &mut self.parts.destroyed {
            let ended = &mut self.ended;
            destroyed.take(NOTIFICATIONS_PER_TURN, |socket| ended.push(socket))?;
        }
        self.take_changes()?;
        self.report_opened();
        for socket in &self.ended {
            let witness = self.attempts.take(socket);
            if let Some(close) = self.table.destroy(socket, time, witness) {
                self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
            }
        }
        Ok(())
    }

    fn take_changes(&mut self) -> io::Result<()> {
        let Some(states) = &mut self.parts.states else { return Ok(()) };
        let lost = states.take(&mut self.changes)?;
        self.reporter.lost(lost);
        self.has_lost |= lost > 0;
        // A connection that has ended by now cannot be asked for any more.
        let ended: HashSet<_> = self.ended.iter().map(|socket| (socket.local, socket.remote)).collect();
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            let owners = &mut self.parts.owners;
            let established = self.attempts.observe(change, |task| owners.owner_of_task(task, change.time));
            if change.to == TcpState::LISTEN {
                self.listener_began(change)?;
            } else if established && !ended.contains(&(change.local, change.remote)) {
                self.connection_began(change)?;
            }
        }
        self.changes = changes;
        Ok(())
    }

    fn connection_began(&mut self, change: &StateChange) -> io::Result<()> {
        if let Some(socket) = self.parts.client.find(change.local, change.remote)? {
            let witness = self.attempts.take(&socket);
            self.table.see(&socket, change.time, witness);
        }
        Ok(())
    }

    fn listener_began(&mut self, change: &StateChange) -> io::Result<()> {
        if let Some(socket) = self.parts.client.find(change.local, unspecified(change.local))? {
            self.table.see(&socket, change.time, None);
            if let Some(owner) = self.parts.owners.owner_of_task(change.task, change.time) {
                self.table.set_owner(socket.cookie, &owner);
            }
        }
        Ok(())
    }

    fn count_losses(&mut self) {
        if let Some(destroyed) = &mut self.parts.destroyed {
            let lost = destroyed.new_drops();
            self.reporter.lost(lost);
            self.has_lost |= lost > 0;
        }
        let evictions = self.table.evictions();
        if evictions > self.evictions {
            tracing::warn!(
                count = evictions - self.evictions,
                "more connections than can be kept apart: some forgotten"
            );
            self.evictions = evictions;
        }
    }
}

/// The other end of a listening socket.
fn unspecified(local: SocketAddr) -> SocketAddr {
    let address: IpAddr = if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(address, 0)
}
