//! The Picket server.

fn main() {}
