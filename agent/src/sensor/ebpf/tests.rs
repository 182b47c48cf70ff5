#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Instant;

use aya::EbpfLoader;

use super::load::{KernelTypes, has_capabilities, load_object, permitted};
use super::object::{CONNECTION, PROCESS};
use super::*;
use crate::sensor::test_sink::DEADLINE;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn capabilities_are_read_as_the_kernel_writes_them() {
    let has = |set: &str| has_capabilities(&format!("Name:\tx\nCapEff:\t{set}\nCapBnd:\t0\n"));
    assert!(has("000001ffffffffff") && has("0000000000200000") && has("000000c000000000"));
    assert!(!has("0000008000000000") && !has("0000004000000000") && !has("0000000000000000") && !has("x"));
    assert!(!has_capabilities(""));
}

#[test]
fn loading_takes_little_time_and_leaves_little_behind() {
    let (before, begin) = (resident_kib(), Instant::now());
    let mut sources = EbpfLoading::begin_with(vec![&PROCESS, &CONNECTION], None).finish();
    let took = begin.elapsed();
    let (mut process, connection) = match (sources.take(&PROCESS), sources.take(&CONNECTION)) {
        (Ok(process), Ok(connection)) => (process, connection),
        (process, connection) => {
            return eprintln!("skipped: {:?} {:?}", process.err(), connection.err());
        }
    };
    eprintln!("loaded in {took:?}; resident: {before} KiB before, {} KiB after", resident_kib());
    Command::new("/bin/true").status().unwrap();
    assert!(count(&mut process).iter().sum::<u64>() >= 3);
    assert_eq!(process.new_losses(), NewLosses::default());
    drop((process, connection));
    eprintln!("{} KiB at the end", resident_kib());
    assert!(took < DEADLINE);
}

/// The records that are there, by kind.
fn count(source: &mut RecordSource) -> [u64; KINDS] {
    let mut counts = [0; KINDS];
    while let Some(record) = source.next() {
        // What a cgroup is called is no event.
        if let Some(count) = counts.get_mut(usize::from(record[0])) {
            *count += 1;
        }
    }
    counts
}

#[test]
fn records_that_do_not_fit_are_counted_by_kind() {
    const PROCESSES: u64 = 200;
    if let Err(error) = permitted() {
        return eprintln!("skipped: {error}");
    }
    // Room for some hundred records.
    let load = || {
        let types = KernelTypes::default();
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("process_records", 16 * 1024);
        RecordSource::new(&PROCESS, load_object(&mut loader, &types, &PROCESS)?)
    };
    let mut source = match load() {
        Ok(source) => source,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    for _ in 0..PROCESSES {
        Command::new("/bin/true").status().unwrap();
    }
    let losses = source.new_losses();
    let kept = count(&mut source);
    eprintln!("kept {kept:?}, lost {losses:?}");
    assert_eq!(losses.missed, 0);
    assert!(kept[2] > 10 && losses.full[2] > 10);
    // Forks, starts and ends; others may start processes, too.
    assert!(kept.iter().zip(losses.full).skip(1).all(|(kept, lost)| kept + lost >= PROCESSES));
    assert_eq!(source.new_losses().missed, 0);
    let again = source.new_losses();
    Command::new("/bin/true").status().unwrap();
    assert!(count(&mut source)[2] >= 1, "there is room again");
    assert_eq!(again, NewLosses::default(), "each is told once");
}

#[test]
fn an_error_is_told_in_short() {
    let io = |kind| io::Error::new(kind, "x".repeat(1000) + "\nsecond line");
    assert!(matches!(refusal(&io(io::ErrorKind::PermissionDenied)), EbpfError::Forbidden));
    let text = refusal(&io(io::ErrorKind::Other)).to_string();
    assert_eq!(text, format!("eBPF: {}", "x".repeat(REASON_CHARACTERS_MAX)));
}

#[test]
fn the_objects_are_those_that_are_loaded() {
    for object in [PROCESS.bytes, CONNECTION.bytes] {
        assert!(object.starts_with(b"\x7fELF"));
        assert_eq!(object.as_ptr().align_offset(8), 0);
    }
}
