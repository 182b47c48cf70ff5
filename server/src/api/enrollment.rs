//! `EnrollmentService`.

use std::sync::Arc;

use picket_proto::v1;
use picket_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use tonic::{Request, Response, Status};

use crate::api::peer::admit;
use crate::clock::UnixSeconds;
use crate::fleet::Fleet;
use crate::listener::Connection;
use crate::pki::Enrollment;

/// Largest message, both ways.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

pub(super) fn server(enrollment: Arc<Enrollment>, fleet: Arc<Fleet>) -> EnrollmentServiceServer<EnrollmentApi> {
    EnrollmentServiceServer::new(EnrollmentApi { enrollment, fleet })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

pub(super) struct EnrollmentApi {
    enrollment: Arc<Enrollment>,
    fleet: Arc<Fleet>,
}

#[tonic::async_trait]
impl EnrollmentService for EnrollmentApi {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let address = request.extensions().get::<Connection>().map(|connection| connection.address);
        let v1::EnrollRequest { join_token, certificate_signing_request_der, inventory } = request.into_inner();
        let inventory = inventory.unwrap_or_default().into();
        let identity = self
            .enrollment
            .enroll(&join_token, &certificate_signing_request_der, inventory, UnixSeconds::now())
            .await
            .inspect_err(|error| tracing::warn!(?address, %error, "refused an enrolment"))?;
        Ok(Response::new(v1::EnrollResponse { identity: Some(identity.into()) }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let (_, host) = admit(&self.fleet, &request).await?;
        let request = request.into_inner().certificate_signing_request_der;
        let identity = self.enrollment.renew(host, &request, UnixSeconds::now()).await?;
        Ok(Response::new(v1::RenewResponse { identity: Some(identity.into()) }))
    }
}
