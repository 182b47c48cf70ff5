//! Which host calls.

use picket_common::id::HostId;
use tonic::{Request, Status};

use crate::fleet::Fleet;
use crate::listener::Connection;

/// The connection of a request, and the host behind it if it is welcome.
///
/// Errors: UNAUTHENTICATED (no certificate, or one that is not on record any more), PERMISSION_DENIED (revoked).
pub(super) async fn admit<T>(fleet: &Fleet, request: &Request<T>) -> Result<(Connection, HostId), Status> {
    let connection = request
        .extensions()
        .get::<Connection>()
        .cloned()
        .ok_or_else(|| Status::internal("the listener does not say who calls"))?;
    let host = fleet.admit(connection.peer.as_ref()).await?;
    Ok((connection, host))
}
