//! What a store costs: latency, memory, room on disk.

use std::path::Path;
use std::time::Instant;

use crate::Failure;
use crate::damage::files;
use crate::process;
use crate::record::value;
use crate::store::Store;

/// Records removed in one step, as the server's acknowledgements come.
const REMOVED_AT_A_TIME: u64 = 8;

/// Figures of one size of values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub append_p50_us: f64,
    pub append_p99_us: f64,
    pub resident_peak_bytes: f64,
    /// Bytes on disk per byte of values, with all of them there.
    pub disk_ratio: f64,
    /// The same once all of them were removed.
    pub disk_ratio_empty: f64,
}

/// Appends records one by one, each durable, reads all, removes all; prints the figures.
pub fn measure(engine: &str, folder: &str, records: &str, value_bytes: &str) -> Result<(), Failure> {
    let (records, bytes): (u64, usize) = (records.parse()?, value_bytes.parse()?);
    let folder = Path::new(folder);
    let store = Store::open(engine, folder)?;
    let mut times_us = Vec::new();
    for key in 0..records {
        let value = value(key, bytes);
        let begin = Instant::now();
        store.step(&[(key, value)], &[])?;
        times_us.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    times_us.sort_by(f64::total_cmp);
    let quantile = |share: f64| times_us[((times_us.len() - 1) as f64 * share) as usize];
    let full = disk_bytes(folder)?;
    let mut seen = 0_u64;
    store.each(|_, _| seen += 1)?;
    if seen != records {
        return Err(format!("{seen} of {records} records").into());
    }
    let keys: Vec<u64> = (0..records).collect();
    for some in keys.chunks(REMOVED_AT_A_TIME as usize) {
        store.step(&[], some)?;
    }
    let total = records as f64 * bytes as f64;
    println!(
        "{} {} {} {} {}",
        quantile(0.5),
        quantile(0.99),
        high_water_mark()?,
        full as f64 / total,
        disk_bytes(folder)? as f64 / total
    );
    Ok(())
}

/// Runs [`measure`] several times in processes of their own; the median of each figure.
pub fn run(engine: &str, folder: &Path, value_bytes: usize, records: u64, runs: usize) -> Result<Cost, Failure> {
    let mut figures: [Vec<f64>; 5] = Default::default();
    for _ in 0..runs {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        let path = folder.to_str().ok_or("a folder that is not text")?;
        let text = process::run(&["cost", engine, path, &records.to_string(), &value_bytes.to_string()])?;
        for (figure, number) in figures.iter_mut().zip(text.split_whitespace()) {
            figure.push(number.parse()?);
        }
    }
    let [append_p50_us, append_p99_us, resident_peak_bytes, disk_ratio, disk_ratio_empty] =
        figures.map(|mut figure| {
            figure.sort_by(f64::total_cmp);
            figure[figure.len() / 2]
        });
    Ok(Cost { append_p50_us, append_p99_us, resident_peak_bytes, disk_ratio, disk_ratio_empty })
}

fn disk_bytes(folder: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for file in files(folder)? {
        bytes += std::fs::metadata(folder.join(file))?.blocks() * 512;
    }
    Ok(bytes)
}

fn high_water_mark() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse::<u64>()? * 1_024)
}
