//! Sockets, TLS and their limits.
