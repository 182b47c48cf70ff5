//! The connection sensor on the kernel's socket diagnosis.
//!
//! Ends are pushed by the kernel, with the byte counts; openings and owners come from a look at the live sockets every
//! now and then. Where ends are not told, a socket that a look does not show any more has ended.

use std::io;
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, SensorMode};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::SocketOwners;
use crate::sensor::config::ConnectionSensorConfig;
use crate::sensor::connection::NAME;
use crate::sensor::connection::sock_diag::{DestroySubscription, DiagClient};
use crate::sensor::connection::table::{ConnectionTable, OwnConnections};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor};

/// Most notifications taken before something else gets its turn.
const NOTIFICATIONS_PER_TURN: usize = 1024;
/// How often losses are looked for.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// What the sensor works with.
pub(super) struct Parts {
    pub(super) client: DiagClient,
    pub(super) owners: SocketOwners,
    /// `None`: the kernel does not tell of ends.
    pub(super) destroyed: Option<DestroySubscription>,
}

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    environment: &SensorEnvironment<S>,
    mode: SensorMode,
    parts: Parts,
) -> Result<StartedSensor, SensorError> {
    let interval = config.dump_interval();
    let stop = environment.stop.clone();
    let own = OwnConnections { pid: environment.own_pid, remotes: environment.own_remotes.clone() };
    environment.spawn(mode, NAME, move |reporter| {
        let Parts { client, owners, destroyed } = parts;
        let mut sensor =
            ConnectionSensor { reporter, client, owners, destroyed, table: ConnectionTable::new(own), evictions: 0 };
        let mut next_look = Instant::now();
        let mut next_maintenance = Instant::now() + MAINTENANCE_INTERVAL;
        while !stop.is_cancelled() {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + interval;
                sensor.look()?;
            }
            if now >= next_maintenance {
                next_maintenance = now + MAINTENANCE_INTERVAL;
                sensor.count_losses();
            }
            sensor.wait_until(next_look)?;
            sensor.take_destroyed()?;
        }
        // What has ended before the stop is still told.
        sensor.take_destroyed()
    })
}

struct ConnectionSensor<S> {
    reporter: Reporter<S>,
    client: DiagClient,
    owners: SocketOwners,
    destroyed: Option<DestroySubscription>,
    table: ConnectionTable,
    evictions: u64,
}

impl<S: ObservationSink> ConnectionSensor<S> {
    /// Looks at all live sockets.
    fn look(&mut self) -> io::Result<()> {
        let table = &mut self.table;
        let time = boot_clock::now();
        table.begin_look();
        // Counters are wanted only where the kernel will not tell them at the end.
        let with_info = self.destroyed.is_none();
        match self.client.dump(with_info, |socket| table.see(&socket, time, None)) {
            Ok(()) => {}
            // A look that was cut short says nothing of what it did not show.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut wanted = table.wanted_owners();
        if !wanted.is_empty() {
            self.owners.find(&mut wanted, |cookie, owner| table.set_owner(cookie, owner));
        }
        for (time, body) in table.take_opened() {
            self.reporter.send(time, body);
        }
        if self.destroyed.is_none() {
            for close in table.take_missing(time) {
                self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
            }
        }
        Ok(())
    }

    /// Waits until the kernel tells of an end, or it is time for something else.
    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).min(STOP_CHECK_INTERVAL);
        let Some(destroyed) = &self.destroyed else {
            std::thread::sleep(left);
            return Ok(());
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(destroyed, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_destroyed(&mut self) -> io::Result<()> {
        let Some(destroyed) = &mut self.destroyed else { return Ok(()) };
        let (table, reporter) = (&mut self.table, &self.reporter);
        let time = boot_clock::now();
        destroyed.take(NOTIFICATIONS_PER_TURN, |socket| {
            if let Some(close) = table.destroy(&socket, time, None) {
                reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
            }
        })?;
        Ok(())
    }

    fn count_losses(&mut self) {
        if let Some(destroyed) = &mut self.destroyed {
            let lost = destroyed.new_drops();
            self.reporter.lost(lost);
            if lost > 0 {
                self.table.forget_lost();
            }
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
