//! Versions of the frame.

/// What a frame's columns may hold. A reader reads all of them, a writer writes the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Process starts and exits, connections, logons, losses, agent starts.
    V1,
    /// Files, DNS, kernel activities, listening sockets, changes of the agent; cgroups, scripts, processor times.
    V2,
}

impl Version {
    pub(super) const LATEST: Self = Self::V2;

    /// The number in the header.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|version| version.number() == number)
    }
}
