//! What is played, and when: decided by seed and round alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::Round;
use super::activity::Activity;
use super::attack::Attack;
use super::benign::Benign;

/// How much is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// When the last instance begins at the latest.
    pub duration: Duration,
    /// Attack instances of each kind.
    pub attacks_per_kind: usize,
    /// Benign instances of each kind.
    pub benign_per_kind: usize,
}

impl Size {
    /// The size of the demo's rounds.
    pub fn of(round: Round) -> Self {
        match round {
            Round::One => Self { duration: Duration::from_secs(48), attacks_per_kind: 6, benign_per_kind: 9 },
            Round::Two => Self { duration: Duration::from_secs(36), attacks_per_kind: 3, benign_per_kind: 7 },
        }
    }
}

/// An activity with its place in time.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedInstance {
    /// Unique over both rounds; the label group.
    pub id: String,
    /// Unique in this plan.
    pub number: usize,
    /// When it begins, after the round's start.
    pub offset: Duration,
    /// What it does.
    pub activity: Activity,
    /// For what preparing it leaves to chance.
    pub seed: u64,
}

/// What one round plays, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which round.
    pub round: Round,
    /// Its instances, sorted by offset.
    pub instances: Vec<PlannedInstance>,
}

impl Plan {
    /// The plan of `round` for `seed`.
    ///
    /// The instances of each kind are spread evenly over the round with a random part, so that every part of it has
    /// some of everything.
    pub fn generate(seed: u64, round: Round, size: Size) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(round.number()) << 56));
        let mut drafts: Vec<(Duration, Activity)> = Vec::new();
        for kind in 0..Attack::kinds() {
            for index in 0..size.attacks_per_kind {
                let attack = Attack::generate(kind, index, round, &mut rng);
                let offset = place(index, size.attacks_per_kind, size.duration, &mut rng);
                drafts.push((offset, Activity::Attack(attack)));
            }
        }
        for index in 0..size.benign_per_kind {
            // In a new order each time, so that no kind is always the one after another.
            let mut catalogue = Benign::catalogue(round, &mut rng);
            catalogue.shuffle(&mut rng);
            for benign in catalogue {
                let offset = place(index, size.benign_per_kind, size.duration, &mut rng);
                drafts.push((offset, Activity::Benign(benign)));
            }
        }
        drafts.sort_by_key(|(offset, _)| *offset);
        let instances = drafts
            .into_iter()
            .enumerate()
            .map(|(number, (offset, activity))| PlannedInstance {
                id: format!("round{}-{number:03}-{}", round.number(), activity.name()),
                number,
                offset,
                activity,
                seed: rng.random(),
            })
            .collect();
        Self { round, instances }
    }
}

fn place(index: usize, count: usize, duration: Duration, rng: &mut StdRng) -> Duration {
    let share = (index as f64 + rng.random_range(0.0..1.0)) / count.max(1) as f64;
    duration.mul_f64(share)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, round: Round) -> Plan {
        Plan::generate(seed, round, Size::of(round))
    }

    fn styles(plan: &Plan) -> BTreeSet<(String, String)> {
        let attacks = plan.instances.iter().filter_map(|instance| match &instance.activity {
            Activity::Attack(attack) => Some((attack.technique().id().to_owned(), attack.style())),
            Activity::Benign(_) => None,
        });
        attacks.collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, Round::One), plan(7, Round::One));
        assert_ne!(plan(7, Round::One).instances, plan(8, Round::One).instances);
    }

    #[test]
    fn round_two_plays_variants_and_techniques_that_round_one_never_plays() {
        let (one, two) = (styles(&plan(1, Round::One)), styles(&plan(1, Round::Two)));
        let new: BTreeSet<_> = two.difference(&one).collect();
        assert!(new.len() >= 8, "{new:?}");
        // Never, not only with this seed.
        for seed in 2..20 {
            let one = styles(&plan(seed, Round::One));
            assert!(!one.iter().any(|(_, style)| {
                ["slow", "banner", "python", "perl", "files", "fifo", "post ", "chunked", "raw", "spraying", "profile"]
                    .contains(&style.as_str())
            }));
        }
    }

    #[test]
    fn instances_are_sorted_numbered_and_spread() {
        let plan = plan(3, Round::One);
        assert!(plan.instances.windows(2).all(|pair| pair[0].offset <= pair[1].offset));
        assert!(plan.instances.iter().enumerate().all(|(number, instance)| instance.number == number));
        let ids: BTreeSet<&str> = plan.instances.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(ids.len(), plan.instances.len());
        // Every technique of round one is played in the first and in the last third.
        let duration = Size::of(Round::One).duration;
        for kind in 0..Attack::kinds() {
            let technique = Attack::generate(kind, 0, Round::One, &mut StdRng::seed_from_u64(0)).technique();
            let mut offsets = plan.instances.iter().filter_map(|instance| match &instance.activity {
                Activity::Attack(attack) if attack.technique() == technique => Some(instance.offset),
                _ => None,
            });
            assert!(offsets.next().unwrap() < duration / 3);
            assert!(offsets.next_back().unwrap() > duration * 2 / 3);
        }
    }
}
