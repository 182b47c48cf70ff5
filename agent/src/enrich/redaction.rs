//! Secrets in command lines, taken out before an event leaves its sensor.
//!
//! What is taken out becomes `***` (fewer where it was shorter: a command line never grows). It is gone for good: neither
//! the buffer nor the server nor a model ever sees it, and agent and server compute features from the same text.
//!
//! Recognised are values of names such as `password`, `token` or `api_key` (`--password=…`, `--password …`,
//! `TOKEN=…`, `"secret": "…"`), passwords in URLs, `Authorization` headers, the flags by which some well-known programs
//! take passwords, some kinds of keys by their shape, and whatever [`Redactor::new`] is given. A secret that looks like any other
//! word cannot be recognised: secrets do not belong on command lines.

use picket_common::event::ByteString;
use regex::bytes::{Captures, Regex};

/// What stands for a secret.
const MASK: &[u8] = b"***";
/// Most patterns of an administrator.
pub const PATTERNS_MAX: usize = 64;
/// Largest compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What secrets are called; the last part of a name.
const NAMES: &str =
    r"[a-z0-9_.\-]*(?:password|passwd|passphrase|secret|token|credentials?|(?:api|access|private|secret)[_\-]?key)";

/// A value, in quotes or not.
const VALUE: &str = r#"(?:"([^"]+)"|'([^']+)'|([^\s"'&;|,\-][^\s"'&;|,]*))"#;

/// Keys by their shape: of AWS, GitHub and Slack, and JSON web tokens.
const KEYS: [&str; 4] = [
    r"(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"gh[pousr]_[A-Za-z0-9]{36,}\b",
    r"xox[abprs]-[A-Za-z0-9\-]{10,}",
    r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*",
];

/// Programs that take a password by a short flag: attached to it, or as the next argument.
const FLAGS: [(&[u8], &[u8]); 6] = [
    (b"sshpass", b"-p"),
    (b"mysql", b"-p"),
    (b"mysqldump", b"-p"),
    (b"mysqladmin", b"-p"),
    (b"mariadb", b"-p"),
    (b"redis-cli", b"-a"),
];

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It is no regular expression.
    #[error("sensor.process.redact_patterns: {0}")]
    Syntax(#[from] regex::Error),
    /// There are too many.
    #[error("sensor.process.redact_patterns has {0} patterns, at most {PATTERNS_MAX} are possible")]
    TooMany(usize),
}

/// Takes secrets out of command lines.
#[derive(Debug)]
pub struct Redactor {
    /// In each, the first group that took part is the secret, or else the whole match is.
    patterns: Vec<Regex>,
    /// A flag whose next argument is the secret.
    flag: Regex,
}

