//! Agents: inventory, status, desired state.
