//! A table for people, JSON lines for programs.

use serde_json::json;

use crate::measurement::{Best, Cost, Turn};
use crate::picket;

/// What a figure is measured against.
#[derive(Clone, Copy)]
enum Goal {
    /// Ours is at most this share of theirs.
    Ratio(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is at least this.
    AtLeast(f64),
    /// For information.
    None,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::Ratio(most) => format!("ratio ≤ {most:.3}"),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::None => String::new(),
        }
    }

    fn is_met(self, ours: f64, theirs: f64) -> Option<bool> {
        match self {
            Self::Ratio(most) => Some(ours <= theirs * most),
            Self::AtMost(most) => Some(ours <= most),
            Self::AtLeast(least) => Some(ours >= least),
            Self::None => None,
        }
    }
}

/// A figure of a collector; the smallest of all turns.
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// Of a collector, and of the loads beside nothing.
    value: fn(&Best, &Best) -> Option<f64>,
    goal: fn(&str) -> Goal,
}

const FIGURES: [Figure; 13] = [
    Figure {
        name: "collector: processor time per 1,000 process starts",
        unit: "ms",
        value: |best, _| best.least(|turn| turn.starts.map(collector_ms)),
        goal: |peer| match peer {
            "auditd" => Goal::Ratio(1.0 / 5.0),
            "auditd+laurel" => Goal::Ratio(1.0 / 15.0),
            _ => Goal::Ratio(1.0),
        },
    },
    Figure {
        name: "collector: processor time per 1,000 connections",
        unit: "ms",
        value: |best, _| best.least(|turn| turn.connections.map(collector_ms)),
        goal: |_| Goal::Ratio(1.0),
    },
    Figure {
        name: "in all, what the load pays too: per 1,000 process starts",
        unit: "ms",
        value: |best, alone| in_all_ms(best, alone, |turn| turn.starts),
        goal: |_| Goal::Ratio(1.0),
    },
    Figure {
        name: "in all, what the load pays too: per 1,000 connections",
        unit: "ms",
        value: |best, alone| in_all_ms(best, alone, |turn| turn.connections),
        goal: |_| Goal::Ratio(1.0),
    },
    Figure {
        name: "slow-down of process starts (processor time of the load)",
        unit: "%",
        value: |best, alone| slow_down(best, alone, |turn| turn.starts.map(load_ms)),
        goal: |_| Goal::AtMost(3.0),
    },
    Figure {
        name: "slow-down of connections (processor time of the load)",
        unit: "%",
        value: |best, alone| slow_down(best, alone, |turn| turn.connections.map(load_ms)),
        goal: |_| Goal::AtMost(3.0),
    },
    Figure {
        name: "slow-down of process starts (median time of one)",
        unit: "%",
        value: |best, alone| slow_down(best, alone, |turn| turn.starts.map(median_us)),
        goal: |_| Goal::None,
    },
    Figure {
        name: "process starts seen, of all (worst turn)",
        unit: "%",
        value: |best, _| worst_share(best, |turn| (turn.seen.starts, turn.starts)),
        goal: |_| Goal::AtLeast(100.0),
    },
    Figure {
        name: "connections seen, of all (worst turn)",
        unit: "%",
        value: |best, _| worst_share(best, |turn| (turn.seen.connections, turn.connections)),
        goal: |_| Goal::AtLeast(100.0),
    },
    Figure {
        name: "resident memory after the loads",
        unit: "MiB",
        value: |best, _| best.least(|turn| Some(mebibytes(turn.resident_bytes))),
        goal: |_| Goal::AtMost(24.0),
    },
    Figure {
        name: "resident memory, at most",
        unit: "MiB",
        value: |best, _| best.least(|turn| Some(mebibytes(turn.resident_bytes_peak))),
        goal: |_| Goal::AtMost(40.0),
    },
    Figure {
        name: "processor time while idle",
        unit: "% of a core",
        value: |best, _| best.least(|turn| Some(turn.idle_share * 100.0)),
        goal: |_| Goal::AtMost(0.1),
    },
    Figure {
        name: "bytes written per process start",
        unit: "bytes",
        value: |best, _| best.least(|turn| turn.starts.map(|cost| cost.written_bytes as f64 / cost.events as f64)),
        goal: |_| Goal::None,
    },
];

fn per_thousand(time: std::time::Duration, cost: Cost) -> f64 {
    time.as_secs_f64() * 1e6 / cost.events as f64
}

fn collector_ms(cost: Cost) -> f64 {
    per_thousand(cost.collector + cost.kernel_thread, cost)
}

fn load_ms(cost: Cost) -> f64 {
    per_thousand(cost.load, cost)
}

