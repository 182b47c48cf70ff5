#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Instant;

use super::*;

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
    let mut sources = EbpfSources::load(true, true);
    let took = begin.elapsed();
    let (mut process, connection) = match (sources.take_process(), sources.take_connection()) {
        (Ok(process), Ok(connection)) => (process, connection),
        (process, connection) => {
            return eprintln!("skipped: {:?} {:?}", process.err(), connection.err());
        }
    };
    eprintln!("loaded in {took:?}; resident: {before} KiB before, {} KiB after", resident_kib());
    Command::new("/bin/true").status().unwrap();
    let mut records = 0;
    while let Some(record) = process.next() {
        records += 1;
        eprintln!("{} bytes, kind {}", record.len(), record[0]);
    }
    assert!(records >= 3);
    assert_eq!(process.new_losses(), NewLosses::default());
    drop((process, connection));
    eprintln!("{} KiB at the end", resident_kib());
}
