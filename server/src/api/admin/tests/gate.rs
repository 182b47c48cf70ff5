//! What the gate lets through, what goes on record, and models made again.

use picket_learn::gate::Policy;
use picket_proto::v1;
use tonic::{Code, Status};

use super::{all, build, labelled, labelled_with, train};
use crate::ctl::client::Client;

async fn push(client: &mut Client, model: &v1::Model, force: bool) -> Result<v1::PushModelResponse, Status> {
    let request = v1::PushModelRequest { model_digest: model.model_digest.clone(), force };
    Ok(client.push_model(request).await?.into_inner())
}

async fn judge(client: &mut Client, model: &v1::Model) -> Result<v1::Judgement, Status> {
    let request = v1::JudgeModelRequest { model_digest: model.model_digest.clone() };
    Ok(client.judge_model(request).await?.into_inner().judgement.expect("a judgement"))
}

async fn history(client: &mut Client, model: &v1::Model) -> Vec<v1::StageChange> {
    let request = v1::GetModelRequest { model_digest: model.model_digest.clone(), ..v1::GetModelRequest::default() };
    client.get_model(request).await.unwrap().into_inner().history
}

async fn rebuild(client: &mut Client, model: &v1::Model) -> String {
    let request = v1::RebuildModelRequest { model_digest: model.model_digest.clone() };
    let answers = all(client.rebuild_model(request).await).await.unwrap();
    answers.into_iter().map(|answer| answer.found_digest).find(|digest| !digest.is_empty()).expect("a digest")
}

