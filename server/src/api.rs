//! The gRPC services: decode, call one service, encode.
//!
//! The only place of the server, beside picketctl's client, that names generated wire types. Nothing here reaches
//! storage: rights are checked here, everything else in the services.
//!
//! Limits of messages are the protocol's (`proto/picket/v1/*.proto`); limits of connections are
//! [`listener`](crate::listener)'s.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::Status;
use tonic::service::{Routes, RoutesBuilder};

pub use crate::api::admin::AdminServices;
pub use crate::api::operator::authorize;
use crate::chain::Chains;
use crate::fleet::{Fleet, ModelSource};
use crate::ingest::Ingest;
use crate::pki::Enrollment;

mod admin;
mod chain;
mod convert;
mod enrollment;
mod fleet;
mod ingest;
mod model;
mod operator;
mod peer;
mod status;
#[cfg(test)]
pub(crate) mod tests;

/// Streams at a time in a connection of an agent: it needs three.
pub const AGENT_STREAMS_MAX: u32 = 8;
/// Streams at a time in a connection of an operator.
pub const ADMIN_STREAMS_MAX: u32 = 32;

/// What a streaming call answers with.
type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The services behind the agents' listener.
pub struct AgentServices<M> {
    /// Hosts and their certificates.
    pub enrollment: Arc<Enrollment>,
    /// Who is welcome; reports and desired state.
    pub fleet: Arc<Fleet>,
    /// Batches.
    pub ingest: Arc<Ingest>,
    /// Their chains.
    pub chains: Arc<Chains>,
    /// Model files.
    pub models: Arc<M>,
}

impl<M: ModelSource> AgentServices<M> {
    /// The calls of agents, each with the limits of its messages.
    pub fn routes(self) -> Routes {
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(enrollment::server(self.enrollment, Arc::clone(&self.fleet)))
            .add_service(fleet::server(Arc::clone(&self.fleet)))
            .add_service(ingest::server(self.ingest, self.chains, Arc::clone(&self.fleet)))
            .add_service(model::server(self.models, self.fleet));
        routes.routes()
    }
}
