//! The gRPC services: decode, call one service, encode.
//!
//! The only place of the server, beside picketctl's client, that names generated wire types. Nothing here reaches
//! storage: rights are checked here, everything else in the services.

pub use crate::api::operator::authorize;

mod operator;