async fn train_as(client: &mut Client, request: v1::TrainRequest) -> v1::Model {
    let answers = all(client.train(request).await).await.unwrap();
    answers.into_iter().find_map(|answer| answer.model).expect("a model")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_judged_beside_the_one_in_force_on_the_same_rows() {
    let (server, mut client, _) = labelled(30).await;
    let dataset = build(&mut client, "process_start", 0.0).await.unwrap();
    let models = train(&mut client, &dataset.dataset_id, &["decision_tree", "random_forest"], 7).await.unwrap();

    let alone = judge(&mut client, &models[0]).await.unwrap();
    assert!(alone.promote && alone.in_force_digest.is_empty(), "{alone:?}");
    assert_eq!((alone.rows, alone.malicious, alone.rows_left_out), (dataset.rows_test, dataset.malicious_test, 0));
    push(&mut client, &models[0], false).await.unwrap();

    let beside = judge(&mut client, &models[1]).await.unwrap();
    assert_eq!((beside.in_force_digest.as_str(), beside.rows), (models[0].model_digest.as_str(), dataset.rows_test));
    assert!(beside.figures.iter().all(|figure| figure.candidate.is_some() && figure.in_force.is_some()), "{beside:?}");
    assert!(judge(&mut client, &models[0]).await.unwrap().is_return, "it is in force");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_holds_goes_out_by_force_only_and_that_is_on_record() {
    let policy = Policy { positives_min: 1_000, ..Policy::default() };
    let (server, mut client, _) = labelled_with(30, policy).await;
    let dataset = build(&mut client, "process_start", 0.0).await.unwrap();
    let models = train(&mut client, &dataset.dataset_id, &["decision_tree", "naive_bayes"], 7).await.unwrap();

    let refused = push(&mut client, &models[0], false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("at least 1000 are needed to tell"), "{}", refused.message());
    assert_eq!(history(&mut client, &models[0]).await.len(), 1, "nothing happened");

    let forced = push(&mut client, &models[0], true).await.unwrap();
    assert_eq!(forced.generation, 1);
    let kept = history(&mut client, &models[0]).await;
    let on_record = kept[1].judgement.clone().unwrap();
    assert_eq!((kept[1].stage.as_str(), on_record.promote, on_record.forced), ("production", false, true));
    assert_eq!(Some(on_record), forced.judgement);
    assert!(kept[0].judgement.is_none());

    // A roll-back waits for no evidence.
    push(&mut client, &models[1], true).await.unwrap();
    let back = push(&mut client, &models[0], false).await.unwrap().judgement.unwrap();
    assert!(back.promote && back.is_return && !back.forced, "{back:?}");
    assert_eq!(history(&mut client, &models[0]).await.last().unwrap().judgement, Some(back));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_model_in_force_learned_from_judge_nobody() {
    let (server, mut client, _) = labelled(30).await;
    let dataset = build(&mut client, "process_start", 0.0).await.unwrap();
    let request = v1::TrainRequest {
        dataset_id: dataset.dataset_id.clone(),
        algorithms: vec!["decision_tree".to_owned()],
        refit: true,
        ..v1::TrainRequest::default()
    };
    let refitted = train_as(&mut client, request).await;
    // It has seen its held-out rows: the scores of the model before it stand for it.
    let judged = judge(&mut client, &refitted).await.unwrap();
    assert_eq!((judged.promote, judged.rows), (true, dataset.rows_test), "{judged:?}");
    push(&mut client, &refitted, false).await.unwrap();

    let other = train(&mut client, &dataset.dataset_id, &["random_forest"], 7).await.unwrap().remove(0);
    let judged = judge(&mut client, &other).await.unwrap();
    assert_eq!((judged.promote, judged.rows, judged.rows_left_out), (false, 0, dataset.rows_test));
    assert!(judged.reasons[0].contains("has learned from all its"), "{:?}", judged.reasons);

    // Without its scores a refitted model cannot be judged, and says what is missing.
    let request = v1::TrainRequest {
        dataset_id: dataset.dataset_id,
        algorithms: vec!["naive_bayes".to_owned()],
        refit: true,
        ..v1::TrainRequest::default()
    };
    let third = train_as(&mut client, request).await;
    let scores = server.folder.path().join("models").join(format!("{}.held-out", third.model_digest));
    std::fs::write(&scores, b"").unwrap();
    assert_eq!(judge(&mut client, &third).await.unwrap_err().code(), Code::DataLoss);
    assert_eq!(push(&mut client, &third, false).await.unwrap_err().code(), Code::DataLoss);
    // Force asks for no evidence; why there was none goes on record.
    let forced = push(&mut client, &third, true).await.unwrap().judgement.unwrap();
    assert!(forced.forced && !forced.promote && forced.reasons[0].contains("missing or damaged"), "{forced:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_made_again_byte_for_byte_from_their_record() {
    let (server, mut client, _) = labelled(30).await;
    let dataset = build(&mut client, "process_start", 0.0).await.unwrap();
    let usual = v1::TrainRequest {
        dataset_id: dataset.dataset_id,
        algorithms: vec!["extra_trees".to_owned()],
        seed: 5,
        false_positive_budget: 0.02,
        ..v1::TrainRequest::default()
    };
    let requests = [
        v1::TrainRequest { false_positive_confidence: 0.9, calibration: "platt".to_owned(), ..usual.clone() },
        v1::TrainRequest { refit: true, ..usual.clone() },
        v1::TrainRequest {
            algorithms: vec!["decision_tree".to_owned(), "logistic_regression".to_owned()],
            search_work: 50_000_000,
            ..usual.clone()
        },
    ];
    for request in requests {
        let model = train_as(&mut client, request).await;
        assert_eq!(rebuild(&mut client, &model).await, model.model_digest, "{}", model.algorithm);
    }
    // A search tells what it tried.
    let newest = client.list_models(v1::ListModelsRequest::default()).await.unwrap().into_inner().models;
    let searched = newest.iter().find(|model| model.algorithm != "extra_trees").unwrap();
    let request = v1::GetModelRequest { model_digest: searched.model_digest.clone(), ..v1::GetModelRequest::default() };
    let run = client.get_model(request).await.unwrap().into_inner().run_json;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["search"]["work"], 50_000_000);
    assert!(run["tried"].as_array().unwrap().len() >= 2, "{run}");

    let both = v1::TrainRequest { search_seconds: 1, search_work: 1, ..usual };
    assert_eq!(all(client.train(both).await).await.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await;
}