impl Redactor {
    /// With patterns of one's own: of a match, the first group is taken out, or all of it where there is no group.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany(patterns.len()));
        }
        let built_in = [
            // name=value, name: value, "name": "value"
            format!(r#"(?i)(?:{NAMES})["']?\s*[=:]\s*{VALUE}"#),
            // --name value, within a command line that is one argument
            format!(r#"(?i)(?:^|\s)--?(?:{NAMES})\s+{VALUE}"#),
            // scheme://user:password@host
            r"(?i)\b[a-z][a-z0-9+.\-]*://[^\s/:@]*:([^\s/@]+)@".to_owned(),
            r#"(?i)authorization:\s*(?:(?:basic|bearer|digest|token)\s+)?([^\s"']+)"#.to_owned(),
            format!(r"\b(?:{})", KEYS.join("|")),
        ];
        let compiled = built_in.iter().chain(patterns).map(|pattern| compile(pattern));
        Ok(Self { patterns: compiled.collect::<Result<_, _>>()?, flag: compile(&format!("(?i)^--?(?:{NAMES})$"))? })
    }

    /// Takes the secrets out of an argument vector.
    pub fn redact(&self, arguments: &mut [ByteString]) {
        let program = arguments.first().map(|name| file_name(name.as_bytes()).to_vec()).unwrap_or_default();
        let short = FLAGS.iter().find(|(name, _)| *name == program).map(|(_, flag)| *flag);
        let mut is_secret = false;
        for argument in arguments.iter_mut().skip(1) {
            let bytes = argument.as_bytes();
            if std::mem::take(&mut is_secret) && !bytes.starts_with(b"-") {
                *argument = masked(bytes.len());
            } else if short == Some(bytes) || (bytes.starts_with(b"-") && self.flag.is_match(bytes)) {
                is_secret = true;
            } else if let Some(rest) = short.and_then(|flag| bytes.strip_prefix(flag)) {
                let kept = bytes.len() - rest.len();
                *argument = ByteString::truncated(&[&bytes[..kept], mask(rest.len())].concat());
            } else {
                self.redact_within(argument);
            }
        }
    }

    fn redact_within(&self, argument: &mut ByteString) {
        for pattern in &self.patterns {
            if !pattern.is_match(argument.as_bytes()) {
                continue;
            }
            let text = pattern.replace_all(argument.as_bytes(), |found: &Captures<'_>| replacement(found));
            *argument = ByteString::truncated(&text);
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES_MAX).build()
}

/// A match with its secret masked.
fn replacement(found: &Captures<'_>) -> Vec<u8> {
    let Some(whole) = found.get(0) else { return Vec::new() };
    let secret = found.iter().skip(1).flatten().next().unwrap_or(whole);
    let bytes = whole.as_bytes();
    let (begin, end) = (secret.start() - whole.start(), secret.end() - whole.start());
    [&bytes[..begin], mask(end - begin), &bytes[end..]].concat()
}

fn mask(length: usize) -> &'static [u8] {
    &MASK[..length.min(MASK.len())]
}

fn masked(length: usize) -> ByteString {
    ByteString::truncated(mask(length))
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(arguments: &[&str]) -> Vec<String> {
        let mut arguments: Vec<ByteString> =
            arguments.iter().map(|argument| ByteString::truncated(argument.as_bytes())).collect();
        Redactor::new(&[]).unwrap().redact(&mut arguments);
        arguments.iter().map(|argument| String::from_utf8_lossy(argument.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn values_of_names_that_tell_are_taken_out() {
        let cases: [(&[&str], &[&str]); 12] = [
            (&["app", "--password=hunter2", "x"], &["app", "--password=***", "x"]),
            (&["app", "--db-password", "hunter2", "x"], &["app", "--db-password", "***", "x"]),
            (&["app", "-token", "-v"], &["app", "-token", "-v"]),
            (&["env", "API_KEY=abc", "PATH=/bin"], &["env", "API_KEY=***", "PATH=/bin"]),
            (&["sh", "-c", "mysql --password 'a b' && echo"], &["sh", "-c", "mysql --password '***' && echo"]),
            (&["curl", "-d", r#"{"secret": "x1"}"#], &["curl", "-d", r#"{"secret": "**"}"#]),
            (&["git", "clone", "https://me:pa55@host/x"], &["git", "clone", "https://me:***@host/x"]),
            (&["curl", "-H", "Authorization: Bearer abc.def"], &["curl", "-H", "Authorization: Bearer ***"]),
            (&["/usr/bin/mysql", "-phunter2", "db"], &["/usr/bin/mysql", "-p***", "db"]),
            (&["sshpass", "-p", "x", "ssh", "h"], &["sshpass", "-p", "*", "ssh", "h"]),
            (&["aws", "AKIAIOSFODNN7EXAMPLE"], &["aws", "***"]),
            (&["mkdir", "-p", "token"], &["mkdir", "-p", "token"]),
        ];
        for (given, expected) in cases {
            assert_eq!(redacted(given), expected, "{given:?}");
        }
    }

    #[test]
    fn what_only_sounds_like_a_secret_stays() {
        for given in [
            &["cat", "/etc/passwd"][..],
            &["app", "--password-file=/run/secrets/db", "--token-file", "/x"],
            &["ls", "https://host:8443/path@2"],
            &["systemd-ask-password"],
            &["grep", "-rn", "password", "."],
        ] {
            assert_eq!(redacted(given), given);
        }
    }

    #[test]
    fn ones_own_patterns_are_used_and_checked() {
        let redactor = Redactor::new(&["ticket-([0-9]+)".to_owned()]).unwrap();
        let mut arguments = [ByteString::truncated(b"app"), ByteString::truncated(b"ticket-12345")];
        redactor.redact(&mut arguments);
        assert_eq!(arguments[1].as_bytes(), b"ticket-***");
        let error = Redactor::new(&["(".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("sensor.process.redact_patterns: regex parse error"), "{error}");
        assert!(matches!(Redactor::new(&vec![String::new(); 65]), Err(PatternError::TooMany(65))));
    }

    proptest! {
        #[test]
        fn a_command_line_never_grows(
            given in proptest::collection::vec("(--?(password|token)[= ]?)?[a-zA-Z0-9:/@='\" -]{0,40}", 0..6),
        ) {
            let redactor = Redactor::new(&[]).unwrap();
            let given: Vec<ByteString> = given.iter().map(|text| ByteString::truncated(text.as_bytes())).collect();
            let mut once = given.clone();
            redactor.redact(&mut once);
            for (before, after) in given.iter().zip(&once) {
                prop_assert!(after.len() <= before.len());
            }
        }

        #[test]
        fn no_bytes_hurt(given in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let mut arguments: Vec<ByteString> = given.iter().map(|bytes| ByteString::truncated(bytes)).collect();
            Redactor::new(&[]).unwrap().redact(&mut arguments);
            prop_assert_eq!(arguments.len(), given.len());
        }
    }
}
