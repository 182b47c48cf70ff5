//! The command line of picket-server.
