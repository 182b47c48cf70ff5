//! The Picket agent.

fn main() {}
