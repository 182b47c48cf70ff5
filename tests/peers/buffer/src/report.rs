//! A table for people, JSON lines for programs.

use serde_json::json;

use crate::store::PEER;

/// One line of the comparison: ours is the agent's store.
pub struct Line {
    pub name: String,
    pub ours: f64,
    pub theirs: f64,
    pub unit: &'static str,
    pub goal: Goal,
}

#[derive(Clone, Copy)]
pub enum Goal {
    /// Ours is 0.
    Zero,
    /// Ours is not more than theirs.
    NotMore,
    /// For information.
    None,
}

impl Line {
    fn is_met(&self) -> bool {
        match self.goal {
            Goal::Zero => self.ours == 0.0,
            Goal::NotMore => self.ours <= self.theirs,
            Goal::None => true,
        }
    }

    fn goal(&self) -> &'static str {
        match self.goal {
            Goal::Zero => "0",
            Goal::NotMore => "≤ 1.0",
            Goal::None => "",
        }
    }
}

/// Prints all lines.
pub fn print(lines: &[Line], as_json: bool) {
    if as_json {
        for line in lines {
            let ratio = (line.theirs != 0.0).then(|| line.ours / line.theirs);
            println!(
                "{}",
                json!({
                    "name": line.name, "ours": line.ours, "peer": PEER, "theirs": line.theirs, "unit": line.unit,
                    "ratio": ratio, "goal": line.goal(), "met": line.is_met(),
                })
            );
        }
        return;
    }
    println!("{:<44} {:>12} {:>12}  {:<8} {:<6} met", "", "sled 0.34.7", PEER, "unit", "goal");
    for line in lines {
        let number = |value: f64| if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}") };
        let met = if line.is_met() { "yes" } else { "no" };
        println!(
            "{:<44} {:>12} {:>12}  {:<8} {:<6} {met}",
            line.name,
            number(line.ours),
            number(line.theirs),
            line.unit,
            line.goal()
        );
    }
}
