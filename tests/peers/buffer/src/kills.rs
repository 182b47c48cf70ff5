//! A writer that is killed again and again.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::Failure;
use crate::process::{self, Look};
use crate::record::{Random, value};
use crate::store::Store;

/// Records that wait, at most: older ones are removed, as the server's acknowledgements would.
const WAITING_MAX: u64 = 200;
/// The longest a writer lives, microseconds after its first step.
const LIFE_US_MAX: u64 = 60_000;

/// What many kills came to.
#[derive(Clone, Debug, Default)]
pub struct Kills {
    pub kills: u64,
    pub steps: u64,
    /// Acknowledged records that were gone.
    pub lost: u64,
    /// Records that came back although their removal was acknowledged.
    pub returned: u64,
    /// Records with other bytes than were written.
    pub corrupt: u64,
    /// How often the store did not open.
    pub not_opened: u64,
    pub first_problem: String,
}

/// Appends one record a step, durable, then says so: `key` on a line. Ends only when it is killed.
pub fn write(engine: &str, folder: &str, first: &str, value_bytes: &str) -> Result<(), Failure> {
    let (first, bytes): (u64, usize) = (first.parse()?, value_bytes.parse()?);
    let store = Store::open(engine, Path::new(folder))?;
    let mut out = std::io::stdout().lock();
    for key in first.. {
        let remove: Vec<u64> = key.checked_sub(WAITING_MAX).into_iter().collect();
        store.step(&[(key, value(key, bytes))], &remove)?;
        // One write, so that a kill leaves whole lines or a cut last one.
        out.write_all(format!("{key}\n").as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// Kills a writer `kills` times.
pub fn run(engine: &str, folder: &Path, kills: u64, random: &mut Random, progress: bool) -> Result<Kills, Failure> {
    const SIZES: [&str; 3] = ["512", "4096", "32768"];
    let path = folder.to_str().ok_or("a folder that is not text")?;
    let mut result = Kills::default();
    let mut next = WAITING_MAX;
    for kill in 0..kills {
        let size = SIZES[(kill % 3) as usize];
        let mut child = process::start(&["write", engine, path, &next.to_string(), size])?;
        let mut out = child.stdout.take().ok_or("no output")?;
        let mut said = vec![0; 1];
        let has_begun = out.read(&mut said)? == 1;
        if has_begun {
            std::thread::sleep(Duration::from_micros(random.below(LIFE_US_MAX)));
        }
        child.kill()?;
        child.wait()?;
        said.truncate(usize::from(has_begun));
        out.read_to_end(&mut said)?;
        let text = String::from_utf8(said)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let acknowledged: Vec<u64> = complete.lines().map(str::parse).collect::<Result<_, _>>()?;
        result.kills += 1;
        result.steps += acknowledged.len() as u64;
        let last = acknowledged.last().copied().unwrap_or(next.wrapping_sub(1));
        next = judge(&mut result, &process::look(engine, path)?, last, kill)?;
        if matches!(result.first_problem.as_str(), text if text.starts_with("did not open")) {
            // Nothing more can come of this store: a fresh one, as the agent would.
            std::fs::remove_dir_all(folder)?;
            next = WAITING_MAX;
        }
        if progress && (kill + 1) % 100 == 0 {
            eprintln!("{engine}: {} kills, {} steps, {} lost", kill + 1, result.steps, result.lost);
        }
    }
    Ok(result)
}

/// Compares what is there with what was acknowledged up to `last`; gives the next key.
fn judge(result: &mut Kills, look: &Look, last: u64, kill: u64) -> Result<u64, Failure> {
    let Look::Opened(records) = look else {
        result.not_opened += 1;
        result.first_problem = format!("did not open after kill {kill}: {look:?}");
        return Ok(last + 1);
    };
    let there: BTreeSet<u64> = records.keys().copied().collect();
    // The step after the last acknowledged one may have become durable or not.
    let in_flight = there.contains(&(last + 1));
    let oldest = (last + 1).saturating_sub(WAITING_MAX).max(WAITING_MAX);
    let expected = (oldest + u64::from(in_flight)).max(WAITING_MAX)..=last;
    let lost = expected.filter(|key| !there.contains(key)).count() as u64;
    let returned = there.iter().filter(|key| **key < oldest).count() as u64;
    let corrupt = records.values().filter(|is_intact| !**is_intact).count() as u64;
    if lost + returned + corrupt > 0 && result.first_problem.is_empty() {
        result.first_problem = format!("kill {kill}: {lost} lost, {returned} returned, {corrupt} corrupt");
    }
    result.lost += lost;
    result.returned += returned;
    result.corrupt += corrupt;
    Ok(there.last().copied().unwrap_or(last).max(last) + 1)
}
