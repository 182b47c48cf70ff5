//! What must never be, over sources and manifests: every rule of the map that a compiler does not hold.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

mod arrows;
mod files;
mod manifests;
mod readme;
mod settings;

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The packages' folders.
const PACKAGES: [&str; 6] = ["proto", "common", "agent", "server", "server/learn", "tests"];

/// A Rust source file.
struct Source {
    /// Relative to the workspace, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Its lines with numbers, without comments and without an inline test module at the end.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").or_else(|| {
            // With an attribute between.
            let at = self.text.find("\nmod tests {")?;
            self.text[..at].rfind("#[cfg(test)]")
        });
        let end = tests.unwrap_or(self.text.len());
        // `tests`, `load_tests`, `test_server`: modules that lib.rs compiles for tests only.
        let is_test_file = self.path.split('/').skip(1).any(|part| {
            let name = part.trim_end_matches(".rs");
            name == "tests" || name.ends_with("_tests") || name.starts_with("test_")
        });
        let text = if is_test_file { "" } else { &self.text[..end] };
        text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
    }
}

/// Every hand-written Rust file of the workspace.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for package in PACKAGES {
        collect(&root().join(package), &mut paths);
    }
    let mut sources: Vec<Source> = paths
        .into_iter()
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        })
        .filter(|source| !source.path.starts_with("proto/src/gen/"))
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    // A package may lie within another.
    sources.dedup_by(|a, b| a.path == b.path);
    assert!(sources.len() > 50, "the sources were not found: {}", sources.len());
    sources
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

/// Fails with all findings, one a line.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
