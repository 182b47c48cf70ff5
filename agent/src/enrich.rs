//! What the kernel did not say about a process or a connection.
//!
//! * [`process_table`]: the processes of this host, by pid: identity, executable, ancestors. One table for all sensors,
//!   behind one lock that is held for single look-ups only: the process sensor writes it some thousand times a second,
//!   the connection sensor reads it when it learns of an owner. A message queue between the two would be slower and
//!   would let an owner be looked up before its start had arrived.
//! * [`user_names`]: names of user ids
//! * `procfs`: one process as `/proc` shows it (Linux)
//! * `cgroup`: ids and paths of cgroups (Linux)
//! * `boot_clock`: start times out of `/proc` as wall-clock times (Linux)
//! * `socket_owner`: which process holds a socket (Linux)

#[cfg(target_os = "linux")]
pub mod boot_clock;
#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod process_details;
pub mod process_table;
#[cfg(target_os = "linux")]
pub mod procfs;
pub mod redaction;
#[cfg(target_os = "linux")]
pub mod socket_owner;
pub mod user_names;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::enrich::process_table::ProcessTable;

/// The process table as sensors share it.
pub type SharedProcessTable = Arc<Mutex<ProcessTable>>;
