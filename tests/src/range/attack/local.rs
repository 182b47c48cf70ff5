//! Things that stay on the machine: programs under a wrong name, and what would be started again.

use std::io;
use std::os::unix::fs::symlink;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::{MasqueradePlace, PersistenceStyle};
use crate::range::activity::{Launch, Prepared, Program, Stage};
use crate::range::tools;

/// Names of programs every Linux machine runs.
const FAMILIAR_NAMES: [&str; 8] =
    ["kworker", "sshd", "systemd-udevd", "dbus-daemon", "rsyslogd", "cron", "agetty", "irqbalance"];

pub(super) fn masquerade(stage: &mut Stage<'_>, place: MasqueradePlace, shell: bool) -> io::Result<Prepared> {
    let parent = match (place, &stage.folders.shm) {
        (MasqueradePlace::SharedMemory, Some(shm)) => shm.clone(),
        (MasqueradePlace::Hidden, _) => {
            let hidden = [".cache", ".X11-unix", ".font", "..."].choose(&mut stage.rng).copied().unwrap_or(".cache");
            stage.folders.tmp.join(hidden)
        }
        _ => stage.folders.tmp.clone(),
    };
    let folder = stage.folder_in(&parent)?;
    let name = FAMILIAR_NAMES.choose(&mut stage.rng).copied().unwrap_or(FAMILIAR_NAMES[0]);
    let copied = if shell { "sh" } else { "sleep" };
    let source = tools::find(copied).ok_or_else(|| io::Error::other(format!("no {copied} on this machine")))?;
    let seconds = stage.rng.random_range(0.5..1.5);
    // A busybox decides by its name what it is: then a link has to do.
    let is_busybox = source.canonicalize()?.file_name().is_some_and(|file| file == "busybox");
    let target = folder.join(name);
    let copy = if is_busybox {
        symlink(&source, &target)?;
        String::new()
    } else {
        format!("cp {} {}\nchmod 755 {}\n", source.display(), target.display(), target.display())
    };
    let target = target.display();
    let call = if shell {
        format!("{target} -c 'id; uname -a; ls /; sleep {seconds:.2}; true' >/dev/null 2>&1")
    } else if is_busybox {
        format!("{target} sleep {seconds:.2}")
    } else {
        format!("{target} {seconds:.2}")
    };
    let script = if place == MasqueradePlace::Deleted {
        // Gone from the disk while it runs.
        format!("{copy}{call} &\nsleep 0.05\nrm -f {target}\nwait\n")
    } else {
        format!("{copy}{call}\nrm -f {target}\n")
    };
    Ok(Prepared::root(Launch { program: Program::Shell { script }, directory: folder, record: None }))
}

pub(super) fn persistence(stage: &mut Stage<'_>, style: PersistenceStyle) -> io::Result<Prepared> {
    let home = stage.home();
    std::fs::create_dir_all(&home)?;
    let payload = format!("/tmp/.x{}/run", stage.rng.random_range(100..1000));
    let line = format!("*/{} * * * * {payload}", stage.rng.random_range(2..30));
    let spool = stage.folders.spool.join("cron");
    let units = stage.folders.etc.join("systemd/system");
    let unit = format!("update-{}", stage.rng.random_range(100..1000));
    let script = match style {
        PersistenceStyle::CronShell => format!(
            "mkdir -p {spool}\necho '{line}' >> {spool}/root\nchmod 600 {spool}/root\ntouch -r /etc/passwd {spool}/root\n",
            spool = spool.display()
        ),
        PersistenceStyle::CronTee => format!(
            "mkdir -p {spool}\ncat {spool}/root 2>/dev/null | head -n 100 > .c\necho '{line}' | tee -a .c > /dev/null\n\
             cp .c {spool}/root\nrm -f .c\n",
            spool = spool.display()
        ),
        PersistenceStyle::CronInstall => format!(
            "mkdir -p {etc}/cron.d\necho '{line}' > .job\ninstall -m 644 .job {etc}/cron.d/{unit}\nrm -f .job\n",
            etc = stage.folders.etc.display()
        ),
        PersistenceStyle::SystemdTimer => format!(
            "mkdir -p {units}/timers.target.wants\n\
             printf '[Service]\\nExecStart={payload}\\n' | tee {units}/{unit}.service > /dev/null\n\
             printf '[Timer]\\nOnUnitActiveSec=60\\n' | tee {units}/{unit}.timer > /dev/null\n\
             chmod 644 {units}/{unit}.service {units}/{unit}.timer\n\
             ln -sf ../{unit}.timer {units}/timers.target.wants/{unit}.timer\n",
            units = units.display()
        ),
        PersistenceStyle::Profile => format!(
            "touch .bashrc\ncp -p .bashrc .bashrc.bak\necho '({payload} &) 2>/dev/null' | tee -a .bashrc > /dev/null\n\
             touch -r .bashrc.bak .bashrc\nrm -f .bashrc.bak\n"
        ),
    };
    let program = Program::Shell { script };
    Ok(Prepared::root(Launch { program, directory: home, record: None }))
}
