//! Long work: builds and trainings, with their progress.

use std::sync::Arc;

use picket_common::id::Digest;
use picket_proto::v1;
use tokio::runtime::Handle;
use tonic::Status;

use crate::api::admin::convert;
use crate::api::admin::stream::Answers;
use crate::api::status::internal;
use crate::dataset::{Datasets, NewDataset};
use crate::registry::ModelRecord;
use crate::training::{TrainRequest, Trainings};
use picket_learn::train::Observer;

/// Tells a caller how far the work is, and the work when the caller has gone.
struct Reporter<T, F> {
    answers: Answers<T>,
    wrap: F,
}

impl<T, F> Observer for Reporter<T, F>
where
    T: Send,
    F: Fn(v1::Progress) -> T + Send + Sync,
{
    fn progress(&self, stage: &str, done: u64, total: u64) {
        let step = (self.wrap)(v1::Progress { stage: stage.to_owned(), done, total });
        // A caller who reads slowly misses steps, not the result.
        self.answers.try_send(Ok(step)).ok();
    }

    fn cancelled(&self) -> bool {
        self.answers.is_closed()
    }
}

/// Builds a data set on a thread of its own.
pub(super) async fn build_dataset(
    datasets: Datasets,
    new: NewDataset,
    author: String,
    answers: Answers<v1::BuildDatasetResponse>,
) -> Result<(), Status> {
    let wrap = |step| v1::BuildDatasetResponse { progress: Some(step), dataset: None };
    let observer = Reporter { answers: answers.clone(), wrap };
    let handle = Handle::current();
    let build = move || handle.block_on(datasets.build(new, &author, &observer));
    let dataset = tokio::task::spawn_blocking(build).await.map_err(|error| internal(&error))??;
    let answer = v1::BuildDatasetResponse { progress: None, dataset: Some(convert::dataset(&dataset)) };
    // The caller may have gone.
    answers.send(Ok(answer)).await.ok();
    Ok(())
}

/// Trains models; each is sent as soon as it is done.
pub(super) async fn train(
    trainings: Arc<Trainings>,
    request: TrainRequest,
    author: String,
    answers: Answers<v1::TrainResponse>,
) -> Result<(), Status> {
    let wrap = |step| v1::TrainResponse { progress: Some(step), model: None };
    let observer = Reporter { answers: answers.clone(), wrap };
    let finished = move |model: ModelRecord| {
        let answer = v1::TrainResponse { progress: None, model: Some(convert::model(&model)) };
        // The caller may have gone.
        answers.blocking_send(Ok(answer)).ok();
    };
    Ok(trainings.run(request, author, observer, finished).await?)
}

/// Makes a model again, and tells the digest of what was made.
pub(super) async fn rebuild(
    trainings: Arc<Trainings>,
    model: Digest,
    answers: Answers<v1::RebuildModelResponse>,
) -> Result<(), Status> {
    let wrap = |step| v1::RebuildModelResponse { progress: Some(step), found_digest: String::new() };
    let observer = Reporter { answers: answers.clone(), wrap };
    let found = trainings.rebuild(model, observer).await?;
    let answer = v1::RebuildModelResponse { progress: None, found_digest: found.to_string() };
    // The caller may have gone.
    answers.send(Ok(answer)).await.ok();
    Ok(())
}
