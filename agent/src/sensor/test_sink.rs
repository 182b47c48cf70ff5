//! A sink that keeps everything, for tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::event::{EventBody, LossReason, LossStage, ProcessExit, ProcessStart};

use crate::hardening::Hardening;
use crate::sensor::{Observation, ObservationSink, SensorConfig, SensorContext, SensorSet};

/// How long a fact may take to show.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Keeps what sensors send.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestSink {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    observations: Vec<Observation>,
    lost: u64,
    throttled: u64,
}

impl ObservationSink for TestSink {
    fn send(&self, observation: Observation) {
        self.kept.lock().observations.push(observation);
    }

    fn lost(&self, stage: LossStage, reason: LossReason, count: u64) {
        assert_eq!(stage, LossStage::Sensor);
        let mut kept = self.kept.lock();
        match reason {
            LossReason::QueueFull | LossReason::LogRotated | LossReason::AgentKilled => kept.lost += count,
            LossReason::Throttled => kept.throttled += count,
            _ => panic!("{reason:?}"),
        }
    }
}

impl TestSink {
    /// Starts sensors that send here.
    pub(crate) fn start(&self, config: &SensorConfig) -> SensorSet {
        crate::sensor::start(config, self.context()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts sensors that also report this process.
    pub(crate) fn start_seeing_itself(&self, config: &SensorConfig) -> SensorSet {
        crate::sensor::start_seeing(config, self.context(), None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What sensors that send here need.
    pub(crate) fn context(&self) -> SensorContext<Self> {
        SensorContext {
            sender: self.clone(),
            own_remotes: Vec::new(),
            state_dir: None,
            ebpf: None,
            hardening: Hardening::default(),
        }
    }

    /// Starts sensors that keep their state in a folder.
    pub(crate) fn start_in(&self, config: &SensorConfig, state_dir: &std::path::Path) -> SensorSet {
        let context = SensorContext { state_dir: Some(state_dir.to_path_buf()), ..self.context() };
        crate::sensor::start(config, context).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until so many losses were reported.
    pub(crate) fn wait_for_losses(&self, count: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self.lost() < count {
            assert!(Instant::now() < deadline, "{} losses in {DEADLINE:?}", self.lost());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything so far.
    pub(crate) fn observations(&self) -> Vec<Observation> {
        self.kept.lock().observations.clone()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.kept.lock().lost
    }

    pub(crate) fn throttled(&self) -> u64 {
        self.kept.lock().throttled
    }

    /// Waits until `found` finds something in what was sent.
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&[Observation]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = found(&self.kept.lock().observations) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} in {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn starts_of(&self, pid: u32) -> Vec<(Observation, ProcessStart)> {
        starts_of(&self.kept.lock().observations, pid)
    }

    pub(crate) fn wait_for_start(&self, pid: u32) -> (Observation, ProcessStart) {
        self.wait_for("process start", |observations| starts_of(observations, pid).into_iter().next())
    }

    pub(crate) fn wait_for_exit(&self, pid: u32) -> (Observation, ProcessExit) {
        self.wait_for("process exit", |observations| {
            observations.iter().find_map(|observation| match &observation.body {
                EventBody::ProcessExit(exit) if exit.process.pid == pid => Some((observation.clone(), exit.clone())),
                _ => None,
            })
        })
    }
}

fn starts_of(observations: &[Observation], pid: u32) -> Vec<(Observation, ProcessStart)> {
    let start = |observation: &Observation| match &observation.body {
        EventBody::ProcessStart(start) if start.process.pid == pid => Some((observation.clone(), (**start).clone())),
        _ => None,
    };
    observations.iter().filter_map(start).collect()
}
