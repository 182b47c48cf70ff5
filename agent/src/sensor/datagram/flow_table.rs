//! The kernel's table of flows.

use aya::maps::{HashMap, Map, MapData};

use crate::sensor::datagram::ebpf_record::{ENDS_BYTES, Ends, FLOW_BYTES, Flow};

/// Most flows looked at in one go; the table is no larger.
const FLOWS_PER_LOOK_MAX: usize = 8192;

/// The flows that the programs count.
pub(super) struct FlowTable(HashMap<MapData, [u8; ENDS_BYTES], [u8; FLOW_BYTES]>);

impl FlowTable {
    /// The table behind a map.
    ///
    /// # Errors
    /// It is another kind of map.
    pub(super) fn new(map: Map) -> Result<Self, String> {
        HashMap::try_from(map).map(Self).map_err(|error| error.to_string())
    }

    /// Takes out the flows of which no packet has passed since `time_ns` (`CLOCK_MONOTONIC`). A packet that passes
    /// between the look and the removal is not counted; the next begins a flow.
    pub(super) fn take_idle_since(&mut self, time_ns: u64) -> Vec<(Ends, Flow)> {
        let mut idle = Vec::new();
        for (key, value) in self.0.iter().take(FLOWS_PER_LOOK_MAX).flatten() {
            let Some((ends, flow)) = Ends::parse(&key).zip(Flow::parse(&value)) else { continue };
            if flow.last_ns <= time_ns {
                idle.push((key, ends, flow));
            }
        }
        idle.into_iter().filter(|(key, ..)| self.0.remove(key).is_ok()).map(|(_, ends, flow)| (ends, flow)).collect()
    }
}
