//! `AdminService`: what operators may do.
//!
//! Every call: its place among [`CALLS_MAX`] → the token's role → decode → one service → encode. Long work runs on
//! threads of its own, streams its progress, and gives up when the caller goes away.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use picket_proto::v1;
use picket_proto::v1::admin_service_server::{AdminService, AdminServiceServer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Request, Response, Status};

use crate::api::admin::convert::{digest, optional_subject};
use crate::api::{ResponseStream, authorize};
use crate::auth::{Auth, Operator, Role};
use crate::chain::Chains;
use crate::clock::UnixSeconds;
use crate::dataset::Datasets;
use crate::fleet::Fleet;
use crate::ingest::Ingest;
use crate::label::{Label, Labels};
use crate::lake::Lake;
use crate::losses::Losses;
use crate::pki::{Enrollment, JOIN_TOKEN_LIFE_DEFAULT};
use crate::registry::Registry;
use crate::release::Releases;
use crate::training::Trainings;
use picket_learn::evaluate;

mod card;
mod convert;
mod delivery;
mod query;
mod status;
mod stream;
mod tail;
#[cfg(test)]
mod tests;
mod work;

/// Largest request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Calls at a time in all.
const CALLS_MAX: usize = 64;
/// Longest call.
const CALL_TIME_MAX: Duration = Duration::from_secs(600);
/// Labels of a page when nobody says.
const PAGE_SIZE_DEFAULT: u32 = 1000;
/// Most labels of a page.
const PAGE_SIZE_MAX: u32 = 10_000;

/// The services behind the admin listener.
pub struct AdminServices {
    /// Who may do what.
    pub auth: Auth,
    /// Join tokens.
    pub enrollment: Arc<Enrollment>,
    /// Hosts.
    pub fleet: Arc<Fleet>,
    /// What became of their batches.
    pub chains: Arc<Chains>,
    /// What became of their events.
    pub losses: Losses,
    /// Events as they come.
    pub ingest: Arc<Ingest>,
    /// Events that are stored.
    pub lake: Arc<Lake>,
    /// Labels.
    pub labels: Labels,
    /// Data sets.
    pub datasets: Datasets,
    /// Trainings.
    pub trainings: Arc<Trainings>,
    /// Models.
    pub registry: Arc<Registry>,
    /// What lets them go to agents.
    pub releases: Releases,
}

impl AdminServices {
    /// The calls of operators, with the limits of their messages.
    pub fn routes(self) -> Routes {
        let mut routes = RoutesBuilder::default();
        let api = AdminApi { services: self, calls: Arc::new(Semaphore::new(CALLS_MAX)) };
        routes.add_service(AdminServiceServer::new(api).max_decoding_message_size(REQUEST_BYTES_MAX));
        routes.routes()
    }
}

struct AdminApi {
    services: AdminServices,
    calls: Arc<Semaphore>,
}

/// A call that may go on: who calls, and its place among all calls.
struct Admitted {
    operator: Operator,
    place: OwnedSemaphorePermit,
}

impl AdminApi {
    /// The message, and who sent it.
    async fn admit<T>(&self, request: Request<T>, needed: Role) -> Result<(Admitted, T), Status> {
        let place = self.calls.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted(format!("{CALLS_MAX} calls run already: try again later")))?;
        let operator = authorize(&self.services.auth, request.metadata(), needed).await?;
        Ok((Admitted { operator, place }, request.into_inner()))
    }
}

