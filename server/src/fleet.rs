//! Agents: inventory, status, desired state.

pub use crate::fleet::report::{ActiveModel, AgentStatus, HostInventory, SensorStatus};

mod report;
