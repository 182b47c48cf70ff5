//! Lines of an authentication log: what sshd, sudo, su, login, cron and PAM say of logins.
//!
//! Names, hosts and commands in a line come from whoever knocked: a line is read from the end that its writer controls,
//! and what does not have the writer's shape is passed over.

use std::net::IpAddr;

use picket_common::event::{Authentication, AuthenticationAction, ByteString, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A line of interest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// When it was written, where the line says so with year and zone.
    pub(super) time: Option<Timestamp>,
    /// Process that wrote it.
    pub(super) pid: Option<u32>,
    /// What it says; its `process` is not known yet.
    pub(super) authentication: Authentication,
}

/// Reads a line as syslog daemons write it, without its end; `None` when it says nothing about a login.
pub(super) fn parse(line: &[u8]) -> Option<Entry> {
    // What is not text is of no writer that is known here; a wrong byte in a name spoils nothing else.
    let text = String::from_utf8_lossy(line);
    let (time, rest) = split_time(&text)?;
    let (_host, rest) = rest.split_once(' ')?;
    let (tag, message) = rest.split_once(": ")?;
    let (program, pid) = match tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')) {
        Some((program, pid)) => (program, Some(pid.parse().ok()?)),
        None => (tag, None),
    };
    let authentication = read_message(program, message.trim_start())?;
    Some(Entry { time, pid, authentication })
}

/// `2026-11-23T04:21:03.123456+00:00 …` or `Nov 23 04:21:03 …`; the latter names neither year nor zone.
fn split_time(text: &str) -> Option<(Option<Timestamp>, &str)> {
    let (first, rest) = text.split_once(' ')?;
    if let Ok(time) = OffsetDateTime::parse(first, &Rfc3339) {
        let time = i64::try_from(time.unix_timestamp_nanos()).ok()?;
        return Some((Some(Timestamp(time)), rest));
    }
    const TRADITIONAL_BYTES: usize = "Nov 23 04:21:03 ".len();
    let is_traditional = text.is_char_boundary(TRADITIONAL_BYTES)
        && text.as_bytes().get(TRADITIONAL_BYTES - 1) == Some(&b' ')
        && first.len() == 3
        && text.as_bytes().get(9) == Some(&b':');
    is_traditional.then(|| (None, &text[TRADITIONAL_BYTES..]))
}

/// Whether a program writes of logins in words of its own.
pub(super) fn writes_of_logins(program: &str) -> bool {
    matches!(program, "sshd" | "sshd-session" | "sudo" | "su" | "login")
}

/// Reads what a program wrote; `None` when it says nothing about a login.
pub(super) fn read_message(program: &str, message: &str) -> Option<Authentication> {
    if let Some(pam) = message.strip_prefix("pam_unix(") {
        return read_pam(pam);
    }
    match program {
        "sshd" | "sshd-session" => read_sshd(message),
        "sudo" => read_sudo(message),
        "su" => read_su(message),
        "login" => read_login(message),
        _ => None,
    }
}

/// A login of which no more is known.
pub(super) fn logon(service: &str, user_name: &str, success: bool) -> Authentication {
    Authentication {
        action: AuthenticationAction::Logon,
        user_name: user_name.into(),
        user_id: None,
        user_exists: success.then_some(true),
        success,
        service: service.into(),
        method: ByteString::default(),
        acting_user_name: ByteString::default(),
        terminal: ByteString::default(),
        command: ByteString::default(),
        source: None,
        source_port: None,
        process: None,
    }
}

/// `Accepted METHOD for USER from ADDRESS port PORT ssh2: …`, `Failed METHOD for [invalid user ]USER from …`,
/// `Invalid user USER from ADDRESS port PORT`.
fn read_sshd(message: &str) -> Option<Authentication> {
    let (method, who, success) = if let Some(rest) = message.strip_prefix("Accepted ") {
        let (method, who) = rest.split_once(" for ")?;
        (method, who, true)
    } else if let Some(rest) = message.strip_prefix("Failed ") {
        let (method, who) = rest.split_once(" for ")?;
        (method, who, false)
    } else {
        let who = message.strip_prefix("Invalid user ")?;
        let mut authentication = with_source("", who, false)?;
        authentication.user_exists = Some(false);
        return Some(authentication);
    };
    let name = who.strip_prefix("invalid user ").filter(|_| !success);
    let mut authentication = with_source(method, name.unwrap_or(who), success)?;
    authentication.user_exists = Some(name.is_none());
    Some(authentication)
}

/// `USER from ADDRESS port PORT …`; a user's name may hold all of these words, so the last ones count.
fn with_source(method: &str, who: &str, success: bool) -> Option<Authentication> {
    let (user_name, origin) = match who.strip_prefix("from ") {
        Some(origin) => ("", origin),
        None => who.rsplit_once(" from ")?,
    };
    let mut words = origin.split(' ');
    let source: IpAddr = words.next()?.parse().ok()?;
    let source_port = if words.next() == Some("port") { words.next().and_then(|port| port.parse().ok()) } else { None };
    let mut authentication = logon("sshd", user_name, success);
    authentication.method = method.into();
    authentication.source = Some(source);
    authentication.source_port = source_port;
    Some(authentication)
}

