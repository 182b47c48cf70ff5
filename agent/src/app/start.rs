//! What is done with the rights that the agent was started with, and giving them up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::app::AppError;
use crate::config::Config;
use crate::hardening::{Hardening, HardeningReport, Needs, PrivilegedThread};
use crate::own_program::OwnProgram;
use crate::pipeline::intake::SensorSender;
#[cfg(target_os = "linux")]
use crate::sensor::EbpfLoading;
use crate::sensor::{self, SensorContext, SensorSet};
use crate::state_file;

/// How the agent was called.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// How parts of it are run in processes of their own.
    pub own_program: OwnProgram,
    /// Its configuration file, which may be read again.
    pub config_path: PathBuf,
}

/// How the agent starts; see [`crate::hardening`].
#[derive(Debug, Default)]
pub(super) struct Start {
    /// Begun with the rights of the start.
    #[cfg(target_os = "linux")]
    ebpf: Option<EbpfLoading>,
    /// From before the agent was restricted; without, it is not.
    privileged: Option<PrivilegedThread>,
    hardening: Hardening,
}

impl Start {
    /// Restricts the calling thread, and with it all that it starts, but one thread for what still needs rights.
    pub(super) fn restricted(config: &Config, invocation: Invocation) -> Result<Self, AppError> {
        let state_dir = &config.agent.state_dir;
        state_file::make_private_folder(state_dir)
            .map_err(|source| AppError::StateDir { path: state_dir.clone(), source })?;
        // It takes longest: everything else happens meanwhile.
        #[cfg(target_os = "linux")]
        let ebpf = Some(EbpfLoading::begin(&config.sensor, Some(&invocation.own_program)));
        let hardening = Hardening::new(config.hardening);
        let privileged = PrivilegedThread::spawn().map_err(AppError::Threads)?;
        hardening.restrict_agent(&needs(config, &invocation.config_path))?;
        Ok(Self {
            #[cfg(target_os = "linux")]
            ebpf,
            privileged: Some(privileged),
            hardening,
        })
    }

    /// What has been and will be given up.
    pub(super) fn hardening(&self) -> Hardening {
        self.hardening.clone()
    }

    /// Starts the sensors, which restrict themselves.
    pub(super) fn sensors(
        self,
        config: &Config,
        sender: SensorSender,
        own_remotes: Vec<SocketAddr>,
    ) -> Result<SensorSet, AppError> {
        let Self { privileged, hardening, .. } = self;
        let state_dir = Some(config.agent.state_dir.clone());
        let config = config.sensor.clone();
        let context = SensorContext {
            sender,
            own_remotes,
            #[cfg(target_os = "linux")]
            ebpf: self.ebpf,
            state_dir,
            hardening: hardening.clone(),
        };
        let start = move || sensor::start(&config, context);
        let sensors = match privileged {
            Some(thread) => thread.run(start).map_err(AppError::Threads)?,
            None => start(),
        }?;
        for mode in &sensors.modes {
            tracing::info!(sensor = %mode.name, origin = ?mode.origin, reason = %mode.reason, "sensor");
        }
        let HardeningReport { applied, not_applied } = hardening.report();
        tracing::info!(?applied, ?not_applied, "hardening");
        Ok(sensors)
    }
}

/// What the agent still needs when it is restricted.
fn needs(config: &Config, config_path: &Path) -> Needs {
    let folder_of = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
    };
    let mut write = vec![config.agent.state_dir.clone()];
    let trace = &config.detector.trace_vectors;
    if !trace.as_os_str().is_empty() {
        write.push(folder_of(trace));
    }
    Needs { write, read: vec![folder_of(config_path)] }
}
