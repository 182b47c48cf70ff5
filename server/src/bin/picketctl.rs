//! The operators' command line of Picket.

fn main() {}
