//! What the agent found, held against what was played.

use std::collections::{BTreeMap, BTreeSet};

use picket_common::id::EventKey;

use super::summary::{Found, Played, RoundTwo, Variant};
use crate::range::label::{Attribution, Belonging};
use crate::range::truth::{GroundTruth, InstanceTruth};

/// Technique and variant of every attack of a round.
pub fn variants(truth: &GroundTruth) -> BTreeSet<String> {
    truth.instances.iter().filter_map(variant).collect()
}

fn variant(instance: &InstanceTruth) -> Option<String> {
    Some(format!("{}/{}", instance.technique?.id(), instance.style))
}

/// Counts what was played, and whose its subjects are.
pub fn played(truth: &GroundTruth, attribution: &Attribution) -> Played {
    let belongings = || attribution.processes.iter().chain(&attribution.connections).map(|(_, belonging)| *belonging);
    let count = |malicious: bool| truth.instances.iter().filter(|i| i.is_malicious() == malicious).count() as u64;
    let failed = truth.instances.iter().filter_map(|i| Some(format!("{} {}: {}", i.id, i.style, i.failure.as_ref()?)));
    Played {
        benign_instances: count(false),
        attack_instances: count(true),
        failed: failed.collect(),
        subjects: belongings().filter(|belonging| belonging.instance().is_some()).count() as u64,
        background_subjects: belongings().filter(|belonging| *belonging == Belonging::Background).count() as u64,
    }
}

/// Holds `alerted` against the truth. `known` are the variants round one played.
pub fn judge(
    truth: &GroundTruth,
    attribution: &Attribution,
    alerted: &BTreeSet<EventKey>,
    known: &BTreeSet<String>,
) -> RoundTwo {
    let mut result = RoundTwo { played: played(truth, attribution), ..RoundTwo::default() };
    let mut found: BTreeSet<usize> = BTreeSet::new();
    for (event, belonging) in attribution.processes.iter().chain(&attribution.connections) {
        let is_alerted = alerted.contains(event);
        let alert = u64::from(is_alerted);
        let instance = belonging.instance().and_then(|index| Some((index, truth.instances.get(index)?)));
        match (belonging, instance) {
            (_, Some((index, instance))) if instance.is_malicious() => {
                result.malicious_subjects += 1;
                result.malicious_alerted += alert;
                // Only what the attacked host itself has of an attack counts: see `range::label`.
                if is_alerted && matches!(belonging, Belonging::Own { .. }) {
                    found.insert(index);
                }
            }
            (_, Some((_, instance))) => {
                result.benign_subjects += 1;
                result.benign_alerted += alert;
                if is_alerted {
                    *result.benign_alerted_by_kind.entry(instance.style.clone()).or_default() += 1;
                }
            }
            (Belonging::Background, None) => {
                result.background_subjects += 1;
                result.background_alerted += alert;
            }
            (_, None) => {}
        }
    }
    let mut techniques: BTreeMap<String, Found> = BTreeMap::new();
    for (index, instance) in truth.instances.iter().enumerate() {
        let (Some(technique), Some(variant)) = (instance.technique, variant(instance)) else { continue };
        let is_found = u64::from(found.contains(&index));
        let by_technique = techniques.entry(technique.id().to_owned()).or_default();
        by_technique.played += 1;
        by_technique.found += is_found;
        let is_new = !known.contains(&variant);
        let by_variant = result.variants.entry(variant).or_insert(Variant { new: is_new, ..Variant::default() });
        by_variant.played += 1;
        by_variant.found += is_found;
    }
    let total: u64 = techniques.values().map(|technique| technique.played).sum();
    result.recall = if total == 0 { 0.0 } else { found.len() as f64 / total as f64 };
    result.techniques = techniques;
    result
}

#[cfg(test)]
mod tests {
    use picket_common::id::{Epoch, Sequence};

    use super::*;
    use crate::range::Round;
    use crate::range::attack::Technique;

    fn key(sequence: u64) -> EventKey {
        EventKey { epoch: Epoch(1), sequence: Sequence(sequence) }
    }

    fn instance(technique: Option<Technique>, style: &str) -> InstanceTruth {
        InstanceTruth {
            id: style.to_owned(),
            technique,
            style: style.to_owned(),
            roots: Vec::new(),
            service_pids: Vec::new(),
            connections: Vec::new(),
            exclusive_ports: Vec::new(),
            started_unix_ns: 0,
            ended_unix_ns: 0,
            failure: None,
        }
    }

    #[test]
    fn an_attack_is_found_by_its_own_subjects_only() {
        let truth = GroundTruth {
            round: Round::Two,
            instances: vec![
                instance(None, "browse"),
                instance(Some(Technique::WebProtocols), "get"),
                instance(Some(Technique::WebProtocols), "post"),
            ],
            service_pids: Vec::new(),
            started_unix_ns: 0,
            ended_unix_ns: 0,
        };
        let attribution = Attribution {
            processes: vec![
                (key(0), Belonging::Own { instance: 0 }),
                (key(1), Belonging::Own { instance: 1 }),
                (key(2), Belonging::Background),
            ],
            connections: vec![
                (key(3), Belonging::FarEnd { instance: 2 }),
                (key(4), Belonging::Own { instance: 0 }),
                (key(5), Belonging::Scenery),
            ],
        };
        let alerted = [1, 2, 3, 4, 5].map(key).into();
        let known = ["T1071.001/get".to_owned()].into();
        let result = judge(&truth, &attribution, &alerted, &known);
        let technique = result.techniques["T1071.001"];
        assert_eq!((technique.played, technique.found), (2, 1));
        assert!((result.recall - 0.5).abs() < 1e-9);
        assert_eq!((result.benign_subjects, result.benign_alerted), (2, 1));
        assert_eq!((result.malicious_subjects, result.malicious_alerted), (2, 2));
        assert_eq!((result.background_subjects, result.background_alerted), (1, 1));
        assert!(!result.variants["T1071.001/get"].new && result.variants["T1071.001/post"].new);
        assert_eq!(result.benign_alerted_by_kind["browse"], 1);
    }
}
