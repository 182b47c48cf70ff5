//! The whole comparison.

use std::path::PathBuf;

use crate::Failure;
use crate::cost::{self, Cost};
use crate::damage::{self, Damages};
use crate::kills::{self, Kills};
use crate::record::Random;
use crate::report::{Goal, Line, print};
use crate::store::ENGINES;

/// How often each cost is measured, the stores in turn.
const COST_RUNS: usize = 3;
/// Values appended in a measurement of cost, bytes in all, within these limits of records.
const COST_BYTES: u64 = 64 * 1024 * 1024;
const COST_RECORDS: std::ops::RangeInclusive<u64> = 1_000..=4_000;

struct Options {
    folder: PathBuf,
    json: bool,
    kills: u64,
    damages: u64,
    seed: u64,
    values: Vec<usize>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            folder: PathBuf::new(),
            json: false,
            kills: 1_000,
            damages: 25,
            seed: 1,
            values: vec![512, 4_096, 32_768],
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match *word {
                "--json" => options.json = true,
                "--folder" => options.folder = PathBuf::from(value()?),
                "--kills" => options.kills = value()?.parse()?,
                "--damages" => options.damages = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--values" => options.values = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        if options.folder.as_os_str().is_empty() {
            return Err("--folder is needed".into());
        }
        Ok(options)
    }
}

/// Runs everything and prints the report.
pub fn run(words: &[&str]) -> Result<(), Failure> {
    let options = Options::parse(words)?;
    if options.folder.exists() {
        std::fs::remove_dir_all(&options.folder)?;
    }
    let mut lines = Vec::new();
    let mut killed = Vec::new();
    let mut damaged = Vec::new();
    for engine in ENGINES {
        // The same random numbers for both.
        let mut random = Random(options.seed);
        let folder = options.folder.join(engine);
        std::fs::create_dir_all(&folder)?;
        let kills = kills::run(engine, &folder.join("kills"), options.kills, &mut random, true)?;
        if !kills.first_problem.is_empty() {
            eprintln!("{engine}: {}", kills.first_problem);
        }
        killed.push(kills);
        damaged.push(damage::run(engine, &folder, options.damages, &mut random)?);
        eprintln!("{engine}: {:?}", damaged.last());
    }
    lines.extend(kill_lines(&killed[0], &killed[1]));
    lines.extend(damage_lines(&damaged[0], &damaged[1]));
    for bytes in &options.values {
        let records = (COST_BYTES / *bytes as u64).clamp(*COST_RECORDS.start(), *COST_RECORDS.end());
        let mut costs = Vec::new();
        for engine in ENGINES {
            costs.push(cost::run(engine, &options.folder.join(engine).join("cost"), *bytes, records, COST_RUNS)?);
        }
        lines.extend(cost_lines(*bytes, records, &costs[0], &costs[1]));
    }
    print(&lines, options.json);
    std::fs::remove_dir_all(&options.folder)?;
    Ok(())
}

fn line(name: &str, ours: u64, theirs: u64, unit: &'static str, goal: Goal) -> Line {
    Line { name: name.to_owned(), ours: ours as f64, theirs: theirs as f64, unit, goal }
}

fn kill_lines(ours: &Kills, theirs: &Kills) -> Vec<Line> {
    vec![
        line("kills", ours.kills, theirs.kills, "kills", Goal::None),
        line("steps acknowledged before a kill", ours.steps, theirs.steps, "steps", Goal::None),
        line("acknowledged records lost", ours.lost, theirs.lost, "records", Goal::Zero),
        line("removed records that came back", ours.returned, theirs.returned, "records", Goal::Zero),
        line("corrupt records after a kill", ours.corrupt, theirs.corrupt, "records", Goal::Zero),
        line("did not open after a kill", ours.not_opened, theirs.not_opened, "stores", Goal::Zero),
    ]
}

fn damage_lines(ours: &Damages, theirs: &Damages) -> Vec<Line> {
    vec![
        line("damaged files", ours.damages, theirs.damages, "stores", Goal::None),
        line("damaged: every record still there", ours.unharmed, theirs.unharmed, "stores", Goal::None),
        line("damaged: opened with fewer records", ours.fewer, theirs.fewer, "stores", Goal::None),
        line("damaged: records gone in those", ours.records_gone, theirs.records_gone, "records", Goal::None),
        line("damaged: corrupt records given out", ours.corrupt, theirs.corrupt, "stores", Goal::NotMore),
        line("damaged: refused with an error", ours.refused, theirs.refused, "stores", Goal::None),
        line("damaged: panicked", ours.crashed, theirs.crashed, "stores", Goal::NotMore),
        line("damaged: hung", ours.hung, theirs.hung, "stores", Goal::Zero),
    ]
}

fn cost_lines(bytes: usize, records: u64, ours: &Cost, theirs: &Cost) -> Vec<Line> {
    let figure = |what: &str, ours: f64, theirs: f64, unit| Line {
        name: format!("{records} values of {bytes} bytes: {what}"),
        ours,
        theirs,
        unit,
        goal: Goal::NotMore,
    };
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    vec![
        figure("append, half", ours.append_p50_us, theirs.append_p50_us, "µs"),
        figure("append, 99 %", ours.append_p99_us, theirs.append_p99_us, "µs"),
        figure("peak memory", mib(ours.resident_peak_bytes), mib(theirs.resident_peak_bytes), "MiB"),
        figure("disk, full", ours.disk_ratio, theirs.disk_ratio, "× values"),
        figure("disk, emptied", ours.disk_ratio_empty, theirs.disk_ratio_empty, "× values"),
    ]
}
