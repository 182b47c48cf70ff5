//! The server's certificate authority.