fn median_us(cost: Cost) -> f64 {
    cost.median.as_secs_f64() * 1e6
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn in_all_ms(best: &Best, alone: &Best, cost: fn(&Turn) -> Option<Cost>) -> Option<f64> {
    let of_load = |best: &Best| best.least(|turn| cost(turn).map(load_ms));
    let added = of_load(best)? - of_load(alone)?;
    Some(best.least(|turn| cost(turn).map(collector_ms))? + added)
}

fn slow_down(best: &Best, alone: &Best, figure: fn(&Turn) -> Option<f64>) -> Option<f64> {
    Some((best.least(figure)? / alone.least(figure)? - 1.0) * 100.0)
}

fn worst_share(best: &Best, figures: fn(&Turn) -> (Option<u64>, Option<Cost>)) -> Option<f64> {
    best.least(|turn| match figures(turn) {
        (Some(seen), Some(cost)) => Some(seen as f64 / cost.events as f64 * 100.0),
        _ => None,
    })
}

/// Prints all figures; `alone` are the loads beside nothing.
pub(crate) fn print(alone: &Best, results: &[(&'static str, Result<Best, String>)], as_json: bool) {
    for (name, result) in results {
        if let Err(reason) = result {
            if as_json {
                println!("{}", json!({"name": "unavailable", "peer": name, "reason": reason}));
            }
            eprintln!("{name} is not compared: {reason}");
        }
    }
    let there: Vec<(&str, &Best)> =
        results.iter().filter_map(|(name, result)| result.as_ref().ok().map(|best| (*name, best))).collect();
    if as_json {
        print_json(alone, &there);
    } else {
        print_table(alone, &there);
    }
}

fn print_json(alone: &Best, there: &[(&str, &Best)]) {
    let Some((_, ours)) = there.iter().find(|(name, _)| *name == picket::NAME) else { return };
    for figure in &FIGURES {
        let Some(our_value) = (figure.value)(ours, alone) else { continue };
        for (peer, theirs) in there.iter().filter(|(name, _)| *name != picket::NAME) {
            let Some(their_value) = (figure.value)(theirs, alone) else { continue };
            let goal = (figure.goal)(peer);
            println!(
                "{}",
                json!({
                    "name": figure.name, "ours": our_value, "peer": version(peer, theirs), "theirs": their_value,
                    "unit": figure.unit, "ratio": (their_value != 0.0).then(|| our_value / their_value),
                    "goal": goal.text(), "met": goal.is_met(our_value, their_value),
                })
            );
        }
    }
}

fn print_table(alone: &Best, there: &[(&str, &Best)]) {
    for (name, best) in there {
        println!("{name}: {}", version(name, best));
    }
    let [starts, connections] = [
        alone.least(|turn| turn.starts.map(load_ms)).unwrap_or_default(),
        alone.least(|turn| turn.connections.map(load_ms)).unwrap_or_default(),
    ];
    println!("the loads alone: {starts:.0} ms per 1,000 process starts, {connections:.1} ms per 1,000 connections\n");
    print!("{:<58} {:<12}", "", "unit");
    for (name, _) in there {
        print!(" {name:>14}");
    }
    println!("  goals of picket");
    let ours = there.iter().find(|(name, _)| *name == picket::NAME).map(|(_, best)| *best);
    for figure in &FIGURES {
        print!("{:<58} {:<12}", figure.name, figure.unit);
        let mut goals = Vec::new();
        for (name, best) in there {
            let value = (figure.value)(best, alone);
            print!(" {:>14}", value.map_or_else(|| "-".to_owned(), number));
            let our_value = ours.and_then(|ours| (figure.value)(ours, alone));
            if let (Some(theirs), Some(ours)) = (value, our_value) {
                let goal = (figure.goal)(name);
                let of_peer = matches!(goal, Goal::Ratio(_)).then(|| format!("{name}: ")).unwrap_or_default();
                let met = goal.is_met(ours, theirs).map_or("", |is_met| if is_met { " (met)" } else { " (not met)" });
                let ratio = matches!(goal, Goal::Ratio(_)).then(|| format!(" is {:.3}", ours / theirs));
                let text = format!("{of_peer}{}{}{met}", goal.text(), ratio.unwrap_or_default());
                let is_own_ratio = *name == picket::NAME && matches!(goal, Goal::Ratio(_));
                if !is_own_ratio && !goals.contains(&text) {
                    goals.push(text);
                }
            }
        }
        println!("  {}", goals.join("; "));
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn version(name: &str, best: &Best) -> String {
    let version = best.turns.first().map(|turn| turn.version.clone()).unwrap_or_default();
    if version.is_empty() { name.to_owned() } else { version }
}