/// A call with one answer: within its time.
async fn in_time<T>(work: impl Future<Output = Result<T, Status>>) -> Result<Response<T>, Status> {
    tokio::time::timeout(CALL_TIME_MAX, work).await.map_err(|_| stream::too_long())?.map(Response::new)
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Admin).await?;
        let life = match request.valid_for_s {
            0 => JOIN_TOKEN_LIFE_DEFAULT,
            seconds => Duration::from_secs(seconds.into()),
        };
        let (author, uses) = (admitted.operator.name, request.max_uses.max(1));
        in_time(async {
            let token = self.services.enrollment.create_token(&author, life, uses, UnixSeconds::now()).await?;
            Ok(v1::CreateTokenResponse { join_token: token.text.to_string(), expires_unix_s: token.expires.0 })
        })
        .await
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let (_admitted, _) = self.admit(request, Role::Viewer).await?;
        in_time(async {
            let stored = self.services.lake.events_stored().await?;
            let hosts = self.services.fleet.hosts().await?;
            let stored = |host| stored.get(&host).map_or(0, |classes| classes.values().sum());
            let hosts = hosts.into_iter().map(|view| convert::host(stored(view.record.host), view)).collect();
            Ok(v1::ListHostsResponse { hosts })
        })
        .await
    }

    async fn revoke_host(
        &self,
        request: Request<v1::RevokeHostRequest>,
    ) -> Result<Response<v1::RevokeHostResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Admin).await?;
        let host = convert::host_id(&request.host_id)?;
        in_time(async {
            let revoked = self.services.fleet.revoke(host).await?;
            let revoked = revoked.ok_or_else(|| Status::not_found(format!("there is no host {host}")))?;
            tracing::warn!(%host, operator = admitted.operator.name, "a host was revoked");
            Ok(v1::RevokeHostResponse { revoked_unix_s: revoked.0 })
        })
        .await
    }

    async fn release_host(
        &self,
        request: Request<v1::ReleaseHostRequest>,
    ) -> Result<Response<v1::ReleaseHostResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Admin).await?;
        let host = convert::host_id(&request.host_id)?;
        in_time(async {
            let released = self.services.fleet.release(host).await?;
            let released = released.ok_or_else(|| Status::not_found(format!("there is no host {host}")))?;
            tracing::warn!(%host, released, operator = admitted.operator.name, "a host's quarantine was ended");
            Ok(v1::ReleaseHostResponse { released })
        })
        .await
    }

    async fn list_chains(
        &self,
        request: Request<v1::ListChainsRequest>,
    ) -> Result<Response<v1::ListChainsResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let wanted = convert::optional_host(&request.host_id)?;
        in_time(async {
            let hosts = self.services.fleet.hosts().await?.into_iter().map(|view| view.record.host);
            let hosts: Vec<_> = hosts.filter(|host| wanted.is_none_or(|wanted| wanted == *host)).collect();
            if let (Some(wanted), true) = (wanted, hosts.is_empty()) {
                return Err(Status::not_found(format!("there is no host {wanted}")));
            }
            let mut epochs = Vec::new();
            for host in hosts {
                let reports = self.services.chains.report(host).await?;
                epochs.extend(reports.into_iter().map(|report| delivery::chain(host, report)));
            }
            Ok(v1::ListChainsResponse { epochs })
        })
        .await
    }

    async fn list_losses(
        &self,
        request: Request<v1::ListLossesRequest>,
    ) -> Result<Response<v1::ListLossesResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let host = convert::optional_host(&request.host_id)?;
        in_time(async {
            let losses = self.services.losses.report(host).await?;
            Ok(v1::ListLossesResponse { epochs: losses.into_iter().map(delivery::losses).collect() })
        })
        .await
    }

    async fn list_authorities(
        &self,
        request: Request<v1::ListAuthoritiesRequest>,
    ) -> Result<Response<v1::ListAuthoritiesResponse>, Status> {
        let (_admitted, _) = self.admit(request, Role::Viewer).await?;
        in_time(async {
            let (authorities, hosts) = self.services.fleet.authorities().await?;
            Ok(v1::ListAuthoritiesResponse { authorities: authorities.iter().map(convert::authority).collect(), hosts })
        })
        .await
    }

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<v1::RotateAuthorityResponse>, Status> {
        let (admitted, _) = self.admit(request, Role::Admin).await?;
        in_time(async {
            let digest = self.services.fleet.rotate_authority().await?;
            tracing::warn!(%digest, operator = admitted.operator.name, "a rotation of the certificate authority began");
            Ok(v1::RotateAuthorityResponse { sha256: digest.to_string() })
        })
        .await
    }

    async fn retire_authority(
        &self,
        request: Request<v1::RetireAuthorityRequest>,
    ) -> Result<Response<v1::RetireAuthorityResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Admin).await?;
        in_time(async {
            let digest = self.services.fleet.retire_authority(request.force).await?;
            tracing::warn!(%digest, operator = admitted.operator.name, "a certificate authority was retired");
            Ok(v1::RetireAuthorityResponse { sha256: digest.to_string() })
        })
        .await
    }

    type QueryEventsStream = ResponseStream<v1::QueryEventsResponse>;

    async fn query_events(
        &self,
        request: Request<v1::QueryEventsRequest>,
    ) -> Result<Response<Self::QueryEventsStream>, Status> {
        let draining = stream::draining_of(&request);
        let (admitted, request) = self.admit(request, Role::Viewer).await?;
        let rows = query::start(&self.services.lake, &request).await?;
        Ok(Response::new(stream::answers(admitted.place, draining, |answers| query::send(rows, answers))))
    }

    type TailEventsStream = ResponseStream<v1::TailEventsResponse>;

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let draining = stream::draining_of(&request);
        let (admitted, request) = self.admit(request, Role::Viewer).await?;
        let host = convert::optional_host(&request.host_id)?;
        let batches = self.services.ingest.subscribe();
        Ok(Response::new(stream::answers(admitted.place, draining, move |answers| tail::send(batches, host, answers))))
    }

    async fn commit_lake(
        &self,
        request: Request<v1::CommitLakeRequest>,
    ) -> Result<Response<v1::CommitLakeResponse>, Status> {
        let (_admitted, _) = self.admit(request, Role::Engineer).await?;
        in_time(async {
            let summary = self.services.lake.commit().await?;
            Ok(v1::CommitLakeResponse { events_committed: summary.events })
        })
        .await
    }

    async fn add_labels(
        &self,
        request: Request<v1::AddLabelsRequest>,
    ) -> Result<Response<v1::AddLabelsResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Analyst).await?;
        let labels: Vec<Label> = convert::labels(&request.labels)?;
        in_time(async {
            let added = self.services.labels.add(&labels, &admitted.operator.name).await?;
            Ok(v1::AddLabelsResponse { added })
        })
        .await
    }

    async fn list_labels(
        &self,
        request: Request<v1::ListLabelsRequest>,
    ) -> Result<Response<v1::ListLabelsResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let size = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size if size <= PAGE_SIZE_MAX => size,
            size => return Err(convert::invalid("page_size", format!("{size} is more than {PAGE_SIZE_MAX}"))),
        };
        let after = convert::page_token(&request.page_token)?;
        in_time(async { Ok(convert::label_page(self.services.labels.list(after, size).await?)) }).await
    }

    type BuildDatasetStream = ResponseStream<v1::BuildDatasetResponse>;

    async fn build_dataset(
        &self,
        request: Request<v1::BuildDatasetRequest>,
    ) -> Result<Response<Self::BuildDatasetStream>, Status> {
        let draining = stream::draining_of(&request);
        let (admitted, request) = self.admit(request, Role::Engineer).await?;
        let new = convert::new_dataset(&request)?;
        let datasets = self.services.datasets.clone();
        let author = admitted.operator.name;
        let build = move |answers| work::build_dataset(datasets, new, author, answers);
        Ok(Response::new(stream::answers(admitted.place, draining, build)))
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        in_time(async {
            let datasets = &self.services.datasets;
            let found = match request.dataset_id.as_str() {
                "" => datasets.list().await?,
                dataset_id => vec![datasets.get(dataset_id).await?],
            };
            Ok(v1::ListDatasetsResponse { datasets: found.iter().map(convert::dataset).collect() })
        })
        .await
    }

    type TrainStream = ResponseStream<v1::TrainResponse>;

    async fn train(&self, request: Request<v1::TrainRequest>) -> Result<Response<Self::TrainStream>, Status> {
        let draining = stream::draining_of(&request);
        let (admitted, request) = self.admit(request, Role::Engineer).await?;
        let request = convert::train_request(request)?;
        let trainings = Arc::clone(&self.services.trainings);
        let author = admitted.operator.name;
        let train = move |answers| work::train(trainings, request, author, answers);
        Ok(Response::new(stream::answers(admitted.place, draining, train)))
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let subject = optional_subject(&request.subject)?;
        in_time(async {
            let models = self.services.registry.models(subject).await?;
            Ok(v1::ListModelsResponse { models: models.iter().map(convert::model).collect() })
        })
        .await
    }

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Result<Response<v1::GetModelResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let digest = digest("model_digest", &request.model_digest)?;
        in_time(async {
            let record = self.services.registry.model(digest).await?;
            let model_file =
                if request.with_bytes { self.services.registry.file(digest).await?.into() } else { Vec::new() };
            let report_text = evaluate::text::render(&record.model.evaluation);
            let report_page = if request.with_report_page {
                let dataset = self.services.datasets.get(&record.model.dataset_id).await?;
                evaluate::page::render(&record.model.evaluation, &card::of(&record, &dataset))
            } else {
                String::new()
            };
            let history = self.services.registry.history(digest).await?;
            Ok(v1::GetModelResponse {
                model: Some(convert::model(&record)),
                model_file,
                report_text,
                report_page,
                history: history.into_iter().map(convert::stage_change).collect(),
                // A record of finite numbers is always JSON.
                run_json: serde_json::to_string(&record.model.run).unwrap_or_default(),
            })
        })
        .await
    }

    async fn judge_model(
        &self,
        request: Request<v1::JudgeModelRequest>,
    ) -> Result<Response<v1::JudgeModelResponse>, Status> {
        let (_admitted, request) = self.admit(request, Role::Viewer).await?;
        let digest = digest("model_digest", &request.model_digest)?;
        in_time(async {
            let judgement = self.services.releases.judge(digest).await?;
            Ok(v1::JudgeModelResponse { judgement: Some(convert::judgement(judgement)) })
        })
        .await
    }

    type RebuildModelStream = ResponseStream<v1::RebuildModelResponse>;

    async fn rebuild_model(
        &self,
        request: Request<v1::RebuildModelRequest>,
    ) -> Result<Response<Self::RebuildModelStream>, Status> {
        let draining = stream::draining_of(&request);
        let (admitted, request) = self.admit(request, Role::Engineer).await?;
        let digest = digest("model_digest", &request.model_digest)?;
        let trainings = Arc::clone(&self.services.trainings);
        let rebuild = move |answers| work::rebuild(trainings, digest, answers);
        Ok(Response::new(stream::answers(admitted.place, draining, rebuild)))
    }

    async fn push_model(
        &self,
        request: Request<v1::PushModelRequest>,
    ) -> Result<Response<v1::PushModelResponse>, Status> {
        let (admitted, request) = self.admit(request, Role::Engineer).await?;
        let digest = digest("model_digest", &request.model_digest)?;
        in_time(async {
            let releases = &self.services.releases;
            let (state, judgement) = releases.release(digest, request.force, &admitted.operator.name).await?;
            let agents_connected = u32::try_from(self.services.fleet.connected()).unwrap_or(u32::MAX);
            let judgement = Some(convert::judgement(judgement));
            Ok(v1::PushModelResponse { generation: state.generation, agents_connected, judgement })
        })
        .await
    }
}
