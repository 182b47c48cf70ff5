use std::time::Instant;

use picket_common::event::json;
use serde_json::Value;

use super::*;
use crate::config::Overrides;
use crate::status;
use crate::test_server::{TestServer, wait_for};

const RECORDING: &str = include_str!("../../../common/tests/golden/events_v1.jsonl");

/// What of the recording a sensor would send: everything but what an agent says of itself.
fn sensor_events() -> u64 {
    let events = RECORDING.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_sensors = |value: &Value| {
        json::from_json(value).unwrap();
        !matches!(value["class"].as_str(), Some("agent_activity" | "sensor_loss"))
    };
    events.filter(is_sensors).count() as u64
}

fn config(dir: &Path, text: &str) -> Config {
    let recording = dir.join("recording.jsonl");
    std::fs::write(&recording, RECORDING).unwrap();
    let path = dir.join("agent.toml");
    let text = format!(
        "agent.state_dir = {:?}\nagent.stop_drain_ms = 5000\nsensor.process.mode = 'off'\n\
         sensor.connection.mode = 'off'\nsensor.authentication.mode = 'off'\n\
         sensor.file.mode = 'off'\nsensor.replay.path = {recording:?}\n{text}",
        dir.join("state"),
    );
    std::fs::write(&path, text).unwrap();
    Config::load(&Overrides { config: Some(path), flags: Vec::new() }, []).unwrap()
}

fn status_of(dir: &Path) -> Option<status::Snapshot> {
    status::read(&dir.join("state")).ok().map(|reading| reading.snapshot)
}

async fn run_until(config: Config, stop: CancellationToken) -> Result<(), AppError> {
    let mut app = App::start(config, Start::default(), ServiceManager::default())?;
    let result = app.watch(stop.cancelled_owned()).await;
    app.stop().await.unwrap();
    Ok(result?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_together_delivers_what_the_sensors_saw() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start().await;
    let identity = crate::identity::tests::enrolled(&server).await;
    IdentityStore::in_state_dir(&dir.path().join("state")).save(&identity).unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run_until(config(dir.path(), "sensor.replay.loops = 3"), stop.clone()));
    let expected = 3 * sensor_events();
    server.wait_for("all events", |script| script.rows == expected).await;
    wait_for("status", || status_of(dir.path()).is_some_and(|status| status.events_accepted == expected)).await;
    stop.cancel();
    agent.await.unwrap().unwrap();

    let status = status_of(dir.path()).unwrap();
    assert!(status.stopped);
    let report = status.epochs.last().unwrap();
    assert_eq!((report.accepted, report.delivered, report.waiting, report.in_flight), (expected, expected, 0, 0));
    assert_eq!(report.lost, Default::default());
    assert_eq!(status.detector.not_scored_queue_full, 0);
    assert!(status.detector.not_scored_no_model > 0);
    assert!(status.sensors.iter().any(|sensor| sensor.name == "replay" && sensor.events_total == expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_everything_waits_and_the_next_life_delivers_it() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run_until(config(dir.path(), ""), stop.clone()));
    let expected = sensor_events();
    wait_for("status", || status_of(dir.path()).is_some_and(|status| status.events_accepted == expected)).await;
    let begun = Instant::now();
    stop.cancel();
    agent.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "there is nothing to wait for");
    let first = status_of(dir.path()).unwrap();
    assert_eq!(first.epochs.last().unwrap().waiting, expected);

    let server = TestServer::start().await;
    let identity = crate::identity::tests::enrolled(&server).await;
    IdentityStore::in_state_dir(&dir.path().join("state")).save(&identity).unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run_until(config(dir.path(), ""), stop.clone()));
    server.wait_for("both lives' events", |script| script.rows == 2 * expected).await;
    stop.cancel();
    agent.await.unwrap().unwrap();
    let second = status_of(dir.path()).unwrap();
    assert!(second.epoch > first.epoch);
    let delivered: Vec<u64> = second.epochs.iter().map(|report| report.delivered).collect();
    assert_eq!(delivered, [expected, expected]);
    assert_eq!(server.script.lock().losses, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run_until(config(dir.path(), ""), stop.clone()));
    wait_for("status", || status_of(dir.path()).is_some()).await;
    let second = run_until(config(dir.path(), ""), stop.clone()).await.unwrap_err();
    assert!(matches!(second, AppError::Locked { .. }), "{second}");
    stop.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let mut missing = config(dir.path(), "");
    missing.sensor.replay.as_mut().unwrap().path = dir.path().join("none.jsonl");
    let error = run_until(missing, stop.clone()).await.unwrap_err();
    assert!(matches!(error, AppError::Sensor(_)), "{error}");

    let mut no_folder = config(dir.path(), "");
    no_folder.agent.state_dir = dir.path().join("agent.toml/state");
    let error = run_until(no_folder, stop.clone()).await.unwrap_err();
    assert!(matches!(error, AppError::StateDir { .. }), "{error}");

    std::fs::create_dir_all(dir.path().join("state/identity")).unwrap();
    std::fs::write(dir.path().join("state/identity/identity.json"), "{").unwrap();
    let error = run_until(config(dir.path(), ""), stop).await.unwrap_err();
    assert!(matches!(error, AppError::Identity(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_models_are_damaged_collects_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("state/models")).unwrap();
    std::fs::write(dir.path().join("state/models/active.json"), "{").unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run_until(config(dir.path(), ""), stop.clone()));
    let expected = sensor_events();
    wait_for("status", || status_of(dir.path()).is_some_and(|status| status.events_accepted == expected)).await;
    stop.cancel();
    agent.await.unwrap().unwrap();
    assert!(status_of(dir.path()).unwrap().active_models.iter().all(|model| !model.last_error.is_empty()));
}
