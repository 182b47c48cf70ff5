//! The admin API over real sockets: the loop from labels to a pushed model, and every wrong thing an operator can do.

use picket_common::feature::{ContextLimits, FeaturePipeline};
use picket_common::id::EventId;
use picket_common::model::{Algorithm, Model};
use picket_proto::v1;
use tonic::{Code, Status, Streaming};

use self::server::{Scripted, TestServer, labels, reference, script};
use crate::auth::Role;
use crate::ctl::client::Client;
use crate::dataset::files;
use crate::dataset::manifest::{Manifest, Part};
use picket_learn::evaluate::Report;
use picket_learn::gate::Policy;

mod command_line;
mod gate;
mod limits;
mod server;

/// Reads a stream to its end.
async fn all<T>(answers: Result<tonic::Response<Streaming<T>>, Status>) -> Result<Vec<T>, Status> {
    let mut answers = answers?.into_inner();
    let mut taken = Vec::new();
    while let Some(answer) = answers.message().await? {
        taken.push(answer);
    }
    Ok(taken)
}

async fn add_labels(client: &mut Client, labels: Vec<v1::Label>) -> Result<u64, Status> {
    client.add_labels(v1::AddLabelsRequest { labels }).await.map(|answer| answer.into_inner().added)
}

async fn build(client: &mut Client, subject: &str, test_fraction: f64) -> Result<v1::Dataset, Status> {
    let request = v1::BuildDatasetRequest { subject: subject.to_owned(), test_fraction };
    let answers = all(client.build_dataset(request).await).await?;
    assert!(answers.iter().any(|answer| answer.progress.is_some()), "no progress was told");
    Ok(answers.into_iter().find_map(|answer| answer.dataset).expect("a data set"))
}

async fn train(client: &mut Client, dataset: &str, algorithms: &[&str], seed: u64) -> Result<Vec<v1::Model>, Status> {
    let algorithms = algorithms.iter().map(|name| (*name).to_owned()).collect();
    let request = v1::TrainRequest { dataset_id: dataset.to_owned(), algorithms, seed, ..v1::TrainRequest::default() };
    Ok(all(client.train(request).await).await?.into_iter().filter_map(|answer| answer.model).collect())
}

/// A server with scripted events and their labels.
async fn labelled(groups: u64) -> (TestServer, Client, Vec<Scripted>) {
    labelled_with(groups, Policy::default()).await
}

