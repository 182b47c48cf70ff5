#![allow(clippy::unwrap_used)]

use std::process::Command;

use super::super::RecordSource;
use super::super::load::permitted;
use super::super::object::{CONNECTION, PROCESS};
use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Both sides in one process: what is handed over must live on alone.
#[test]
fn what_is_handed_over_runs_on_its_own() {
    if let Err(error) = permitted() {
        return eprintln!("skipped: {error}");
    }
    let (ours, theirs) = socket_pair().unwrap();
    for (object, outcome) in load(&[&PROCESS, &CONNECTION]).unwrap() {
        send(theirs.as_fd(), object, outcome).unwrap();
    }
    drop(theirs);
    let (_, process) = receive(ours.as_fd(), &PROCESS, soon()).unwrap();
    let (_, connection) = receive(ours.as_fd(), &CONNECTION, soon()).unwrap();
    let mut process = RecordSource::new(&PROCESS, process.unwrap()).unwrap();
    RecordSource::new(&CONNECTION, connection.unwrap()).unwrap();
    Command::new("/bin/true").status().unwrap();
    let mut records = 0;
    while process.next().is_some() {
        records += 1;
    }
    assert!(records >= 3, "a fork, a start and an end: {records}");
    assert_eq!(process.new_losses().missed, 0);
    assert!(matches!(receive(ours.as_fd(), &PROCESS, soon()), Err(HelperError::Ended)));
}

#[test]
fn a_reason_is_handed_over_as_it_is() {
    let (ours, theirs) = socket_pair().unwrap();
    send(theirs.as_fd(), &PROCESS, Err(EbpfError::Forbidden)).unwrap();
    let (_, outcome) = receive(ours.as_fd(), &PROCESS, soon()).unwrap();
    assert_eq!(outcome.unwrap_err(), EbpfError::Forbidden.to_string());
}

#[test]
fn wrong_answers_are_told_apart_and_nothing_is_waited_for_forever() {
    let (ours, theirs) = socket_pair().unwrap();
    let answer = |bytes: &[u8]| {
        rustix::net::send(&theirs, bytes, SendFlags::empty()).unwrap();
        receive(ours.as_fd(), &PROCESS, soon()).unwrap_err().to_string()
    };
    assert!(answer(b"no").contains("cannot be understood"));
    assert!(answer(br#"{"object":"connection"}"#).contains("answered for connection, asked was process"));
    assert!(answer(br#"{"object":"process"}"#).contains("no descriptor"));
    assert!(answer(&[b' '; MESSAGE_BYTES_MAX + 1]).contains("too long"));
    assert!(matches!(receive(ours.as_fd(), &PROCESS, Instant::now()), Err(HelperError::TimedOut)));
    drop(theirs);
    assert!(matches!(receive(ours.as_fd(), &PROCESS, soon()), Err(HelperError::Ended)));
}

#[test]
fn a_program_that_is_no_agent_is_an_error_and_the_programs_are_loaded_here() {
    // This test's own program: it knows no such subcommand, and no test of that name.
    let program = OwnProgram::with_arguments(["--quiet", "--exact"]);
    let error = Helper::start(&program, &[&PROCESS]).unwrap().finish(&[&PROCESS]).unwrap_err();
    assert!(matches!(error, HelperError::Ended), "{error}");
    let mut sources = super::super::EbpfLoading::begin_with(vec![&PROCESS], Some(&program)).finish();
    let refused = sources.take(&PROCESS).err();
    assert_eq!(refused, permitted().err().map(|error| error.to_string()));
}
