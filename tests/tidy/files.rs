//! Files: short enough, reachable, and silent about the machine they were written on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{PACKAGES, assert_none, root, sources};

/// Longest hand-written Rust file, in lines.
const LINES_MAX: usize = 600;

/// Longer ones, with the length they have: they may shrink, not grow.
const LONGER: [(&str, usize); 0] = [];

#[test]
fn no_file_is_too_long() {
    let most = |path: &str| LONGER.iter().find(|(longer, _)| *longer == path).map_or(LINES_MAX, |(_, lines)| *lines);
    let findings: Vec<String> = sources()
        .iter()
        .map(|source| (&source.path, source.text.lines().count()))
        .filter(|(path, lines)| *lines > most(path))
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {}", most(path)))
        .collect();
    assert_none("a file is one noun", &findings);
}

#[test]
fn every_file_is_reachable() {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    for package in PACKAGES {
        let folder = root().join(package);
        for crate_root in crate_roots(&folder) {
            reach(&crate_root, true, &mut reached);
        }
    }
    let findings: Vec<String> = sources()
        .iter()
        .filter(|source| !reached.contains(&root().join(&source.path)))
        .map(|s| s.path.clone())
        .collect();
    assert_none("no module declares these files", &findings);
}

/// Files that Cargo compiles: by convention, and those a manifest names.
fn crate_roots(package: &Path) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs", "build.rs"]
        .iter()
        .map(|file| package.join(file))
        .filter(|file| file.is_file())
        .collect();
    for folder in ["src/bin", "tests", "examples", "benches"] {
        let Ok(entries) = std::fs::read_dir(package.join(folder)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                roots.extend(Some(path.join("main.rs")).filter(|main| main.is_file()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                roots.push(path);
            }
        }
    }
    // Comparisons with other programs are crates of their own, built only when they are run.
    for entry in std::fs::read_dir(package.join("peers")).into_iter().flatten() {
        roots.extend(Some(entry.unwrap().path().join("src/main.rs")).filter(|main| main.is_file()));
    }
    let manifest: toml::Table = std::fs::read_to_string(package.join("Cargo.toml")).unwrap().parse().unwrap();
    for kind in ["bin", "test", "bench", "example"] {
        let targets = manifest.get(kind).and_then(toml::Value::as_array);
        for target in targets.into_iter().flatten() {
            roots.extend(target.get("path").and_then(toml::Value::as_str).map(|path| package.join(path)));
        }
    }
    roots
}

fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let text = std::fs::read_to_string(file).unwrap();
    let folder = if is_root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    let mut path_attribute = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("#[path = \"") {
            path_attribute = path.strip_suffix("\"]").map(str::to_owned);
            continue;
        }
        let Some(name) = declared_module(line) else { continue };
        let candidate = match path_attribute.take() {
            Some(path) => file.parent().unwrap().join(path),
            None => folder.join(format!("{name}.rs")),
        };
        if candidate.is_file() {
            reach(&candidate, false, reached);
        }
    }
}

/// The module a line `pub(crate) mod name;` declares.
fn declared_module(line: &str) -> Option<&str> {
    let rest = line.strip_suffix(';')?;
    let (visibility, name) = rest.rsplit_once("mod ")?;
    let visibility = visibility.trim();
    (visibility.is_empty() || (visibility.starts_with("pub") && !visibility.contains(' '))).then_some(name)
}

#[test]
fn no_file_names_a_place_of_the_machine_it_was_written_on() {
    // In pieces, so that this file does not contain them.
    let places = [concat!("/ro", "ot/."), concat!("/wo", "rk/"), concat!("/tmp/pick", "et/")];
    let mut findings = Vec::new();
    for path in tracked_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(**place)) {
                findings.push(format!("{path}:{}: {place}", index + 1));
            }
        }
    }
    assert_none("paths of one machine", &findings);
}

fn tracked_files() -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root()).arg("ls-files").output();
    match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        // An unpacked archive has no index: then the sources have to do.
        _ => sources().into_iter().map(|source| source.path).collect(),
    }
}
