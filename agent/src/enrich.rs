//! What the kernel did not say about a process or a connection.