/// The same with a gate of this policy.
async fn labelled_with(groups: u64, policy: Policy) -> (TestServer, Client, Vec<Scripted>) {
    let server = TestServer::start_with(policy).await;
    let scripted = script(groups);
    server.deliver(&scripted.iter().map(|scripted| scripted.event.clone()).collect::<Vec<_>>()).await;
    let mut client = server.client(Role::Engineer).await;
    // Nothing was committed: acknowledged is enough.
    let added = add_labels(&mut client, labels(server.host, &scripted)).await.unwrap();
    assert_eq!(added, scripted.len() as u64);
    (server, client, scripted)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_labels_to_a_model_in_force() {
    let (server, mut client, scripted) = labelled(30).await;
    let dataset = build(&mut client, "process_start", 0.0).await.unwrap();
    assert_eq!(dataset.rows_train + dataset.rows_test, 180);
    assert_eq!(dataset.malicious_train + dataset.malicious_test, 60);
    assert!((40..=70).contains(&dataset.rows_test), "{}", dataset.rows_test);
    // The same inputs give the same data set.
    assert_eq!(build(&mut client, "process_start", 0.0).await.unwrap(), dataset);
    let other = build(&mut client, "process_start", 0.5).await.unwrap();
    assert_ne!(other.manifest_digest, dataset.manifest_digest);
    vectors_are_those_of_the_agent(&server, &dataset, &scripted);

    let models = train(&mut client, &dataset.dataset_id, &[], 7).await.unwrap();
    assert_eq!(
        models.iter().map(|model| model.algorithm.as_str()).collect::<Vec<_>>(),
        Algorithm::supervised().map(Algorithm::name).collect::<Vec<_>>()
    );
    for model in &models {
        assert_eq!((model.stage.as_str(), model.subject.as_str()), ("candidate", "process_start"));
        let report: Report = serde_json::from_str(&model.evaluation_json).unwrap();
        assert!(report.recall_at_1pct_fpr > Some(0.9), "{}: {report:?}", model.algorithm);
        assert_eq!(report.rows, dataset.rows_test);
        assert_eq!(report.per_technique["T1059.004"].rows, dataset.malicious_test);
    }
    // The same data set, algorithm and seed give the same bytes, so the same model.
    let again = train(&mut client, &dataset.dataset_id, &["random_forest"], 7).await.unwrap();
    assert_eq!(again, [models[1].clone()]);

    let pushed = &models[1];
    let mut told = server.registry.subscribe();
    let request = v1::PushModelRequest { model_digest: pushed.model_digest.clone(), force: false };
    let answer = client.push_model(request).await.unwrap().into_inner();
    assert_eq!((answer.generation, answer.agents_connected), (1, 0));
    assert!(answer.judgement.unwrap().promote);
    assert_eq!(told.borrow_and_update().models[0].digest.to_string(), pushed.model_digest);

    let request =
        v1::GetModelRequest { model_digest: pushed.model_digest.clone(), with_bytes: true, with_report_page: true };
    let answer = client.get_model(request).await.unwrap().into_inner();
    assert_eq!(answer.model.unwrap().stage, "production");
    for text in
        [&pushed.model_digest, &dataset.manifest_digest, "T1059.004", "Calibration", "mean absolute contribution"]
    {
        assert!(answer.report_page.contains(text), "{text}");
    }
    assert!(answer.report_text.contains("recall at 1 % FPR"));
    let model = Model::verify(&answer.model_file, &[server.registry.verifying_key()]).unwrap();
    assert_eq!(model.id().to_string(), pushed.model_digest);
    assert_eq!(model.metadata().dataset_digest.to_string(), dataset.manifest_digest);

    let listed = client.list_models(v1::ListModelsRequest { subject: "process_start".to_owned() }).await.unwrap();
    assert_eq!(listed.into_inner().models.len(), Algorithm::supervised().count());
    let none = client.list_models(v1::ListModelsRequest { subject: "connection".to_owned() }).await.unwrap();
    assert!(none.into_inner().models.is_empty());
    server.stop().await;
}

/// What is in the files is, bit for bit, what an agent computes from the same events.
fn vectors_are_those_of_the_agent(server: &TestServer, dataset: &v1::Dataset, scripted: &[Scripted]) {
    let mut pipeline = FeaturePipeline::new(ContextLimits::default());
    let mut expected = std::collections::BTreeMap::new();
    for scripted in scripted {
        let vector = pipeline.observe(&scripted.event).expect("a process start is a subject");
        let bits: Vec<u32> = vector.values.iter().map(|value| value.to_bits()).collect();
        expected.insert(EventId { host: server.host, key: scripted.event.key }, (bits, scripted));
    }
    let manifest = Manifest::from_bytes(dataset.manifest_json.as_bytes()).unwrap();
    let folder = server.folder.path().join("datasets").join(&dataset.dataset_id);
    let mut seen = 0;
    for part in Part::ALL {
        let rows = files::read(&folder, manifest.file(part).unwrap(), &manifest.feature_spec.features).unwrap();
        for (row, info) in rows.info.iter().enumerate() {
            let (bits, scripted) = &expected[&info.event];
            assert_eq!(&rows.values(row).iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
            assert_eq!((info.malicious, &info.group), (scripted.attack, &scripted.group));
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_unknown_events_are_named_and_nothing_is_added() {
    let (server, mut client, scripted) = labelled(2).await;
    let before = scripted.len() as u64;
    let mut wrong = labels(server.host, &scripted[..3]);
    let missing = EventId {
        host: server.host,
        key: picket_common::id::EventKey { sequence: picket_common::id::Sequence(999_999), ..scripted[0].event.key },
    };
    wrong[1].event = Some(reference(missing));
    let status = add_labels(&mut client, wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&missing.to_string()), "{status:?}");

    let mut token = String::new();
    let mut listed = Vec::new();
    loop {
        let request = v1::ListLabelsRequest { page_size: 5, page_token: token };
        let page = client.list_labels(request).await.unwrap().into_inner();
        assert_eq!(page.total, before);
        listed.extend(page.labels);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len() as u64, before);
    assert!(listed.iter().all(|label| label.author == "engineer" && label.source == "script"));
    assert!(listed.is_sorted_by_key(|label| label.label_id));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_learned_from_says_what_is_missing() {
    let server = TestServer::start().await;
    let mut client = server.client(Role::Engineer).await;
    let status = build(&mut client, "process_start", 0.3).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("no labels yet"), "{status:?}");

    let scripted = script(3);
    server.deliver(&scripted.iter().map(|scripted| scripted.event.clone()).collect::<Vec<_>>()).await;
    add_labels(&mut client, labels(server.host, &scripted)).await.unwrap();
    let status = build(&mut client, "process_start", 0.3).await.unwrap_err();
    assert!(status.message().contains("the malicious rows are 1 group(s)"), "{status:?}");
    let status = build(&mut client, "connection", 0.3).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("18 are of other events"), "{status:?}");

    let status = train(&mut client, "process_start-0123456789ab", &[], 1).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_set_is_not_learned_from() {
    let (server, mut client, _) = labelled(12).await;
    let dataset = build(&mut client, "process_start", 0.3).await.unwrap();
    let path = server.folder.path().join("datasets").join(&dataset.dataset_id).join("train.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let status = train(&mut client, &dataset.dataset_id, &["decision_tree"], 1).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    // Building it again heals it.
    assert_eq!(build(&mut client, "process_start", 0.3).await.unwrap(), dataset);
    assert_eq!(train(&mut client, &dataset.dataset_id, &["decision_tree"], 1).await.unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_stream_rows_and_say_what_was_wrong() {
    let (server, mut client, _) = labelled(10).await;
    let query = |sql: &str, row_limit| v1::QueryEventsRequest { sql: sql.to_owned(), row_limit };
    let sql = "SELECT sequence, executable, executable_deleted, time FROM process_activity ORDER BY sequence";
    let answers = all(client.query_events(query(sql, 7)).await).await.unwrap();
    let names: Vec<&str> = answers[0].columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["sequence", "executable", "executable_deleted", "time"]);
    assert!(answers.last().unwrap().truncated);
    let lines: Vec<u8> = answers.iter().flat_map(|answer| answer.rows_ndjson.clone()).collect();
    let rows: Vec<serde_json::Value> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 7);
    assert_eq!((rows[0]["sequence"].as_u64(), rows[0]["executable"].as_str()), (Some(0), Some("/usr/bin/ls")));

    // Absent values have their key.
    let sql = "SELECT NULL AS nothing, count(*) AS n FROM process_activity";
    let answers = all(client.query_events(query(sql, 0)).await).await.unwrap();
    let row: serde_json::Value = serde_json::from_slice(&answers.last().unwrap().rows_ndjson).unwrap();
    assert_eq!(row, serde_json::json!({"nothing": null, "n": 60}));
    assert!(!answers.last().unwrap().truncated);

    for (sql, limit, part) in [
        ("SELECT nonsense FROM process_activity", 0, "nonsense"),
        ("SELECT * FROM no_such_table", 0, "no_such_table"),
        ("DROP TABLE process_activity", 0, "sql:"),
        ("  ", 0, "sql: it is empty"),
        ("SELECT 1", 1_000_001, "row_limit"),
    ] {
        let status = all(client.query_events(query(sql, limit)).await).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{sql}: {status:?}");
        assert!(status.message().contains(part), "{sql}: {status:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_listed_with_what_is_stored_of_them() {
    let (server, mut client, scripted) = labelled(4).await;
    let hosts = client.list_hosts(v1::ListHostsRequest {}).await.unwrap().into_inner().hosts;
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].host_id, server.host.to_string());
    assert_eq!(hosts[0].events_stored, scripted.len() as u64);
    assert!(!hosts[0].connected && hosts[0].last_seen_unix_s == 0);
    let answer = client.commit_lake(v1::CommitLakeRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.events_committed, 0, "labelling had committed them");
    server.stop().await;
}
