//! What the README tells people to type exists.

use std::collections::BTreeSet;

use picket_tests::role::Role;

use crate::{assert_none, root};

/// Lines of fenced blocks.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push(line.trim().trim_start_matches("$ ").to_owned());
        }
    }
    lines
}

#[test]
fn the_binaries_verbs_and_flags_it_names_exist() {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for line in commands() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(role) = Role::ALL.into_iter().find(|role| words.first() == Some(&role.binary())) else { continue };
        // Everything before the first flag or value: the noun and the verb.
        let path: Vec<&str> = words[1..].iter().copied().take_while(|word| is_verb(word)).take(2).collect();
        let flags: Vec<&str> = words.iter().copied().filter(|word| word.starts_with("--")).collect();
        if !seen.insert((role.binary(), path.join(" "), flags.join(" "))) {
            continue;
        }
        let output = role
            .command(std::path::Path::new(env!("CARGO_BIN_EXE_picket-demo")))
            .args(&path)
            .arg("--help")
            .output()
            .unwrap();
        if !output.status.success() {
            findings.push(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("")));
            continue;
        }
        let help = String::from_utf8_lossy(&output.stdout);
        let known: BTreeSet<&str> = help.split(|c: char| !c.is_ascii_lowercase() && c != '-').collect();
        findings.extend(flags.iter().filter(|flag| !known.contains(*flag)).map(|flag| format!("{line}: no {flag}")));
    }
    assert_none("the README names what does not exist", &findings);
}

fn is_verb(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
}

#[test]
fn its_cargo_commands_name_packages_and_binaries_of_the_workspace() {
    let mut findings = Vec::new();
    for line in commands().iter().filter(|line| line.starts_with("cargo ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let known = match pair[0] {
                "--bin" => ["picket-agent", "picket-server", "picketctl", "picket-demo"].contains(&pair[1]),
                "-p" | "--package" => crate::PACKAGES
                    .iter()
                    .any(|package| pair[1] == format!("picket-{}", package.rsplit('/').next().unwrap_or(package))),
                _ => true,
            };
            if !known {
                findings.push(format!("{line}: {}", pair[1]));
            }
        }
    }
    assert_none("the README's cargo commands", &findings);
}