/// `WHO : [PROBLEM ; ]TTY=pts/0 ; PWD=/home/ada ; USER=root ; COMMAND=/usr/bin/id`.
fn read_sudo(message: &str) -> Option<Authentication> {
    let (acting, fields) = message.split_once(" : ")?;
    let (head, command) = fields.split_once(" ; COMMAND=")?;
    // The name that is last is sudo's own: a folder's name before it may hold anything.
    let (head, user) = head.rsplit_once(" ; USER=")?;
    let user = user.split(" ; ").next()?;
    let (problem, terminal) = match head.split_once("TTY=") {
        Some((problem, rest)) => (problem.trim_end_matches(" ; "), rest.split(" ; ").next().unwrap_or_default()),
        None => (head.split(" ; ").next().unwrap_or_default(), ""),
    };
    let is_problem = !problem.is_empty() && !problem.starts_with("PWD=");
    let mut authentication = logon("sudo", user, !is_problem);
    authentication.acting_user_name = acting.trim().into();
    authentication.terminal = known_terminal(terminal);
    authentication.command = command.into();
    Some(authentication)
}

/// `(to root) ada on pts/0`, `FAILED SU (to root) ada on pts/0`.
fn read_su(message: &str) -> Option<Authentication> {
    let (success, rest) = match message.strip_prefix("FAILED SU ") {
        Some(rest) => (false, rest),
        None => (true, message),
    };
    let (user, rest) = rest.strip_prefix("(to ")?.split_once(") ")?;
    let (acting, terminal) = rest.rsplit_once(" on ")?;
    let mut authentication = logon("su", user, success);
    authentication.acting_user_name = acting.into();
    authentication.terminal = known_terminal(terminal);
    Some(authentication)
}

/// `FAILED LOGIN (1) on '/dev/tty1' FOR 'ada', Authentication failure`. What succeeds, PAM says.
fn read_login(message: &str) -> Option<Authentication> {
    let rest = message.strip_prefix("FAILED LOGIN ")?;
    let (head, who) = rest.split_once(" FOR '")?;
    let (user, _) = who.rsplit_once("', ")?;
    let mut authentication = logon("login", user, false);
    let terminal = head.split_once(" on '").and_then(|(_, rest)| rest.strip_suffix('\''));
    authentication.terminal = known_terminal(terminal.unwrap_or_default());
    Some(authentication)
}

/// After `pam_unix(`: `cron:session): session opened for user root(uid=0) by (uid=0)`,
/// `sshd:session): session closed for user ada`, `gdm:auth): authentication failure; … user=ada`.
fn read_pam(text: &str) -> Option<Authentication> {
    let (context, message) = text.split_once("): ")?;
    let (service, kind) = context.split_once(':')?;
    match kind {
        "session" => {
            if let Some(rest) = message.strip_prefix("session opened for user ") {
                // These say more themselves.
                if matches!(service, "sshd" | "sudo" | "su" | "su-l" | "sudo-i" | "systemd-user") {
                    return None;
                }
                let (user, by) = rest.split_once(" by ").unwrap_or((rest, ""));
                let mut authentication = session(service, user);
                authentication.acting_user_name = by.split('(').next().unwrap_or_default().into();
                return Some(authentication);
            }
            if service == "systemd-user" {
                return None;
            }
            let user = message.strip_prefix("session closed for user ")?;
            let mut authentication = session(service, user);
            authentication.action = AuthenticationAction::Logoff;
            Some(authentication)
        }
        "auth" => {
            let fields = message.strip_prefix("authentication failure; ")?;
            if matches!(service, "sshd" | "sudo" | "su" | "su-l" | "sudo-i" | "login") {
                return None;
            }
            let field = |name: &str| {
                let value = fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
                value.unwrap_or_default()
            };
            let mut authentication = logon(service, field("user"), false);
            authentication.acting_user_name = field("ruser").into();
            authentication.terminal = known_terminal(field("tty"));
            authentication.source = field("rhost").parse().ok();
            Some(authentication)
        }
        _ => None,
    }
}

/// Of a user as PAM names it: `ada` or `ada(uid=1000)`.
fn session(service: &str, user: &str) -> Authentication {
    let (name, user_id) = match user.strip_suffix(')').and_then(|user| user.rsplit_once("(uid=")) {
        Some((name, id)) => (name, id.parse().ok()),
        None => (user, None),
    };
    let service = service.strip_suffix("-l").unwrap_or(service);
    let mut authentication = logon(service, name, true);
    authentication.user_id = user_id;
    authentication
}

/// A terminal's name without its folder; empty for what stands for none.
fn known_terminal(name: &str) -> ByteString {
    match name.strip_prefix("/dev/").unwrap_or(name) {
        "unknown" | "none" | "ssh" | ":0" => ByteString::default(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests;
