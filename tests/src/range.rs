//! The attack range: benign work and harmless imitations of attacks, as real processes and sockets, with the truth
//! about each.
//!
//! ```text
//! Plan (seed, round) ─▶ Player ─▶ processes and connections of this machine ─▶ sensors of the agent
//!                          └────▶ GroundTruth ─▶ label: which stored event belongs to which instance
//! ```
//!
//! * Everything stays on loopback and inside the range's own folder (one variant also uses its own folder under
//!   `/dev/shm`), ends by itself, and is killed at a deadline. Ports that something else listens on are never touched.
//! * An **instance** is one activity played once: a benign piece of work or one attack. It is the unit of ground truth,
//!   of label groups (rows of one instance never end up on both sides of a split) and of "found".
//! * The same seed and round give the same plan. Timing, process ids and ports are the machine's.
//! * Benign work has the look of attacks on purpose: polling as regular as a beacon, uploads as large as a theft,
//!   failed logins, refused connections, programs run from the project's folder, `id` and `ps` now and then. No single
//!   feature may tell the two apart by construction of the range.
//! * The network tools of both sides are one program (this binary, under names drawn from one pool), the services they
//!   talk to are shared wherever that makes sense, and both sides are started by the same parent.
//!
//! Round two plays with other parameters and adds the [`attack`] variants that round one never plays.

pub mod activity;
pub mod attack;
pub mod benign;
pub mod helper;
pub mod label;
pub mod plan;
pub mod player;
pub mod services;
pub mod tools;
pub mod truth;

/// Which play of the range this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Round {
    /// Its events are labelled and learned from.
    One,
    /// Other parameters, and variants that round one never plays.
    Two,
}

impl Round {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}
