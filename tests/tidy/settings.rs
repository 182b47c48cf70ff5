//! The sample configurations are ones the programs take.
