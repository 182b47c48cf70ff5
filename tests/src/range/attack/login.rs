//! Password guessing and spraying against the range's login service.

use std::net::SocketAddr;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use crate::range::activity::{ACCOUNTS, Prepared, Stage};
use crate::range::helper::NetStep;

const PASSWORDS: [&str; 12] = [
    "123456", "password", "qwerty", "letmein", "dragon", "monkey", "admin", "welcome1", "summer", "secret", "changeme",
    "football",
];

pub(super) fn guessing(stage: &mut Stage<'_>, tries: usize, tries_per_connection: usize, gap_ms: u64) -> Prepared {
    let user = ACCOUNTS.choose(&mut stage.rng).copied().unwrap_or(ACCOUNTS[0]);
    let pairs: Vec<(String, String)> = (0..tries).map(|_| (user.to_owned(), password(stage))).collect();
    play(stage, &pairs, tries_per_connection, gap_ms)
}

pub(super) fn spraying(stage: &mut Stage<'_>, accounts: usize, passwords: usize, gap_ms: u64) -> Prepared {
    let mut pairs = Vec::new();
    for _ in 0..passwords {
        let password = password(stage);
        for number in 0..accounts {
            let user = ACCOUNTS.get(number).map_or_else(|| format!("user{number}"), |user| (*user).to_owned());
            pairs.push((user, password.clone()));
        }
    }
    play(stage, &pairs, 1, gap_ms)
}

fn password(stage: &mut Stage<'_>) -> String {
    let word = PASSWORDS.choose(&mut stage.rng).copied().unwrap_or(PASSWORDS[0]);
    format!("{word}{}", stage.rng.random_range(0..1000))
}

fn play(stage: &mut Stage<'_>, pairs: &[(String, String)], per_connection: usize, gap_ms: u64) -> Prepared {
    let address: SocketAddr = stage.services.login;
    let mut steps = Vec::new();
    for tries in pairs.chunks(per_connection.max(1)) {
        steps.push(NetStep::Login { address, tries: tries.to_vec(), session_lines: 0, pause_ms: gap_ms / 4 });
        steps.push(NetStep::Pause { ms: gap_ms });
    }
    Prepared::root(stage.tool(address, steps))
}
