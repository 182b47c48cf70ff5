//! Rights, limits, wrong fields, callers who go away.

use std::sync::Arc;

use picket_proto::v1;
use tokio::sync::{broadcast, mpsc};
use tonic::{Code, Status};

use super::{add_labels, all, build, labelled, train};
use crate::api::admin::tests::server::{TestServer, labels, script};
use crate::api::admin::{CALLS_MAX, tail};
use crate::auth::Role;
use crate::ctl::client::Client;
use crate::ingest::AcceptedBatch;

/// Every call with an empty request, by the role it needs.
async fn call(client: &mut Client, name: &str) -> Result<(), Status> {
    match name {
        "create_token" => client.create_token(v1::CreateTokenRequest::default()).await.map(drop),
        "list_hosts" => client.list_hosts(v1::ListHostsRequest::default()).await.map(drop),
        "query_events" => client.query_events(v1::QueryEventsRequest::default()).await.map(drop),
        "tail_events" => client.tail_events(v1::TailEventsRequest::default()).await.map(drop),
        "commit_lake" => client.commit_lake(v1::CommitLakeRequest::default()).await.map(drop),
        "add_labels" => client.add_labels(v1::AddLabelsRequest::default()).await.map(drop),
        "list_labels" => client.list_labels(v1::ListLabelsRequest::default()).await.map(drop),
        "build_dataset" => client.build_dataset(v1::BuildDatasetRequest::default()).await.map(drop),
        "list_datasets" => client.list_datasets(v1::ListDatasetsRequest::default()).await.map(drop),
        "train" => client.train(v1::TrainRequest::default()).await.map(drop),
        "list_models" => client.list_models(v1::ListModelsRequest::default()).await.map(drop),
        "get_model" => client.get_model(v1::GetModelRequest::default()).await.map(drop),
        "judge_model" => client.judge_model(v1::JudgeModelRequest::default()).await.map(drop),
        "rebuild_model" => client.rebuild_model(v1::RebuildModelRequest::default()).await.map(drop),
        "push_model" => client.push_model(v1::PushModelRequest::default()).await.map(drop),
        _ => panic!("no call {name}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_needs_its_role() {
    let needed = [
        ("list_hosts", Role::Viewer),
        ("query_events", Role::Viewer),
        ("tail_events", Role::Viewer),
        ("list_labels", Role::Viewer),
        ("list_datasets", Role::Viewer),
        ("list_models", Role::Viewer),
        ("get_model", Role::Viewer),
        ("add_labels", Role::Analyst),
        ("commit_lake", Role::Engineer),
        ("build_dataset", Role::Engineer),
        ("train", Role::Engineer),
        ("judge_model", Role::Viewer),
        ("rebuild_model", Role::Engineer),
        ("push_model", Role::Engineer),
        ("create_token", Role::Admin),
    ];
    let server = TestServer::start().await;
    for role in Role::ALL {
        let mut client = server.client(role).await;
        for (name, needed) in needed {
            let code = call(&mut client, name).await.err().map(|status| status.code());
            assert_eq!(code == Some(Code::PermissionDenied), role < needed, "{role} calls {name}: {code:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_is_named() {
    let (server, mut client, scripted) = labelled(2).await;
    let good = labels(server.host, &scripted[..1]);
    let wrong = |change: fn(&mut v1::Label)| {
        let mut label = good[0].clone();
        change(&mut label);
        vec![good[0].clone(), label]
    };
    for (labels, field) in [
        (vec![], "labels: there are none"),
        (wrong(|label| label.event = None), "labels[1].event"),
        (wrong(|label| label.event.as_mut().unwrap().host_id = "me".to_owned()), "labels[1].event.host_id"),
        (wrong(|label| label.verdict = 0), "labels[1].verdict"),
        (wrong(|label| label.verdict = 77), "labels[1].verdict"),
        (wrong(|label| label.technique = "scan".to_owned()), "labels[1]"),
        (vec![good[0].clone(); 10_001], "10001 labels in one call"),
    ] {
        let status = add_labels(&mut client, labels).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field} is missing in {status:?}");
    }

    let refused = async |status: Result<(), Status>, field: &str| {
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field} is missing in {status:?}");
    };
    refused(build(&mut client, "processes", 0.3).await.map(drop), "subject").await;
    for fraction in [0.01, 0.95, -1.0, f64::NAN] {
        refused(build(&mut client, "connection", fraction).await.map(drop), "test_fraction").await;
    }
    refused(train(&mut client, "x", &["deep"], 1).await.map(drop), "algorithms[0]").await;
    refused(train(&mut client, "", &[], 1).await.map(drop), "dataset_id").await;
    let request = v1::ListLabelsRequest { page_size: 10_001, page_token: String::new() };
    refused(client.list_labels(request).await.map(drop), "page_size").await;
    let request = v1::ListLabelsRequest { page_size: 1, page_token: "next".to_owned() };
    refused(client.list_labels(request).await.map(drop), "page_token").await;
    let request = v1::GetModelRequest { model_digest: "abc".to_owned(), with_bytes: false, with_report_page: false };
    refused(client.get_model(request).await.map(drop), "model_digest").await;
    let request = v1::TailEventsRequest { host_id: "abc".to_owned() };
    refused(client.tail_events(request).await.map(drop), "host_id").await;

    let unknown = "0".repeat(64);
    let request = v1::PushModelRequest { model_digest: unknown.clone(), force: true };
    assert_eq!(client.push_model(request).await.unwrap_err().code(), Code::NotFound);
    let request = v1::GetModelRequest { model_digest: unknown, with_bytes: false, with_report_page: false };
    assert_eq!(client.get_model(request).await.unwrap_err().code(), Code::NotFound);
    let request = v1::ListDatasetsRequest { dataset_id: "none".to_owned() };
    assert_eq!(client.list_datasets(request).await.unwrap_err().code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_keep_their_limits() {
    let server = TestServer::start().await;
    let mut client = server.client(Role::Admin).await;
    let answer = client.create_token(v1::CreateTokenRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.join_token.split('.').count(), 3);
    let life = answer.expires_unix_s - crate::clock::UnixSeconds::now().0;
    assert!((3590..=3600).contains(&life), "{life}");
    for request in [
        v1::CreateTokenRequest { valid_for_s: 31 * 86_400, max_uses: 1 },
        v1::CreateTokenRequest { valid_for_s: 60, max_uses: 100_001 },
    ] {
        assert_eq!(client.create_token(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_a_time_are_limited_and_places_come_back() {
    let server = TestServer::start().await;
    // More than one connection: each has a limit of its own.
    let mut clients = vec![server.client(Role::Viewer).await];
    let token_is_there = clients.len();
    for _ in token_is_there..4 {
        clients.push(server.client(Role::Viewer).await);
    }
    let mut tails = Vec::new();
    for place in 0..CALLS_MAX {
        tails.push(clients[place % 4].tail_events(v1::TailEventsRequest::default()).await.unwrap());
    }
    let status = clients[0].list_hosts(v1::ListHostsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    drop(tails);
    // The server learns of it when it reads from the connections.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while clients[0].list_hosts(v1::ListHostsRequest {}).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "places did not come back");
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_does_not_block_the_next_training() {
    let (server, mut client, _) = labelled(20).await;
    let dataset = build(&mut client, "process_start", 0.3).await.unwrap();
    for _ in 0..3 {
        let request = v1::TrainRequest {
            dataset_id: dataset.dataset_id.clone(),
            algorithms: vec!["random_forest".to_owned()],
            seed: 1,
            ..v1::TrainRequest::default()
        };
        let mut answers = client.train(request).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().progress.is_some());
        drop(answers);
    }
    let models = train(&mut client, &dataset.dataset_id, &["decision_tree"], 1).await.unwrap();
    assert_eq!(models.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shown_as_they_come() {
    let server = TestServer::start().await;
    let mut client = server.client(Role::Viewer).await;
    let everything = client.tail_events(v1::TailEventsRequest::default()).await.unwrap();
    let request = v1::TailEventsRequest { host_id: picket_common::id::HostId::from_random([9; 16]).to_string() };
    let other_host = client.tail_events(request).await.unwrap();
    let scripted = script(2);
    server.deliver(&scripted.iter().map(|scripted| scripted.event.clone()).collect::<Vec<_>>()).await;

    let mut everything = everything.into_inner();
    for scripted in &scripted {
        let answer = everything.message().await.unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_str(&answer.event_json).unwrap();
        assert_eq!(json["host_id"], server.host.to_string());
        assert_eq!(picket_common::event::json::from_json(&json).unwrap(), scripted.event);
        assert_eq!(answer.missed, 0);
    }
    // A server that stops ends what is open.
    let ended = all(Ok(other_host));
    let stopping = server.stop();
    let (ended, ()) = tokio::join!(ended, stopping);
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_slow_reader_is_told_exactly_how_many_events_it_missed() {
    let host = picket_common::id::HostId::from_random([1; 16]);
    let scripted = script(10);
    let (batches, receiver) = broadcast::channel(2);
    let mut events_before = 0;
    let mut send = |size: usize| {
        let events: Vec<_> = scripted.iter().take(size).map(|scripted| scripted.event.clone()).collect();
        batches.send(Arc::new(AcceptedBatch { host, events, events_before })).unwrap();
        events_before += size as u64;
    };
    let (answers, mut taken) = mpsc::channel(1);
    send(1);
    let reading = tokio::spawn(tail::send(receiver, None, answers));
    assert_eq!(taken.recv().await.unwrap().unwrap().missed, 0);
    // Two are kept of these four; the reader has not come back for any yet.
    for size in [3, 5, 2, 4] {
        send(size);
    }
    drop(batches);
    let mut missed = 0;
    let mut seen = 0;
    while let Some(answer) = taken.recv().await {
        missed += answer.as_ref().unwrap().missed;
        seen += 1;
    }
    assert_eq!((missed, seen), (8, 6));
    reading.await.unwrap().unwrap();
}
