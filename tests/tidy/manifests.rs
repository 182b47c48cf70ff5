//! Who may depend on whom.

use std::collections::BTreeSet;

use crate::{PACKAGES, assert_none, root};

/// For each package, the packages of the workspace it may depend on, in any section.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("common", &["picket-proto"]),
    ("agent", &["picket-common", "picket-proto"]),
    ("server", &["picket-common", "picket-learn", "picket-proto"]),
    ("server/learn", &["picket-common"]),
    ("tests", &["picket-agent", "picket-common", "picket-learn", "picket-proto", "picket-server"]),
];

/// What common must never depend on.
const IMPURE: [&str; 11] =
    ["tokio", "tonic", "clap", "sqlx", "rustls", "rustix", "rand", "hyper-util", "sysinfo", "tracing", "tempfile"];

fn manifest(package: &str) -> toml::Table {
    std::fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Names of all dependencies of a table and its target-specific tables.
fn dependencies(table: &toml::Table, sections: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for section in sections {
        names.extend(table.get(*section).and_then(toml::Value::as_table).into_iter().flat_map(|t| t.keys().cloned()));
    }
    for target in table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|targets| targets.values()) {
        names.extend(dependencies(target.as_table().unwrap(), sections));
    }
    names
}

#[test]
fn packages_depend_only_in_the_direction_of_the_arrows() {
    assert_eq!(ALLOWED.map(|(package, _)| package), PACKAGES);
    let mut findings = Vec::new();
    for (package, allowed) in ALLOWED {
        let names = dependencies(&manifest(package), &["dependencies", "dev-dependencies", "build-dependencies"]);
        let wrong = names.iter().filter(|name| name.starts_with("picket-") && !allowed.contains(&name.as_str()));
        findings.extend(wrong.map(|name| format!("{package} depends on {name}")));
    }
    assert_none("proto ← common ← {agent, learn ← server} ← tests", &findings);
}

#[test]
fn common_depends_on_nothing_that_does_input_or_output() {
    let names = dependencies(&manifest("common"), &["dependencies"]);
    let findings: Vec<String> = names.into_iter().filter(|name| IMPURE.contains(&name.as_str())).collect();
    assert_none("common is pure", &findings);
}

#[test]
fn every_dependency_has_one_version_for_the_whole_workspace() {
    let mut findings = Vec::new();
    for package in PACKAGES {
        let manifest = manifest(package);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    findings.push(format!("{package}: {name} must be `workspace = true`"));
                }
            }
        }
        assert!(manifest.get("lints").is_some(), "{package} uses the workspace's lints");
    }
    assert_none("versions live in [workspace.dependencies]", &findings);
}
