//! The host's key and certificate.
