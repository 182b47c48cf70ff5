//! Who may name whom, inside packages.

use crate::{Source, assert_none, sources};

/// Files whose product code must not contain certain words.
struct Never {
    /// What is kept out, and why.
    rule: &'static str,
    /// Files or folders, relative to the workspace; a file and the folder of the same name are named by its stem.
    places: &'static [&'static str],
    /// Exceptions.
    except: &'static [&'static str],
    /// Words, matched on word boundaries.
    words: &'static [&'static str],
}

const NEVER: [Never; 11] = [
    Never {
        rule: "common is pure: no files, sockets, clock, threads, environment, output",
        places: &["common/src"],
        except: &[],
        words: &[
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "SystemTime",
            "Instant",
            "tokio",
            "std::thread",
            "std::env::var",
            "std::env::args",
            "std::process",
            "println!",
            "eprintln!",
            "rand::",
        ],
    },
    Never {
        rule: "features and models never depend on the order of a hash map",
        places: &["common/src/feature", "common/src/model", "common/src/table"],
        except: &[],
        words: &["std::collections::hash_map::RandomState", "RandomState", "thread_rng", "DefaultHasher"],
    },
    Never {
        rule: "sensors know only their sender",
        places: &["agent/src/sensor"],
        except: &[],
        words: &["crate::buffer", "crate::uplink", "crate::detector", "crate::model_store", "crate::app", "sled"],
    },
    Never {
        rule: "the buffer knows bytes, not events",
        places: &["agent/src/buffer"],
        except: &[],
        words: &[
            "picket_common::event",
            "picket_common::batch",
            "picket_common::feature",
            "crate::pipeline",
            "crate::uplink",
        ],
    },
    Never {
        rule: "the detector never touches the buffer",
        places: &["agent/src/detector"],
        except: &[],
        words: &["crate::buffer", "crate::uplink"],
    },
    Never {
        rule: "api and ctl never touch storage: they call services, so that rights are checked once",
        places: &["server/src/api", "server/src/ctl"],
        except: &[],
        words: &["crate::wal", "crate::lake::delta", "deltalake", "sqlx", "SqlitePool"],
    },
    Never {
        rule: "learning and evaluation are pure functions",
        places: &["server/learn/src"],
        except: &[],
        words: &["std::fs", "std::net", "tokio", "SystemTime", "Instant", "rand::", "HashMap", "HashSet", "println!"],
    },
    Never {
        rule: "machines' and people's trust are apart",
        places: &["server/src/pki"],
        except: &[],
        words: &["crate::auth"],
    },
    Never {
        rule: "generated wire types stay at the edge",
        places: &["common/src", "agent/src", "server/src", "server/learn/src"],
        except: &["common/src/batch", "agent/src/uplink", "agent/src/identity", "server/src/api", "server/src/ctl"],
        words: &["picket_proto"],
    },
    Never {
        rule: "nothing is unbounded",
        places: &["common/src", "agent/src", "server/src", "server/learn/src"],
        except: &[],
        words: &["unbounded_channel", "mpsc::channel()", "UnboundedSender"],
    },
    Never {
        rule: "tasks are spawned by supervisors, so that none is an orphan and every panic surfaces",
        places: &["common/src", "agent/src", "server/src", "server/learn/src"],
        except: &[
            "agent/src/app",
            "server/src/app",
            // A streamed answer's task, owned by the stream and ended with it.
            "server/src/api/admin/stream",
            // Waits for a second signal, to end the process.
            "agent/src/cli/signals",
            "server/src/cli/signals",
        ],
        words: &["tokio::spawn", "task::spawn("],
    },
];

#[test]
fn forbidden_words_stay_out() {
    let sources = sources();
    for never in &NEVER {
        for place in never.places {
            assert!(sources.iter().any(|source| is_in(source, place)), "{}: {place} does not exist", never.rule);
        }
        let mut findings = Vec::new();
        let concerned = sources.iter().filter(|source| {
            never.places.iter().any(|place| is_in(source, place))
                && !never.except.iter().any(|place| is_in(source, place))
        });
        for source in concerned {
            for (number, line) in source.product_lines() {
                if let Some(word) = never.words.iter().find(|word| contains_word(line, word)) {
                    findings.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
        assert_none(never.rule, &findings);
    }
}

#[test]
fn there_is_no_mod_rs_and_no_unsafe() {
    let mut findings = Vec::new();
    for source in sources() {
        if source.path.ends_with("/mod.rs") {
            findings.push(format!("{}: name it after its module", source.path));
        }
        let unsafe_block = concat!("unsafe", " {");
        for (number, _) in source.product_lines().filter(|(_, line)| line.contains(unsafe_block)) {
            findings.push(format!("{}:{number}: {unsafe_block}", source.path));
        }
    }
    assert_none("module style and safety", &findings);
}

/// Whether `source` is the file or lies in the folder, or in file and folder of a module called `place`.
fn is_in(source: &Source, place: &str) -> bool {
    source.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

/// Whether `line` contains `word` and not merely a longer word that contains it.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open_end = word.ends_with(|c: char| !is_part(c)) || word.ends_with("Tcp") || word.ends_with("Udp");
        !before.is_some_and(is_part) && (open_end || !after.is_some_and(is_part))
    })
}

#[test]
fn words_are_found_on_their_boundaries_only() {
    assert!(contains_word("use std::fs;", "std::fs"));
    assert!(contains_word("std::net::TcpStream", "std::net::Tcp"));
    assert!(!contains_word("picket_proton::v1", "picket_proto"));
    assert!(!contains_word("MyInstant", "Instant"));
}
