//! Looks at everything the agent depends on, and says what to do about what is wrong.
//!
//! Nothing is changed. Each [`Check`] is independent of the others, as far as it can be.

use serde::Serialize;

use crate::config::Config;
use crate::identity::{Identity, IdentityStore};

mod host;
mod identity;
mod server;
#[cfg(test)]
mod tests;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

/// What a failure means for whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// This host: clock, disk, kernel, files.
    Host,
    /// Who this host is.
    Identity,
    /// The way to the server.
    Server,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
    /// What a failure means.
    #[serde(skip)]
    pub area: Area,
}

impl Check {
    fn ok(area: Area, name: &'static str, found: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, found: found.into(), advice: String::new(), area }
    }

    fn warn(area: Area, name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, found: found.into(), advice: advice.into(), area }
    }

    fn fail(area: Area, name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, found: found.into(), advice: advice.into(), area }
    }
}

/// Looks at everything that the agent with this configuration depends on.
pub async fn examine(config: &Config) -> Vec<Check> {
    let state_dir = &config.agent.state_dir;
    let store = IdentityStore::in_state_dir(state_dir);
    let identity = store.load();
    let mut checks = vec![host::state_dir(state_dir)];
    checks.extend(identity::checks(&store, &identity));
    checks.extend(host::kernel());
    checks.push(host::disk(state_dir, config.buffer.bytes_max));
    checks.extend(host::agent(state_dir));
    let identity: Option<Identity> = identity.ok().flatten();
    let server = match (&identity, config.uplink.server.as_str()) {
        (Some(identity), "") => identity.server.clone(),
        (_, server) => server.to_owned(),
    };
    checks.extend(server::checks(&server, identity.as_ref()).await);
    checks
}
