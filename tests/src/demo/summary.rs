//! What the demo found, for machines: the file of `--summary`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// The seed the range played by.
    pub seed: u64,
    /// Whether every check held.
    pub passed: bool,
    /// Each check.
    pub checks: Vec<Check>,
    /// How the agent saw: one entry per sensor.
    pub sensors: Vec<Sensor>,
    /// Accounting over the agent's whole life.
    pub events: Events,
    /// Labels given.
    pub labels: u64,
    /// Every model trained.
    pub models: Vec<ModelSummary>,
    /// Bytes of the models pushed.
    pub model_bytes: u64,
    /// The first round.
    pub round_one: Played,
    /// The second round.
    pub round_two: RoundTwo,
    /// Vectors compared between agent and server.
    pub vectors: Vectors,
    /// The agent's own cost.
    pub agent: AgentCost,
    /// How long each stage took.
    pub seconds: BTreeMap<String, f64>,
}

/// Something that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it does.
    pub holds: bool,
    /// The figures.
    pub detail: String,
}

/// How one sensor saw.
#[derive(Clone, Debug, Serialize)]
pub struct Sensor {
    /// Its name.
    pub name: String,
    /// Its mode.
    pub mode: String,
    /// Why this mode.
    pub reason: String,
}

/// Where events went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Events {
    /// Events the sensors handed over, and those they know to have missed.
    pub generated: u64,
    /// Rows of sensor events in the lake.
    pub stored: u64,
    /// Losses by `stage/reason`, as stored.
    pub lost: BTreeMap<String, u64>,
    /// Rows that are there twice.
    pub duplicates: u64,
    /// Generated, but neither stored nor counted as lost.
    pub unaccounted: i64,
    /// Of those stored: happened while the server was gone.
    pub offline: u64,
}

/// One trained model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelSummary {
    /// What it judges.
    pub subject: String,
    /// How it was learned.
    pub algorithm: String,
    /// Area under the ROC curve, on held-out rows.
    pub roc_auc: Option<f64>,
    /// Average precision, on held-out rows.
    pub pr_auc: Option<f64>,
    /// Best recall with at most 1 % of benign rows alerted, on held-out rows.
    pub recall_at_1pct_fpr: Option<f64>,
    /// Lower end of its 95 % interval (bootstrap by attack and piece of work): what decides which model is pushed.
    pub recall_at_1pct_fpr_low: Option<f64>,
    /// Recall at the model's threshold, on held-out rows.
    pub recall: Option<f64>,
    /// Benign rows alerted at the model's threshold, on held-out rows.
    pub false_positive_rate: Option<f64>,
    /// Attacks of the held-out part.
    pub held_out_attacks: u64,
    /// Those with an alerted row.
    pub held_out_attacks_found: u64,
    /// Its threshold.
    pub threshold: f64,
    /// Size of its file.
    pub bytes: u64,
    /// How long learning took.
    pub training_seconds: f64,
    /// Whether it was pushed.
    pub pushed: bool,
}

/// Instances that were played.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Played {
    /// Benign instances.
    pub benign_instances: u64,
    /// Attack instances.
    pub attack_instances: u64,
    /// Instances that did not run to their end, with the reason.
    pub failed: Vec<String>,
    /// Process starts and closed connections that belong to an instance.
    pub subjects: u64,
    /// Those of the whole machine that belong to none.
    pub background_subjects: u64,
}

/// What the agent found with the server gone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundTwo {
    /// By technique.
    pub techniques: BTreeMap<String, Found>,
    /// By technique and variant; `new` ones were never played in round one.
    pub variants: BTreeMap<String, Variant>,
    /// Share of attack instances found.
    pub recall: f64,
    /// Benign process starts and connections.
    pub benign_subjects: u64,
    /// Those alerted.
    pub benign_alerted: u64,
    /// Those alerted, by kind of work.
    pub benign_alerted_by_kind: BTreeMap<String, u64>,
    /// Malicious process starts and connections, and those alerted.
    pub malicious_subjects: u64,
    /// Those alerted.
    pub malicious_alerted: u64,
    /// Subjects of processes the range knows nothing of, and those alerted.
    pub background_subjects: u64,
    /// Those alerted.
    pub background_alerted: u64,
    /// What was played.
    pub played: Played,
}

/// Attack instances of one technique.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Found {
    /// How many were played.
    pub played: u64,
    /// How many had at least one own subject alerted.
    pub found: u64,
}

/// Attack instances of one variant.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Variant {
    /// How many were played.
    pub played: u64,
    /// How many were found.
    pub found: u64,
    /// Whether round one never played it.
    pub new: bool,
}

/// The comparison of feature vectors.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Vectors {
    /// Vectors the agent computed.
    pub agent: u64,
    /// Of these, found again among those computed from stored events.
    pub compared: u64,
    /// Of these, different in any bit.
    pub different: u64,
}

/// What the agent cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AgentCost {
    /// Processor time.
    pub cpu_seconds: f64,
    /// How long it ran.
    pub wall_seconds: f64,
    /// Most memory.
    pub peak_rss_bytes: u64,
}

impl Summary {
    /// Adds a check.
    pub fn check(&mut self, name: &str, holds: bool, detail: String) {
        self.checks.push(Check { name: name.to_owned(), holds, detail });
    }
}
