//! Ctrl-C and SIGTERM: nothing that was started may go on, and the temporary folder goes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::process;

/// What a shell reports for a program that ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

/// How long killed processes may go on writing into the folder that is being removed.
const REMOVE_ATTEMPTS: u32 = 20;

/// Watches for signals, on its own thread, until the process ends. The folders are removed when one comes.
///
/// # Errors
/// The signals cannot be watched.
pub fn watch(temporary: Vec<PathBuf>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        eprintln!("\ninterrupted: stopping everything");
        process::end_all();
        for folder in temporary {
            for _ in 0..REMOVE_ATTEMPTS {
                match std::fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    _ => break,
                }
            }
        }
        std::process::exit(EXIT_INTERRUPTED);
    })?;
    Ok(())
}
