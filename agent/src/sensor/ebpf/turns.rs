//! A sensor that has no more to do than to use the records of its eBPF programs.
//!
//! Records are used when the process sensor has told of the processes in them.

use std::io;
use std::time::Duration;

use crate::sensor::ebpf::RecordSource;
use crate::sensor::maintenance::Maintenance;
use crate::sensor::priority;
use crate::sensor::process_progress::ProcessProgress;
use crate::sensor::stop::StopSignal;

/// How long records rest before they are used: the process sensor has told of their processes then, mostly.
const REST: Duration = Duration::from_micros(3_500);

/// What uses records.
pub(in crate::sensor) trait Turns {
    /// A record.
    type Record;
    /// Most records taken before something else gets its turn.
    const RECORDS_PER_TURN_MAX: usize;
    /// Most turns after the stop: more than a full ring buffer needs.
    const LAST_TURNS_MAX: u32;

    /// Where they come from.
    fn source(&mut self) -> &mut RecordSource;

    /// A record from its bytes, where they are one.
    fn parse(bytes: &[u8]) -> Option<Self::Record>;

    /// Uses a record.
    fn tell(&mut self, record: Self::Record);

    /// Bytes that are no record.
    fn malformed(&mut self);

    /// What is to be done now and then; says whether there is something to follow up.
    fn maintain(&mut self) -> bool {
        false
    }

    /// Counts what the programs lost; after [`Turns::maintain`] and at the end.
    fn count_losses(&mut self);
}

/// Uses records until the stop, and then what was recorded before it.
///
/// # Errors
/// When the ring buffer cannot be waited for.
pub(in crate::sensor) fn run(sensor: &mut impl Turns, stop: &StopSignal, progress: &ProcessProgress) -> io::Result<()> {
    priority::raise();
    let mut maintenance = Maintenance::new();
    while !stop.is_raised() {
        sensor.source().wait(maintenance.patience(), stop)?;
        if turn(sensor, progress) {
            maintenance.hasten();
        }
        if maintenance.is_due() {
            maintenance.done(sensor.maintain());
            sensor.count_losses();
        }
    }
    last_turns(sensor, progress);
    sensor.count_losses();
    Ok(())
}

fn last_turns<T: Turns>(sensor: &mut T, progress: &ProcessProgress) {
    for _ in 0..T::LAST_TURNS_MAX {
        if !turn(sensor, progress) {
            break;
        }
    }
}

/// Uses the records that are there; says whether there were any.
fn turn<T: Turns>(sensor: &mut T, progress: &ProcessProgress) -> bool {
    let mut records = Vec::new();
    while records.len() < T::RECORDS_PER_TURN_MAX
        && let Some(record) = sensor.source().next().map(|bytes| T::parse(&bytes))
    {
        match record {
            Some(record) => records.push(record),
            None => sensor.malformed(),
        }
    }
    if records.is_empty() {
        return false;
    }
    std::thread::sleep(REST);
    progress.wait_until_told();
    for record in records {
        sensor.tell(record);
    }
    true
}
